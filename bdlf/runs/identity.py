"""Decides when two runs are the same experiment: when the hash of all values that decide their weights is the same.

The hash does not cover how a run is scored (protocol, flip, feature, selection among epochs). A finished run that is
asked for another scoring is scored again from its weights.
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

from bdlf.active import flat, in_use, method_name
from bdlf.config import Config, Dataset
from bdlf.datasets import dataset_named
from bdlf.datasets.record import is_synthetic
from bdlf.system.errors import InputError

NEUTRAL: dict[str, Any] = {
    "image.range": "file",
    "method.name": "bdlf",
    "augment.erase_area": [0.02, 0.4],
    "augment.erase_fill": "caj",
    "augment.grey": 0.0,
}
"""Keys that were added to the schema after runs had been recorded, each with the value that changes nothing in a run.

A key is left out of the hash while it has this value, so that runs recorded before the key existed keep their hash. The
value is written here when the key is added and never changed: if the schema's default changes later, the hash of new
runs changes with it. A configuration that was recorded before the key existed is read with this value, whatever the
schema's default is.
"""


def training_identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the hash covers: the keys in use with their values, without the keys that have their value in NEUTRAL.

    `values` is a flat configuration that records its facts about the disk (`with_facts`). Raises InputError if it names
    a file of weights without the file's SHA-256.
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

    With `without_split`, RegDB's split is left out, so that the models of all ten splits have one hash.
    """
    identity = training_identity(values)
    if without_split:
        identity.pop("dataset.split", None)
    text = json.dumps({key: _number(value) for key, value in identity.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _number(value: Any) -> Any:
    """The value with whole numbers as floats, because YAML and W&B do not distinguish 1 from 1.0."""
    if isinstance(value, list | tuple):
        return [_number(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def with_facts(config: Config) -> Config:
    """A copy of `config` that records the facts about the disk which decide the weights of a run.

    - `dataset.drawn`: whether `bdlf.synthesize` wrote the tree at `dataset.root`.
    - `backbone.weights_sha256`: the SHA-256 of the file that `backbone.weights` names; None if it names no file.

    Raises InputError if the file of weights cannot be read, or if a recorded fact contradicts the disk.
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
    """Whether `bdlf.synthesize` wrote the tree of the dataset; False for the synthetic set, which has no tree."""
    has_files = dataset_named(dataset.name).has_files
    return has_files and dataset.root is not None and is_synthetic(dataset.root)


def dataset_name(values: Mapping[str, Any]) -> str:
    """The dataset's name in paths, results and tables: `regdb`, or `regdb-synthetic` for a synthesized tree."""
    return f"{values['dataset.name']}-synthetic" if values["dataset.drawn"] else str(values["dataset.name"])


def dataset_id(dataset: Dataset) -> str:
    """`dataset_name` of a dataset. The disk is asked whether its tree is synthesized only if that is not recorded."""
    drawn = is_drawn(dataset) if dataset.drawn is None else dataset.drawn
    return dataset_name({"dataset.name": dataset.name, "dataset.drawn": drawn})


def _values(config: Config) -> dict[str, Any]:
    """The flat configuration with its facts about the disk. The disk is asked only if a fact is not recorded."""
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
    """Eight hexadecimal digits: the hash of everything that decides the weights, except for the seed."""
    return values_hash(_values(config))


def run_label(config: Config) -> str:
    """The option `label`, or else the name of the row of Table 2 whose components are on.

    For another method than the paper's it is the name of the method.
    If the stage and the number of blocks are in use, the name also says them where they are not the paper's 3 and 6.
    With `recipe=published` it ends in `-published`.
    Raises InputError for a label with other characters than A-Z a-z 0-9 . _ and -.
    """
    label = config.label
    if label is None:
        values = flat(config)
        used = in_use(values)
        label = method_name(values)
        label += f"-stage{used['dfe.stage']}" if used.get("dfe.stage", 3) != 3 else ""
        label += f"-blocks{used['dfe.blocks']}" if used.get("dfe.blocks", 6) != 6 else ""
        label += "-published" if config.recipe == "published" else ""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", label):
        raise InputError(f"label='{label}' has characters other than A-Z a-z 0-9 . _ -; choose another label=")
    return label


def run_id(config: Config) -> str:
    """The id of the run, `<hash8>-seed<k>`; W&B uses it too."""
    return f"{run_hash(config)}-seed{config.seed}"


def run_group(config: Config, label: str | None = None) -> str:
    """The group of the run in W&B, `<label>-<hash8>`: all runs that differ only in their seed and RegDB's split.

    `label` is the label of the run's folder; it differs from `run_label` if the run was started under another label.
    """
    return f"{label or run_label(config)}-{values_hash(_values(config), without_split=True)}"


def run_path(config: Config) -> Path:
    """The folder of the run, `<output>/<dataset>/<label>-<hash8>/seed<k>`.

    An existing folder of the same hash and seed under another label is the same run, so its path is returned.
    """
    parent = Path(config.output) / dataset_id(config.dataset)
    digest = run_hash(config)
    same = sorted(parent.glob(f"*-{digest}/seed{config.seed}"))
    return same[0] if same else parent / f"{run_label(config)}-{digest}" / f"seed{config.seed}"
