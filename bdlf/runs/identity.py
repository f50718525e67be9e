"""What makes two runs the same experiment: the hash of every value that decides a run's weights.

How a run is scored (protocol, flip, feature, selection among epochs) is no part of it: a finished run that is asked
for another scoring is scored again from its weights.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from bdlf.active import components, flat, in_use, variant_name
from bdlf.config import Config, Dataset
from bdlf.system.errors import InputError

NEUTRAL: dict[str, Any] = {"image.range": "file"}
"""Keys that were added after the first hashes, each with the value that leaves a run as it was before the key existed.

A key is left out of the hash while it has this value, so that runs which were made before the key keep their hash. The
value is frozen here when the key is added: when the schema's default changes later, the hash changes with it. For the
same reason a configuration that was recorded before the key existed is read with this value, not with the default.
"""


def training_identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the hash covers: the keys that are in use with their full values, less those at a neutral value.

    `values` is a flat configuration whose facts about the disk are recorded (`with_facts`).
    """
    if values["backbone.weights"] not in ("imagenet", "none") and values["backbone.weights_sha256"] is None:
        raise InputError(
            f"backbone.weights={values['backbone.weights']}: the configuration does not record the file's SHA-256 "
            "(backbone.weights_sha256), so the run has no identity; restore the run's config.yaml"
        )
    used = in_use(values)
    return {key: value for key, value in used.items() if key not in NEUTRAL or _number(value) != _number(NEUTRAL[key])}


def values_hash(values: Mapping[str, Any], *, without_split: bool = False) -> str:
    """Eight hexadecimal digits of the SHA-256 of the training identity of a flat configuration.

    `without_split`: RegDB's split is left out, so that one hash stands for all ten models of an experiment.
    """
    identity = training_identity(values)
    if without_split:
        identity.pop("dataset.split", None)
    text = json.dumps({key: _number(value) for key, value in identity.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _number(value: Any) -> Any:
    """A whole number as a float: YAML and W&B do not tell 1 from 1.0."""
    if isinstance(value, list | tuple):
        return [_number(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def with_facts(config: Config) -> Config:
    """A copy of `config` that records what only the disk knows and the identity covers.

    - `dataset.drawn`: whether `bdlf.synthesize` has written the tree at `dataset.root`.
    - `backbone.weights_sha256`: the content of the file that `backbone.weights` names.

    Raises InputError where the file of weights cannot be read, or where a recorded fact is not what the disk says.
    """
    drawn, digest = is_drawn(config.dataset), None
    if config.dataset.drawn not in (None, drawn):
        raise InputError(
            f"dataset.drawn={str(config.dataset.drawn).lower()}, but the tree at dataset.root={config.dataset.root} "
            f"{'was' if drawn else 'was not'} written by bdlf.synthesize; give the other root, or leave the key out"
        )
    if config.backbone.weights not in ("imagenet", "none"):
        digest = _content(Path(config.backbone.weights))
    if config.backbone.weights_sha256 not in (None, digest):
        raise InputError(
            f"backbone.weights={config.backbone.weights} is not the file that backbone.weights_sha256 records; "
            "give that file, or leave the key out"
        )
    return replace(
        config,
        dataset=replace(config.dataset, drawn=drawn),
        backbone=replace(config.backbone, weights_sha256=digest),
    )


def is_drawn(dataset: Dataset) -> bool:
    """Whether `bdlf.synthesize` has written the dataset's tree; False for the synthetic set, which has no tree."""
    from bdlf.data import is_synthetic

    return dataset.name != "synthetic" and dataset.root is not None and is_synthetic(dataset.root)


def dataset_name(values: Mapping[str, Any]) -> str:
    """The dataset's name in paths, results and tables: `regdb`, or `regdb-synthetic` for a synthesized tree."""
    return f"{values['dataset.name']}-synthetic" if values["dataset.drawn"] else str(values["dataset.name"])


def dataset_id(dataset: Dataset) -> str:
    """`dataset_name` of a dataset as it was recorded, or else as it lies on disk."""
    drawn = is_drawn(dataset) if dataset.drawn is None else dataset.drawn
    return dataset_name({"dataset.name": dataset.name, "dataset.drawn": drawn})


def _values(config: Config) -> dict[str, Any]:
    """The flat configuration with its facts; the disk is asked only for what is not recorded."""
    from_file = config.backbone.weights not in ("imagenet", "none")
    known = config.dataset.drawn is not None and not (from_file and config.backbone.weights_sha256 is None)
    return flat(config if known else with_facts(config))


def _content(path: Path) -> str:
    try:
        status = path.stat()
        if not path.is_file():
            raise InputError(f"backbone.weights={path} is not a file; give a file of weights")
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InputError(
            f"backbone.weights={path} cannot be read ({error.strerror}); give a file of weights"
        ) from error


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_hash(config: Config) -> str:
    """Eight hexadecimal digits that stand for everything that decides the weights, less the seed."""
    return values_hash(_values(config))


def run_label(config: Config) -> str:
    """`label`, or the name of what is on (a row of Table 2) with the stage and the number of blocks.

    The stage and the number of blocks are named where they are in use and are not the paper's 3 and 6.
    """
    label = config.label
    if label is None:
        values = flat(config)
        used = in_use(values)
        label = variant_name(components(values))
        label += f"-stage{used['dfe.stage']}" if used.get("dfe.stage", 3) != 3 else ""
        label += f"-blocks{used['dfe.blocks']}" if used.get("dfe.blocks", 6) != 6 else ""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", label):
        raise InputError(f"label='{label}' has characters other than A-Z a-z 0-9 . _ -; choose another label=")
    return label


def run_id(config: Config) -> str:
    """`<hash8>-seed<k>`; also the W&B id."""
    return f"{run_hash(config)}-seed{config.seed}"


def run_group(config: Config, label: str | None = None) -> str:
    """`<label>-<hash8>`, the W&B group: the runs of one experiment that differ in seed and RegDB's split alone.

    `label` is that of the run's folder, where the run was started under another label than `run_label` gives.
    """
    return f"{label or run_label(config)}-{values_hash(_values(config), without_split=True)}"


def run_path(config: Config) -> Path:
    """`<output>/<dataset>/<label>-<hash8>/seed<k>`; a folder of the same hash under another label is the same run."""
    parent = Path(config.output) / dataset_id(config.dataset)
    digest = run_hash(config)
    same = sorted(parent.glob(f"*-{digest}/seed{config.seed}"))
    return same[0] if same else parent / f"{run_label(config)}-{digest}" / f"seed{config.seed}"
