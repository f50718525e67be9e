"""The result of RegDB's protocol: one model for each of the ten splits, and their mean."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bdlf.active import flat
from bdlf.config import Config
from bdlf.datasets import DATASETS, dataset_named
from bdlf.runs.folder import RunFolder, read_config
from bdlf.runs.identity import values_hash
from bdlf.runs.record import FIGURES, protocol, read_result
from bdlf.system.errors import InputError

log = logging.getLogger(__name__)

_AVERAGED = ("split", "epoch", "queries", "valid_queries", "mean", "std", "trials")
"""Keys of a row of `metrics` that may differ from split to split."""


def run_folders(patterns: Any) -> list[RunFolder]:
    """The run folders that a path or a list of paths names.

    A path may be a pattern: `*` and `?` stand for any characters, `[ab]` stands for `a` or `b`. A path that exists is
    never read as a pattern. Brackets are first taken literally, and as a pattern only if nothing matches.

    A single run folder stands for the runs of all ten splits. The runs of the other splits, which have the same
    configuration and seed, are found under the same parent folder by their hashes.

    Raises InputError if a path matches nothing.
    """
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        text = str(pattern)
        matches = [text] if os.path.exists(text) else glob.glob(text.replace("[", "[[]")) or glob.glob(text)
        matches.sort()
        if not matches:
            raise InputError(
                f"splits={pattern}: no such folder; name a run folder, like outputs/regdb/full-1a2b3c4d/seed0"
            )
        found += [match for match in matches if (Path(match) / "config.yaml").is_file() or match == text]
    folders = [RunFolder(Path(path)) for path in dict.fromkeys(found)]
    return _with_siblings(folders[0]) if len(folders) == 1 else folders


def _with_siblings(folder: RunFolder) -> list[RunFolder]:
    values = flat(read_config(folder.config))
    numbers = dataset_named(values["dataset.name"]).numbered_splits
    if not numbers:
        return [folder]
    siblings: list[RunFolder] = []
    for split in numbers:
        digest = values_hash(values | {"dataset.split": split})
        own = folder.path if split == values["dataset.split"] else None
        others = sorted(folder.path.resolve().parents[1].glob(f"*-{digest}/seed{values['seed']}"))
        siblings += [RunFolder(path) for path in ([own] if own else others[:1])]
    return siblings


def collate_splits(folders: Sequence[RunFolder]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The facts that the results of the splits share, and the rows of their mean.

    A row holds the mean and the standard deviation (ddof 1) over splits; its `trials` are the figures of the splits.
    Its `split` is None, because it belongs to all of them, and its `epoch` is None if the splits' epochs differ. Fewer
    than ten splits give a warning.

    Raises InputError for a run that is not finished or not of RegDB, for two runs of one split, and for runs that
    differ in more than their split.
    """
    results: dict[int, dict[str, Any]] = {}
    configs: dict[int, Config] = {}
    for folder in folders:
        config = read_config(folder.config)
        split = config.dataset.split
        if not dataset_named(config.dataset.name).numbered_splits:
            titles = " and ".join(dataset.title for dataset in DATASETS.values() if dataset.numbered_splits)
            raise InputError(f"{folder.path} is a run on {config.dataset.name}; only {titles} has splits to collate")
        if split in results:
            raise InputError(f"{folder.path} is a second run of split {split}; name one run for each split")
        if not folder.result.is_file():
            raise InputError(f"{folder.path} is not finished: the same training command goes on with it")
        results[split], configs[split] = read_result(folder.result), config
    first = min(results)
    for split, config in configs.items():
        if _without_split(config) != _without_split(configs[first]):
            raise InputError(
                f"the runs of splits {first} and {split} differ in more than their split; collate runs of one "
                "configuration and seed"
            )
    dataset = dataset_named(configs[first].dataset.name)
    missing = ", ".join(str(number) for number in dataset.numbered_splits if number not in results)
    if missing:
        count, every = len(results), len(dataset.numbered_splits)
        log.warning("the mean is of %d of %s's %d splits; %s missing", count, dataset.title, every, missing)
    splits = sorted(results)
    keys = ("label", "dataset", "seed", "variant", "epochs", "trained_identities", "held_out_identities")
    shared = {key: results[first][key] for key in keys if key in results[first]}
    facts = {**shared, "splits": splits, "run_ids": [results[split]["run_id"] for split in splits]}
    facts["fingerprints"] = [results[split]["fingerprint"] for split in splits]
    facts["run_commits"] = list(dict.fromkeys(results[split]["commit"] for split in splits))
    return facts, _mean_rows([results[split]["metrics"] for split in splits])


def _without_split(config: Config) -> str:
    return f"{values_hash(flat(config), without_split=True)}-seed{config.seed}"


def _mean_rows(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for row in tables[0]:
        key = {name: value for name, value in row.items() if name not in _AVERAGED}
        same = [other for table in tables for other in table if all(other[name] == key[name] for name in key)]
        if len(same) != len(tables):  # only some of the runs were scored in this way
            log.warning("%s, flip=%s: not every split has this row, so it has no mean", protocol(row), row["flip"])
            continue
        figures = pd.DataFrame([other["mean"] for other in same], columns=list(FIGURES))
        epochs = {other["epoch"] for other in same}
        rows.append(
            {
                **row,
                "split": None,
                "epoch": epochs.pop() if len(epochs) == 1 else None,
                "queries": sum(other["queries"] for other in same),
                "valid_queries": sum(other["valid_queries"] for other in same),
                "mean": figures.mean().to_dict(),
                "std": figures.std(ddof=1).to_dict() if len(same) > 1 else None,
                "trials": figures.to_dict("records"),
            }
        )
    if not rows:
        raise InputError("the splits have no row in common: score their runs alike")
    return rows
