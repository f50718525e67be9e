"""Score a run again, the features of any other code, or the splits of RegDB together; no run's own result is touched.

With explain=true, say what is evaluated on a dataset. That needs no data.

Examples
  python -m bdlf.evaluate run=outputs/sysu/full-1a2b3c4d/seed0 evaluation.mode=indoor save_features=true
  python -m bdlf.evaluate features=theirs.npz dataset=sysu evaluation.gallery=official evaluation.shots=10
  python -m bdlf.evaluate 'splits=outputs/regdb/full-1a2b3c4d/seed0'
  python -m bdlf.evaluate dataset=llcm explain=true
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bdlf.commandline.command import run_command
from bdlf.commandline.jobs import DONE
from bdlf.config import EvaluateConfig
from bdlf.datasets.choices import OPTIONS, Asked
from bdlf.system.errors import InputError
from bdlf.system.memory import load

log = logging.getLogger("bdlf")


def evaluate(config: EvaluateConfig) -> int:
    """Run the command, and return its exit code."""
    from bdlf.runs.logs import show_on_screen

    show_on_screen()
    asked = [name for name in ("run", "features", "splits") if getattr(config, name) is not None]
    asked += ["explain"] if config.explain else []
    if len(asked) != 1:
        given = f"{' and '.join(asked)} are given" if asked else "none is given"
        raise InputError(f"one of run=FOLDER, features=FILE.npz, splits=FOLDERS and explain=true is needed; {given}")
    _require_used(config, asked[0])
    if config.explain:
        _explain(config)
        return DONE
    if config.output is not None and (Path(config.output) / "config.yaml").exists():
        raise InputError(
            f"output={config.output} is a run folder, whose own result is never replaced; choose another output="
        )
    load("bdlf.experiment")
    from bdlf.scoring.features import score_features
    from bdlf.scoring.run import score_run
    from bdlf.scoring.splits import collate

    {"run": score_run, "features": score_features, "splits": collate}[asked[0]](config)
    return DONE


_PROTOCOL = tuple(f"evaluation.{name}" for name in OPTIONS)
_USED = {
    "run": ("selection", "save_features", "dataset.root", "dataset.follow_links", "dataset.split", "evaluation"),
    "features": ("dataset", *_PROTOCOL),
    "splits": (),
    "explain": ("dataset", *_PROTOCOL),
}
"""The keys that change the outcome of `run=`, `features=`, `splits=` and `explain=true`."""
_ALWAYS_USED = ("output", "data", "devices", "threads", "debug")
"""The keys that all four accept. None of them changes a number."""
_WHY_NOT = {
    ("run", "dataset"): "a run knows its dataset; dataset.root= says where it lies now",
    ("features", "evaluation"): "it is how a network is used, and features are scored as they are",
    ("explain", "evaluation"): "it is how a network is used, and no network is used here",
    ("splits", "evaluation"): "splits= collates what the runs' results hold",
}


def _require_used(config: EvaluateConfig, what: str) -> None:
    """Refuse an option that has no effect on `what`, because the user who gave it would misread the result.

    Raises InputError.
    """
    defaults = dict(_leaves(dataclasses.asdict(EvaluateConfig())))
    for key, value in _leaves(dataclasses.asdict(config)):
        parts = key.split(".")
        used = any(".".join(parts[: n + 1]) in (*_USED[what], *_ALWAYS_USED, what) for n in range(len(parts)))
        if value != defaults[key] and not used:
            reason = _WHY_NOT.get((what, parts[0]), f"{what}= makes no use of it")
            given = str(value).lower() if isinstance(value, bool) else value  # as it is typed
            raise InputError(f"{key}={given} does not go with {what}=: {reason}; leave it out")


def _explain(config: EvaluateConfig) -> None:
    from bdlf.datasets import DATASETS
    from bdlf.datasets.explain import explain

    if config.dataset.name is None:
        raise InputError(f"explain=true needs a dataset: dataset={'|'.join(DATASETS)}")
    print(explain(config.dataset.name, Asked.of(config.evaluation)))


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def main() -> None:
    """The command."""
    run_command("evaluate", EvaluateConfig, evaluate, __doc__ or "", folder="on_disk")


if __name__ == "__main__":
    main()
