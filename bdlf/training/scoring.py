"""Scores the models of a run during and after training, and keeps the weights of the epochs that are reported."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from bdlf.data.images import Images
from bdlf.evaluation import Scores, Setting, extract, score
from bdlf.networks.network import Network
from bdlf.runs.folder import RunFolder
from bdlf.runs.metrics_log import MetricsLog
from bdlf.runs.record import metric_columns, metric_values, metrics_row
from bdlf.runs.selection import BEST_ON_TEST, LAST, RULES, VALIDATION, criterion
from bdlf.system.errors import InputError
from bdlf.training.checkpoint import load_checkpoint
from bdlf.training.ema import Averaged
from bdlf.training.selected import SelectedWeights

log = logging.getLogger("bdlf")

Scored = tuple[list[dict[str, Any]], list[Scores]]
"""Rows of `metrics`, and the scores that belong to each row."""


@dataclass(frozen=True)
class Trained:
    """The models of a run."""

    network: Network
    """The network that is trained."""
    averaged: Averaged | None
    """The average of its weights; None: no average is kept."""

    @property
    def models(self) -> dict[str, Network]:
        """The models by their names in result rows. The first is reported; it is the average if there is one."""
        raw = {"raw": self.network}
        return raw if self.averaged is None else {"ema": cast(Network, self.averaged.module), **raw}

    @property
    def states(self) -> dict[str, Any]:
        """The objects whose states are the weights in a checkpoint, by their names there."""
        return {"model": self.network, **({} if self.averaged is None else {"averaged": self.averaged})}

    def to(self, device: torch.device) -> Trained:
        """Move the models to a device, and return this object."""
        for model in self.models.values():
            model.to(device)
        return self

    def give_weights(self, state: Mapping[str, Any], path: Path) -> None:
        """Give the models the weights in `state`, which is the content of the checkpoint `path`.

        Raises InputError if the weights belong to another configuration.
        """
        try:
            for name, part in self.states.items():
                part.load_state_dict(state[name])
        except (RuntimeError, KeyError, ValueError) as error:
            raise InputError(
                f"{path} is not of the configuration in the config.yaml of its run; restore both"
            ) from error


@dataclass(frozen=True)
class Scoring:
    """How models are scored under every setting, and what result rows say of the dataset."""

    dataset: str
    """The dataset's name in result rows."""
    split: int | None
    """The number of RegDB's split; None for other datasets."""
    feature: str
    """`after_bn` or `before_bn`: the output or the input of the BN-neck."""
    flip: bool
    """Whether a feature is the mean over an image and its mirror image."""
    batch_size: int
    """The number of images that are embedded at a time."""


def score_models(
    models: Mapping[str, Network],
    images: Images,
    table: pd.DataFrame,
    settings: Sequence[Setting],
    how: Scoring,
    *,
    epoch: int,
    selection: str,
    rows: np.ndarray | None = None,
) -> tuple[Scored, dict[str, np.ndarray]]:
    """The scores of every model under every setting, and the features of the images `rows` from every model.

    Each model embeds an image once. `rows` of None stands for the rows of `table` that the settings need. The models
    have the weights after `epoch` (from 0); `selection` names the rule that chose the epoch.
    """
    if rows is None:
        rows = np.unique(np.concatenate([side for setting in settings for trial in setting.trials for side in trial]))
    modalities = table["modality"].to_numpy()[rows]
    results: list[dict[str, Any]] = []
    scores: list[Scores] = []
    features: dict[str, np.ndarray] = {}
    for name, model in models.items():
        model.eval()
        embed = partial(model.embed, feature=how.feature)
        features[name] = extract(embed, images, rows, modalities, batch_size=how.batch_size, flip=how.flip)
        card = {"dataset": how.dataset, "split": how.split, "feature": how.feature, "flip": how.flip}
        card |= {"model": name, "epoch": epoch, "selection": selection}
        for setting in settings:
            scores.append(score(features[name], rows, table, setting))
            results.append(metrics_row(setting, scores[-1], **card))
    return (results, scores), features


@dataclass(frozen=True)
class Plan:
    """Which epochs are scored, and which of them are reported."""

    epochs: int
    """The number of epochs of the run."""
    rules: tuple[str, ...]
    """The selection rules, as `selection_rules` gives them."""
    every: int | None
    """The number of epochs between scorings. None: each epoch if a rule chooses one, else the last alone."""
    keep: int
    """The number of checkpoints that are kept. For each, the weights that a rule had chosen before it are kept too."""


