"""Scores a finished run in another way than it was scored before.

The way in which a run is scored changes none of its weights. So if a user asks for another scoring of a finished run,
the weights that the run has kept are scored, and rows are added to its result. Nothing is trained.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bdlf.assembly import check_options, dataset_split
from bdlf.config import Config
from bdlf.data.images import Images
from bdlf.datasets.choices import OPTIONS, Asked, Choice, choices
from bdlf.evaluation import Scores
from bdlf.experiment import open_run
from bdlf.runs.folder import RunFolder, read_config
from bdlf.runs.identity import dataset_id
from bdlf.runs.record import SIMILARITY, RowKey, add_rows, metric_columns, row_key, write_per_query
from bdlf.runs.selection import BEST_ON_TEST, LAST, selection_rules
from bdlf.runs.table import show_result
from bdlf.system.device import accelerator, configure_process, device_name
from bdlf.system.errors import InputError
from bdlf.training.scoring import model_names, require_weights_of, score_models

log = logging.getLogger("bdlf")

_FEATURES = ("flip", "feature")
"""The keys of `evaluation` that decide scores beside the options of the protocol. No other key changes a score."""


@dataclass(frozen=True)
class _Asked:
    """A row of `metrics` that a configuration asks for."""

    rule: str
    epoch: int
    protocol: str
    """The name of its `Choice`."""


def _asked_rows(config: Config, folder: RunFolder, result: dict[str, Any]) -> dict[RowKey, _Asked]:
    """The rows that `config` asks for of a finished run, in the order of a result.

    Raises InputError for a protocol that the dataset does not have, and for a selection rule that the run did not
    follow, because the weights of the epoch that the rule would choose are gone.
    """
    asked = {}
    for rule in selection_rules(config.selection):
        if rule not in result["chosen"]:
            raise InputError(
                f"selection={rule}: {folder.path} was not trained with it, and the weights of its earlier epochs are "
                "gone; rerun=true trains again and keeps them"
            )
        epoch = result["chosen"][rule]["epoch"]
        for model in model_names(averaged=config.ema.enabled):
            for choice in _choices(config):
                row = {
                    **vars(choice),
                    "dataset": dataset_id(config.dataset),
                    "split": dataset_split(config.dataset),
                    "similarity": SIMILARITY,
                    **{name: getattr(config.evaluation, name) for name in _FEATURES},
                    "model": model,
                    "epoch": epoch,
                    "selection": rule,
                }
                asked[row_key(row)] = _Asked(rule, epoch, choice.name)
    return asked


def _choices(config: Config) -> list[Choice]:
    return choices(config.dataset.name, Asked.of(config.evaluation))


def missing_rows(config: Config, folder: RunFolder, result: dict[str, Any]) -> dict[RowKey, _Asked]:
    """The rows that `config` asks for and that the `result` of a finished run lacks. Nothing is built.

    Raises InputError for a wrong option, and if the weights that a missing row needs are gone.
    """
    every = config.evaluation.every
    if every is not None and every < 1:
        raise InputError(f"evaluation.every={every}: 1 or more is needed")
    present = {row_key(row) for row in result["metrics"]}
    missing = {key: row for key, row in _asked_rows(config, folder, result).items() if key not in present}
    if missing:
        check_options(config)
    for row in missing.values():
        file = _weights(folder, row)
        if not file.is_file():
            raise InputError(
                f"{file} is gone, so {folder.path} cannot be scored in another way than before; restore the file, or "
                "train again with rerun=true"
            )
    return missing


def _weights(folder: RunFolder, row: _Asked) -> Path:
    return folder.checkpoint if row.rule == LAST else folder.weights_of(row.rule, row.epoch)


def add_missing_rows(config: Config, folder: RunFolder, images: pd.DataFrame, result: dict[str, Any]) -> dict[str, Any]:
    """Score the missing rows, write `per_query.npz` and then `result.json`, and return the new result.

    `images` is the listing of the dataset. The caller holds the run's lock. If the process is killed between the two
    files, `per_query.npz` has arrays to which no row belongs; the next call replaces them.
    """
    missing = missing_rows(config, folder, result)
    configure_process(devices=config.devices, threads=config.threads, deterministic=config.deterministic)
    device = torch.device(accelerator(config.devices))
    log.info("scoring %d more rows of %s from its weights", len(missing), folder.path)
    store: Images | None = None
    found: dict[RowKey, tuple[dict[str, Any], Scores]] = {}
    for rule in selection_rules(config.selection):
        wanted = [row for row in missing.values() if row.rule == rule]
        if not wanted:
            continue
        file, epoch = _weights(folder, wanted[0]), wanted[0].epoch
        run = open_run(folder.path, weights=file, config=config, device=device)
        require_weights_of(folder, file, run.checkpoint, result, epoch)
        run.listing = images
        store = store or run.store(device)
        protocols = {row.protocol for row in wanted}
        needed = [setting for setting in run.settings["test"] if setting.name in protocols]
        (rows, scores), _ = score_models(
            run.trained.models, store, run.table, needed, run.scoring, epoch=epoch, selection=rule
        )
        found |= {row_key(row): (row, score) for row, score in zip(rows, scores, strict=True)}
    write_per_query(folder.per_query, [found[key][1] for key in missing], add_to=len(result["metrics"]))
    rows = [found[key][0] for key in missing]
    return add_rows(folder.result, result, rows, device=device_name(device))


def show_asked(config: Config, folder: RunFolder, result: dict[str, Any]) -> None:
    """Print the rows that `config` asks for, and warn of what was asked for but needs weights that are gone."""
    asked = _asked_rows(config, folder, result)
    show_result(result, rows=[number for number, row in enumerate(result["metrics"]) if row_key(row) in asked])
    for line in _out_of_reach(config, folder):
        log.warning("%s", line)


def _out_of_reach(config: Config, folder: RunFolder) -> Iterator[str]:
    """Yields a line for everything that a run which is trained with `config` would give, and that this run cannot."""
    rules, every = selection_rules(config.selection), config.evaluation.every
    if rules == (LAST,) and every is None:
        return
    recorded = read_config(folder.config)
    for rule in rules[1:]:
        keys = (*_FEATURES, *(OPTIONS if rule == BEST_ON_TEST else ()))
        options = [_options(one, keys) | {"evaluation.every": one.evaluation.every or 1} for one in (recorded, config)]
        before, now = _differing(*options)
        if before:
            yield (
                f"{rule} chose its epoch with {before}: with {now} only the weights of that epoch are scored; the "
                "choice between epochs needs the weights of every epoch, which are gone, and rerun=true makes it anew"
            )
    if every is not None and not _has_curves(config, recorded, folder):
        yield (
            f"evaluation.every={every}: {folder.metrics} does not hold these curves; they need the weights of every "
            "epoch, which are gone, and rerun=true gives them"
        )


def _has_curves(config: Config, recorded: Config, folder: RunFolder) -> bool:
    """Whether metrics.csv has every score that training with `config` would have written there."""
    if _options(recorded, _FEATURES) != _options(config, _FEATURES):  # these are not part of the columns' names
        return False
    every, epochs = config.evaluation.every, config.schedule.epochs
    assert every is not None
    try:
        scores = pd.read_csv(folder.metrics).reindex(
            columns=metric_columns(_choices(config), model_names(averaged=config.ema.enabled))
        )
    except (OSError, ValueError):
        return False
    due = [epoch for epoch in range(epochs) if (epoch + 1) % every == 0 or epoch + 1 == epochs]
    return len(scores) == epochs and bool(scores.iloc[due].notna().all(axis=None))


def require_same_scoring(config: Config, folder: RunFolder) -> None:
    """Refuse to go on with an unfinished run if its later epochs would be scored in another way than its earlier ones.

    This matters if scores of several epochs are compared: if a selection rule chooses between epochs or
    `evaluation.every` asks for curves, in `config` or in the run's config.yaml. A run that is scored only at its end
    may go on with any scoring. Raises InputError.
    """
    if not folder.config.is_file():
        raise InputError(
            f"{folder.config} is gone, which says how the epochs so far were scored; restore it, or start again with "
            "rerun=true"
        )
    recorded = read_config(folder.config)
    if all(selection_rules(one.selection) == (LAST,) and one.evaluation.every is None for one in (recorded, config)):
        return
    keys = (*_FEATURES, *OPTIONS, "every")
    before, now = _differing(*(_options(one, keys, selection=_rules(one)) for one in (recorded, config)))
    if before:
        raise InputError(
            f"{folder.path} is unfinished and its epochs were scored with {before}, not {now}: go on with the recorded "
            "options, ask for others once the run is finished, or start again with rerun=true"
        )


def _rules(config: Config) -> str:
    return f"[{','.join(selection_rules(config.selection))}]"


def _options(config: Config, keys: Iterable[str], **others: Any) -> dict[str, Any]:
    """The values of some keys of `evaluation`, by the full names of the keys, and `others`."""
    return {**{f"evaluation.{key}": getattr(config.evaluation, key) for key in keys}, **others}


def _differing(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, str]:
    """The options that differ, as a user types them: first with the recorded values, then with those asked for."""
    names = [name for name in recorded if recorded[name] != asked[name]]
    before, now = (" ".join(f"{name}={_typed(values[name])}" for name in names) for values in (recorded, asked))
    return before, now


def _typed(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
