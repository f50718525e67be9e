"""Score a run again, the features of any other code, or the splits of RegDB together; no run's own result is touched.

Examples
  python -m bdlf.evaluate run=outputs/sysu/full-1a2b3c4d/seed0 evaluation.mode=indoor save_features=true
  python -m bdlf.evaluate features=theirs.npz dataset=sysu evaluation.gallery=official evaluation.shots=10
  python -m bdlf.evaluate 'splits=outputs/regdb/full-1a2b3c4d/seed0'
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlf.commandline.command import run_command
from bdlf.commandline.jobs import DONE
from bdlf.config import Dataset, EvaluateConfig
from bdlf.system.errors import InputError
from bdlf.system.memory import load

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("bdlf")


def evaluate(config: EvaluateConfig) -> int:
    """Returns the exit code."""
    from bdlf.runs.logs import show_on_screen

    show_on_screen()
    asked = [name for name in ("run", "features", "splits") if getattr(config, name) is not None]
    if len(asked) != 1:
        given = f"{' and '.join(asked)} are given" if asked else "none is given"
        raise InputError(f"one of run=FOLDER, features=FILE.npz and splits=FOLDERS is needed; {given}")
    _require_used(config, asked[0])
    if config.output is not None and (Path(config.output) / "config.yaml").exists():
        raise InputError(
            f"output={config.output} is a run folder, whose own result is never replaced; choose another output="
        )
    {"run": _score_run, "features": _score_features, "splits": _collate}[asked[0]](config)
    return DONE


_PROTOCOL = tuple(f"evaluation.{name}" for name in ("mode", "shots", "direction", "gallery", "reading"))
_USED = {
    "run": ("selection", "save_features", "dataset.root", "dataset.follow_links", "dataset.split", "evaluation"),
    "features": ("dataset", *_PROTOCOL),
    "splits": (),
}
_ALWAYS_USED = ("output", "data", "devices", "threads", "debug")  # the last four change no number
_WHY_NOT = {
    ("run", "dataset"): "a run knows its dataset; dataset.root= says where it lies now",
    ("features", "evaluation"): "it is how a network is used, and features are scored as they are",
    ("splits", "evaluation"): "splits= collates what the runs' results hold",
}


def _require_used(config: EvaluateConfig, what: str) -> None:
    """Refuse an option that changes nothing here: whoever gave it would read the result wrongly."""
    defaults = dict(_leaves(dataclasses.asdict(EvaluateConfig())))
    for key, value in _leaves(dataclasses.asdict(config)):
        parts = key.split(".")
        used = any(".".join(parts[: n + 1]) in (*_USED[what], *_ALWAYS_USED, what) for n in range(len(parts)))
        if value != defaults[key] and not used:
            reason = _WHY_NOT.get((what, parts[0]), f"{what}= makes no use of it")
            given = str(value).lower() if isinstance(value, bool) else value  # as it is typed
            raise InputError(f"{key}={given} does not go with {what}=: {reason}; leave it out")


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _score_run(config: EvaluateConfig) -> None:
    load("bdlf.training.scoring")
    import numpy as np

    from bdlf import build
    from bdlf.data import fingerprint
    from bdlf.evaluation.features_file import write_features
    from bdlf.runs.folder import RunFolder, read_config
    from bdlf.runs.selection import LAST, UNFINISHED, selection_rules
    from bdlf.training.scoring import build_run_models, load_weights, score_models

    assert config.run is not None
    folder = RunFolder(Path(config.run))
    run = read_config(folder.config)
    if config.dataset.split not in (None, run.dataset.split):
        raise InputError(
            f"dataset.split={config.dataset.split}: {config.run} was trained on split {run.dataset.split}, so half of "
            "the test identities of any other split are its training identities; train one model for each split"
        )
    run.evaluation = dataclasses.replace(run.evaluation, **_given(config.evaluation))
    run.dataset.root = config.dataset.root or run.dataset.root
    run.dataset.follow_links |= bool(config.dataset.follow_links)
    run.data, run.devices, run.threads = config.data, config.devices, config.threads
    build.check_values(run)
    rule = selection_rules(config.selection)[-1]
    if rule not in selection_rules(run.selection):
        raise InputError(f"selection={rule}: {folder.path} was trained with selection={run.selection}")

    listing = build.build_listing(run.dataset)
    table = build.build_partition(run, listing)
    settings = build.build_settings(run, table)
    fabric = build.build_fabric(run)
    of_run = build_run_models(run, table, fabric.device)
    weights = folder.weights(rule)
    if folder.result.is_file() and not weights.is_file():
        raise InputError(
            f"{weights} is gone, so {folder.path} can be scored no more; restore the file from a copy, or train again "
            "with rerun=true"
        )
    state = load_weights(weights, of_run.states, device=fabric.device)
    digest = fingerprint(listing, run.dataset.root)
    folder.require_fingerprint(state["fingerprint"], digest)

    store = build.build_store(run, listing, fabric.device)
    finished = state["epoch"] == run.schedule.epochs if rule == LAST else folder.result.is_file()
    epoch = state["epoch"] - (not state.get("step"))  # that is done, or under way
    chosen = rule if finished else UNFINISHED + rule
    rows = np.flatnonzero(table["split"] == "test") if config.save_features else None
    (metrics, scores), features = score_models(
        run, of_run.models, store, table, settings, epoch=epoch, selection=chosen, rows=rows
    )
    protocol = {key: value for key, value in dataclasses.asdict(run.evaluation).items() if key not in _NO_PROTOCOL}
    place = folder.path / "evaluations" / _digest([protocol, chosen, epoch])
    output = Path(config.output) if config.output else place
    if rows is not None:
        reported = next(iter(features))
        write_features(output / "features.npz", features[reported], rows, table)
        log.info("features of the %s model written to %s", reported, output / "features.npz")
    _record(
        output,
        metrics,
        scores,
        run_id=state["run_id"],
        label=folder.label,
        dataset=build.dataset_name(run.dataset),
        fingerprint=digest,
        test_fingerprint=fingerprint(table[table["split"] == "test"], run.dataset.root),
        trained_identities=of_run.identities,
        held_out_identities=table["pid"][table["split"] == "val"].nunique(),
        seed=run.seed,
        variant=run.variant,
        selection=chosen,
        epochs=run.schedule.epochs,
        device=build.device_name(fabric.device),
    )


_NO_PROTOCOL = ("batch", "every", "holdout")


def _score_features(config: EvaluateConfig) -> None:
    load("bdlf.training.scoring")
    from bdlf import build
    from bdlf.data import fingerprint
    from bdlf.evaluation import score, settings
    from bdlf.evaluation.features_file import read_features
    from bdlf.runs.record import metrics_row

    assert config.features is not None
    if config.dataset.name is None:
        raise InputError("features= needs their dataset: dataset=sysu, regdb, llcm or synthetic")
    if config.dataset.name == "regdb" and config.dataset.split is None:
        raise InputError("features= of RegDB are of one of its ten splits: say which by dataset.split=1..10")
    file, source = Path(config.features), config.dataset.dataset()
    table = build.build_listing(source, splits=("test",))
    chosen = _given(config.evaluation)
    used = settings(source.name, table, root=source.root, **chosen)
    features, rows, others = read_features(file, table)
    if others:
        log.warning(
            "%d of its images are no test images of %s, %s first: left out", len(others), source.name, others[0]
        )
    scores = [score(features, rows, table, setting) for setting in used]
    split = source.split if source.name == "regdb" else None
    card = {"split": split, "feature": None, "flip": None, "model": "features", "epoch": None, "selection": None}
    name = build.dataset_name(source)
    metrics = [metrics_row(setting, one, dataset=name, **card) for setting, one in zip(used, scores, strict=True)]
    tested = fingerprint(table, source.root)
    whole, findings = _look_at_the_rest(source, table)
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    place = file.parent / "evaluations" / f"{file.stem}-{_digest([content, chosen, name, split, tested])}"
    _record(
        Path(config.output) if config.output else place,
        metrics,
        scores,
        run_id=None,
        label=file.stem,
        features_sha256=content,
        dataset=name,
        fingerprint=whole,
        test_fingerprint=tested,
        dataset_findings=findings,
        selection=None,
    )


def _look_at_the_rest(source: Dataset, table: pd.DataFrame) -> tuple[str | None, list[str]]:
    """The fingerprint of all images, None where they cannot all be listed, and what is wrong with them.

    That matters to no score of given features, so it is warned of, where training would stop.
    """
    from bdlf import build
    from bdlf.data import fingerprint
    from bdlf.datasets.checking.published import quick_findings
    from bdlf.datasets.problems import Collected
    from bdlf.datasets.tree import file_stats
    from bdlf.runs.logs import warn_of

    problems = Collected()
    everything = build.build_listing(source, problems=problems)
    digest = None if problems.stopping else fingerprint(everything, source.root)
    if source.root is None:
        return digest, []
    empty = table["path"][file_stats(Path(source.root), table["path"].tolist())[:, 0] == 0]
    findings = [finding.message for finding in problems.findings]
    if len(empty):
        findings.append(f"{len(empty)} of {len(table)} test images are empty files, {empty.iloc[0]} first")
    findings += quick_findings(everything, source.root)
    warn_of(findings, source.name)
    return digest, findings


def _collate(config: EvaluateConfig) -> None:
    from bdlf.runs.collate import collate_splits, run_folders

    folders = run_folders(config.splits)
    facts, metrics = collate_splits(folders)
    place = folders[0].path.resolve().parents[1] / "evaluations" / f"{facts['label']}-{_digest(facts['run_ids'])}"
    _record(Path(config.output) if config.output else place, metrics, None, run_id=None, **facts, selection=None)


def _given(options: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(options).items() if value is not None}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _record(output: Path, metrics: list[dict[str, Any]], scores: Any, **facts: Any) -> None:
    from bdlf.runs.record import write_per_query, write_result
    from bdlf.runs.table import show_result

    if scores is not None:
        write_per_query(output / "per_query.npz", scores)
    show_result(write_result(output / "result.json", metrics=metrics, **facts))
    log.info("written to %s", output / "result.json")


def main() -> None:
    """The command."""
    run_command("evaluate", EvaluateConfig, evaluate, __doc__ or "", folder="on_disk")


if __name__ == "__main__":
    main()