class Scorer:
    """Scores the models of a run after the epochs in which that is due, and gives the rows of the result.

    It also keeps the weights that a selection rule prefers.

    - `table` is the listing, with the splits as the run uses the images.
    - `settings` has the settings of the split `test` and, if a selection rule needs them, of `val`.
    - `identity` has the `run_id` and the `fingerprint` of the run. They are written beside the weights that are kept,
      and compared when the weights are read again.
    """

    def __init__(
        self,
        trained: Trained,
        folder: RunFolder,
        images: Images,
        table: pd.DataFrame,
        settings: Mapping[str, Sequence[Setting]],
        how: Scoring,
        plan: Plan,
        identity: Mapping[str, Any],
    ) -> None:
        self._trained, self._folder, self._images, self._table = trained, folder, images, table
        self._how, self._plan, self._identity = how, plan, dict(identity)
        self._chosen_rules = plan.rules[1:]  # the first rule is always the last epoch, which chooses nothing
        self.selected = SelectedWeights(folder, self._chosen_rules, generations=plan.keep)
        """The weights of the epochs that rules prefer. The caller tells it of every checkpoint that is saved."""
        self._settings = {split: chosen for split, chosen in settings.items() if chosen}
        self._last: Scored | None = None

    @property
    def columns(self) -> list[str]:
        """The columns of metrics.csv that hold scores."""
        return [name for split in self._settings for name in self._columns(split, list(self._trained.models))]

    def after_epoch(self, epoch: int, metrics: MetricsLog) -> None:
        """Score what is due after `epoch`, and add the scores to the last row of `metrics`.

        If a rule prefers this epoch to all before, its weights are kept.
        """
        is_last = epoch + 1 == self._plan.epochs
        every = self._plan.every or (1 if self._chosen_rules else None)
        is_due = is_last or (every is not None and (epoch + 1) % every == 0)
        if not is_due:
            return
        values: dict[str, float] = {}
        if is_last or self._plan.every or BEST_ON_TEST in self._plan.rules:
            self._last = self._score("test", epoch, LAST)
            values |= metric_values(self._last[0])
        if VALIDATION in self._plan.rules:
            values |= metric_values(self._score("val", epoch, VALIDATION)[0], prefix="val-")
        for rule in self._chosen_rules:
            columns = self._criterion_columns(rule)
            value = criterion(values, columns)
            if value > max((criterion(row, columns) for row in metrics.rows[:-1]), default=-np.inf):
                weights = {name: part.state_dict() for name, part in self._trained.states.items()}
                facts = {**self._identity, "epoch": epoch + 1, "criterion": value}
                self.selected.keep(rule, epoch, {**weights, **facts})
        metrics.amend(values)

    def result(self, metrics: MetricsLog) -> tuple[Scored, dict[str, dict[str, Any]]]:
        """The rows of the result for every rule, and for each rule which epoch it chose and why.

        The caller calls this last, because it gives the models the weights that the rules chose. Raises InputError if
        the weights of the epoch that is the best in `metrics` are gone.
        """
        assert self._last is not None  # the last epoch is always scored
        rows, scores = list(self._last[0]), list(self._last[1])
        chosen: dict[str, dict[str, Any]] = {LAST: {"rule": RULES[LAST], "epoch": self._plan.epochs - 1}}
        for rule in self._chosen_rules:
            columns = self._criterion_columns(rule)
            values = [criterion(row, columns) for row in metrics.rows]
            epoch = int(np.argmax(values))  # the first of equals
            file = self._folder.weights_of(rule, epoch)
            if not file.is_file():
                raise InputError(f"{file} is gone, the weights that {rule} chose: start again with rerun=true")
            state = load_checkpoint(file, device=self._images.device)
            self._trained.give_weights(state, file)
            require_weights_of(self._folder, file, state, self._identity, epoch)
            more = self._score("test", epoch, rule)
            rows += more[0]
            scores += more[1]
            chosen[rule] = {"rule": RULES[rule], "epoch": epoch, "mean_rank1": values[epoch]}
            log.info("%s: epoch %d of %d", rule, epoch + 1, self._plan.epochs)
        return (rows, scores), chosen

    def _score(self, split: str, epoch: int, rule: str) -> Scored:
        settings = self._settings[split]
        return score_models(
            self._trained.models, self._images, self._table, settings, self._how, epoch=epoch, selection=rule
        )[0]

    def _columns(self, split: str, models: list[str]) -> list[str]:
        return metric_columns(self._settings[split], models, prefix="val-" if split == "val" else "")

    def _criterion_columns(self, rule: str) -> list[str]:
        """The columns whose mean a rule compares: Rank-1 of the model that is reported, under every protocol."""
        reported = next(iter(self._trained.models))
        columns = self._columns("val" if rule == VALIDATION else "test", [reported])
        return [column for column in columns if column.startswith("rank1/")]


def require_weights_of(
    folder: RunFolder, file: Path, state: Mapping[str, Any], identity: Mapping[str, Any], epoch: int
) -> None:
    """Refuse a checkpoint unless its weights are those of a run after `epoch` (from 0).

    `state` is the content of the checkpoint `file`. Raises InputError if its run is not the `run_id` of `identity`, if
    its images have another `fingerprint`, or if it was written after another epoch.
    """
    folder.require_same_run(file, state["run_id"], identity["run_id"])
    folder.require_fingerprint(state["fingerprint"], identity["fingerprint"])
    if state["epoch"] != epoch + 1 or state.get("step"):
        raise InputError(
            f"{file} does not hold the weights after epoch {epoch}; restore it, or rerun=true trains again"
        )


def model_names(*, averaged: bool) -> tuple[str, ...]:
    """The names in `Trained.models`, without any model. `averaged` says whether the run keeps an average."""
    return ("ema", "raw") if averaged else ("raw",)
