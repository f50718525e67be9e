"""Scoring during and after training: which epochs, on which images, and which of them are reported."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bdlf import build
from bdlf.config import Config
from bdlf.data.images import Images
from bdlf.evaluation import Scores, Setting, extract, score
from bdlf.methods.bdlf import BDLF
from bdlf.runs.folder import RunFolder
from bdlf.runs.metrics_log import MetricsLog
from bdlf.runs.record import metric_columns, metric_values, metrics_row
from bdlf.runs.selection import BEST_ON_TEST, LAST, RULES, VALIDATION, criterion, selection_rules
from bdlf.system.errors import InputError
from bdlf.training.checkpoint import load_checkpoint
from bdlf.training.ema import Averaged
from bdlf.training.selected import SelectedWeights

log = logging.getLogger("bdlf")

Scored = tuple[list[dict[str, Any]], list[Scores]]
"""Rows of `metrics` and the scores of each."""


def score_models(
    config: Config,
    models: Mapping[str, BDLF],
    store: Images,
    table: pd.DataFrame,
    settings: Sequence[Setting],
    *,
    epoch: int,
    selection: str,
    rows: np.ndarray | None = None,
) -> tuple[Scored, dict[str, np.ndarray]]:
    """What every model scores under every setting, and its features of `rows`; an image is embedded once per model.

    `rows` of None: those that the settings need. `epoch` (from 0) is the models', `selection` how it was chosen.
    """
    if rows is None:
        rows = np.unique(np.concatenate([side for setting in settings for trial in setting.trials for side in trial]))
    results: list[dict[str, Any]] = []
    scores: list[Scores] = []
    features: dict[str, np.ndarray] = {}
    for name, model in models.items():
        model.eval()
        embed = partial(model.embed, feature=config.evaluation.feature)
        features[name] = extract(embed, store, rows, batch_size=config.evaluation.batch, flip=config.evaluation.flip)
        for setting in settings:
            scores.append(score(features[name], rows, table, setting))
            results.append(
                metrics_row(
                    setting,
                    scores[-1],
                    dataset=build.dataset_name(config.dataset),
                    split=config.dataset.split if config.dataset.name == "regdb" else None,
                    feature=config.evaluation.feature,
                    flip=config.evaluation.flip,
                    model=name,
                    epoch=epoch,
                    selection=selection,
                )
            )
    return (results, scores), features


@dataclass(frozen=True)
class RunModels:
    """A run's models without its weights yet; `load_selected` gives them those of an epoch."""

    models: dict[str, BDLF]
    """On the device, by the name that result rows have for them; the first is reported."""
    states: dict[str, Any]
    """The parts of a checkpoint that the models read their weights from, by the checkpoint's name for them."""
    identities: int
    """That they were trained to tell apart."""


def build_run_models(config: Config, table: pd.DataFrame, device: torch.device) -> RunModels:
    """The models that a run of `config` trains on the partition `table`, to be scored with weights from its folder."""
    identities = len(build.build_sampler(config, table).pids)
    network = build.build_model(config, identities, build.build_objective(config), weights="none")
    averaged = Averaged(network, config.ema.decay) if config.ema.enabled else None
    models = build.models_to_score(network, averaged)
    for model in models.values():
        model.to(device)
    return RunModels(models, {"model": network, **({} if averaged is None else {"averaged": averaged})}, identities)


def model_names(config: Config) -> tuple[str, ...]:
    """The names of `RunModels.models`, without building them."""
    return ("ema", "raw") if config.ema.enabled else ("raw",)


