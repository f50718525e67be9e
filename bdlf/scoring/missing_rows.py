"""Other scorings of a run than those it was started with.

How a run is scored decides none of its weights, so a finished run that is asked for another scoring is scored again
from the weights that it kept: rows are added to its result, and nothing is trained.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bdlf.config import Config
from bdlf.data.images import Images
from bdlf.evaluation import Choice, Scores, choices
from bdlf.experiment import check_options, dataset_split, open_run
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
_PROTOCOL = ("mode", "shots", "direction", "gallery", "reading")
"""Keys of `evaluation` that decide scores; a change of any other leaves every score as it is."""


@dataclass(frozen=True)
class _Asked:
    """A row of `metrics` that is asked for."""

    rule: str
    epoch: int
    protocol: str
    """The name of its `Choice`."""


def _asked_rows(config: Config, folder: RunFolder, result: dict[str, Any]) -> dict[RowKey, _Asked]:
    """The rows that `config` asks of a finished run, in the order of a result.

    Raises InputError for a scoring that the dataset does not have, and for a selection rule that the run did not
    follow: the weights of the epoch that the rule would choose are gone.
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
    return choices(config.dataset.name, **{name: getattr(config.evaluation, name) for name in _PROTOCOL})


def missing_rows(config: Config, folder: RunFolder, result: dict[str, Any]) -> dict[RowKey, _Asked]:
    """Those of the rows asked for that the result of a finished run does not hold yet; nothing is built.

    Raises InputError for a wrong option, and where a row is missing and so are the weights that it needs.
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
    """Score what is missing, write `per_query.npz` and then `result.json`, and return the new result.

    `images` is the listing of the dataset. The caller holds the run's lock. A process that is killed between the two
    files leaves arrays without rows in the first one. The next call replaces them.
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
    """What a run that is trained with `config` would give beside the rows."""
    rules, every = selection_rules(config.selection), config.evaluation.every
    if rules == (LAST,) and every is None:
        return
    recorded = read_config(folder.config)
    for rule in rules[1:]:
        keys = (*_FEATURES, *(_PROTOCOL if rule == BEST_ON_TEST else ()))
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
    if _options(recorded, _FEATURES) != _options(config, _FEATURES):  # the names of the columns do not say these
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
    """Refuse to go on with an unfinished run in whose epochs other scores would be compared than before.

    That is so where an epoch is chosen or curves are drawn, in the run so far (its config.yaml says how) or from here
    on. A run that is scored at its end alone may be scored in any way. Raises InputError.
    """
    if not folder.config.is_file():
        raise InputError(
            f"{folder.config} is gone, which says how the epochs so far were scored; restore it, or start again with "
            "rerun=true"
        )
    recorded = read_config(folder.config)
    if all(selection_rules(one.selection) == (LAST,) and one.evaluation.every is None for one in (recorded, config)):
        return
    keys = (*_FEATURES, *_PROTOCOL, "every")
    before, now = _differing(*(_options(one, keys, selection=_rules(one)) for one in (recorded, config)))
    if before:
        raise InputError(
            f"{folder.path} is unfinished and its epochs were scored with {before}, not {now}: go on with the recorded "
            "options, ask for others once the run is finished, or start again with rerun=true"
        )


def _rules(config: Config) -> str:
    return f"[{','.join(selection_rules(config.selection))}]"


def _options(config: Config, keys: Iterable[str], **others: Any) -> dict[str, Any]:
    """Keys of `evaluation` with their values, under the names that are typed, and `others`."""
    return {**{f"evaluation.{key}": getattr(config.evaluation, key) for key in keys}, **others}


def _differing(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, str]:
    """The options that differ, as they are typed: with the values recorded, and with those asked for."""
    names = [name for name in recorded if recorded[name] != asked[name]]
    before, now = (" ".join(f"{name}={_typed(values[name])}" for name in names) for values in (recorded, asked))
    return before, now


def _typed(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