class Scorer:
    """Scores a run's models when that is due, keeps the weights that a selection rule prefers, gives the result's rows.

    `states` are the parts of a checkpoint that `models` read their weights from, by name; `identity` says whose they
    are (its `run_id` and `fingerprint` are compared). `table` is as `build.build_partition` gives it, `settings` are
    those of its splits "test" and, where a rule needs it, "val".
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        states: Mapping[str, Any],
        models: Mapping[str, BDLF],
        store: Images,
        table: pd.DataFrame,
        settings: Mapping[str, Sequence[Setting]],
        identity: Mapping[str, Any],
    ) -> None:
        self._config, self._folder, self._states, self._models = config, folder, dict(states), dict(models)
        self._store, self._table, self._identity = store, table, dict(identity)
        self._rules = selection_rules(config.selection)
        self.selected = SelectedWeights(folder, self._rules[1:], generations=config.checkpoint.keep)
        """Of the rules beside the last epoch; it must hear of every checkpoint that is saved."""
        self._settings = {split: chosen for split, chosen in settings.items() if chosen}
        self._last: Scored | None = None

    @property
    def columns(self) -> list[str]:
        """Those of metrics.csv that hold scores."""
        return [name for split in self._settings for name in self._columns(split, list(self._models))]

    def after_epoch(self, epoch: int, metrics: MetricsLog) -> None:
        """Score what is due after `epoch`, add it to the last row of `metrics`, keep the weights of a new best."""
        is_last = epoch + 1 == self._config.schedule.epochs
        every = self._config.evaluation.every or (1 if len(self._rules) > 1 else None)
        is_due = is_last or (every is not None and (epoch + 1) % every == 0)
        if not is_due:
            return
        values: dict[str, float] = {}
        if is_last or self._config.evaluation.every or BEST_ON_TEST in self._rules:
            self._last = self._score("test", epoch, LAST)
            values |= metric_values(self._last[0])
        if VALIDATION in self._rules:
            values |= metric_values(self._score("val", epoch, VALIDATION)[0], prefix="val-")
        for rule in self._rules[1:]:
            columns = self._criterion_columns(rule)
            value = criterion(values, columns)
            if value > max((criterion(row, columns) for row in metrics.rows[:-1]), default=-np.inf):
                weights = {name: part.state_dict() for name, part in self._states.items()}
                facts = {**self._identity, "epoch": epoch + 1, "criterion": value}
                self.selected.keep(rule, epoch, {**weights, **facts})
        metrics.amend(values)

    def result(self, metrics: MetricsLog) -> tuple[Scored, dict[str, dict[str, Any]]]:
        """The rows of every rule, and for each how its epoch was chosen. The models' weights change: call it last.

        Raises InputError where the weights of the epoch that `metrics` shows as the best are not there.
        """
        assert self._last is not None  # the last epoch is always scored
        rows, scores = list(self._last[0]), list(self._last[1])
        chosen: dict[str, dict[str, Any]] = {LAST: {"rule": RULES[LAST], "epoch": self._config.schedule.epochs - 1}}
        for rule in self._rules[1:]:
            columns = self._criterion_columns(rule)
            values = [criterion(row, columns) for row in metrics.rows]
            epoch = int(np.argmax(values))  # the first of equals
            file = self._folder.weights_of(rule, epoch)
            if not file.is_file():
                raise InputError(f"{file} is gone, the weights that {rule} chose: start again with rerun=true")
            load_selected(self._folder, file, epoch, self._states, self._identity, device=self._store.device)
            more = self._score("test", epoch, rule)
            rows += more[0]
            scores += more[1]
            chosen[rule] = {"rule": RULES[rule], "epoch": epoch, "mean_rank1": values[epoch]}
            log.info("%s: epoch %d of %d", rule, epoch + 1, self._config.schedule.epochs)
        return (rows, scores), chosen

    def _score(self, split: str, epoch: int, rule: str) -> Scored:
        return score_models(
            self._config, self._models, self._store, self._table, self._settings[split], epoch=epoch, selection=rule
        )[0]

    def _columns(self, split: str, models: list[str]) -> list[str]:
        return metric_columns(self._settings[split], models, prefix="val-" if split == "val" else "")

    def _criterion_columns(self, rule: str) -> list[str]:
        """Rank-1 of the model that is reported, under every protocol."""
        reported = next(iter(self._models))
        columns = self._columns("val" if rule == VALIDATION else "test", [reported])
        return [column for column in columns if column.startswith("rank1/")]


def load_selected(
    folder: RunFolder,
    file: Path,
    epoch: int,
    states: Mapping[str, Any],
    identity: Mapping[str, Any],
    *,
    device: torch.device,
) -> None:
    """Give `states` the weights that `file` of a run's folder holds, which must be those after `epoch` (from 0).

    Raises InputError where the file cannot be read, or is of another run (`run_id` of `identity`), of other images
    (`fingerprint`) or of another epoch.
    """
    state = load_weights(file, states, device=device)
    folder.require_same_run(file, state["run_id"], identity["run_id"])
    folder.require_fingerprint(state["fingerprint"], identity["fingerprint"])
    if state["epoch"] != epoch + 1 or state.get("step"):
        raise InputError(
            f"{file} does not hold the weights after epoch {epoch}; restore it, or rerun=true trains again"
        )


def load_weights(path: Path, parts: Mapping[str, Any], *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Give `parts` the states that the checkpoint `path` holds, and return all that it holds.

    Raises InputError where it cannot be read or is of another configuration.
    """
    state = load_checkpoint(path, device=device)
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not of the configuration in the config.yaml of its run; restore both") from error
    return state
