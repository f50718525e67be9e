"""A copy of a run's numbers in Weights & Biases. The run folder is the truth: nothing here can stop a run."""

from __future__ import annotations

import csv
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bdlf.config import Config
from bdlf.runs.card import flat_rows, summary
from bdlf.runs.folder import RunFolder, read_config
from bdlf.runs.identity import run_id
from bdlf.runs.record import read_result
from bdlf.runs.wandb_run import WandbRun, is_trial, rebuilt_run, record_run, started_run, wandb_mode
from bdlf.runs.wandb_session import begin, end_service, finish

log = logging.getLogger(__name__)


class Tracker:
    """Mirrors rows, pictures and the final table; after the first failure it says so once and stays silent.

    `name` is `wandb` or `none`. `describe` gives what the run is in W&B. The mode is that of `wandb_mode`; W&B's files
    lie in WANDB_DIR, or else in `<folder>/wandb`. `earlier` holds the rows of a run that goes on: the W&B run of that
    id goes on too, and the rows are logged again, so that offline the newest folder of the id holds everything (a
    server passes over the steps it has). Without `earlier`, a W&B run of that id is replaced. `offline_instead`: where
    no server can be used, W&B goes on offline; else that is a failure.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        describe: Callable[[], WandbRun],
        config: Mapping[str, Any],
        earlier: Sequence[Mapping[str, Any]] = (),
        offline_instead: bool = True,
    ) -> None:
        self._run: Any = None
        if name == "wandb":
            mode = wandb_mode()
            start: dict[str, Any] = {"mode": mode, "resumed": bool(earlier), "offline_instead": offline_instead}
            self._guard(lambda: self._start(begin(describe(), folder, config, **start), earlier))

    def _start(self, run: Any, earlier: Sequence[Mapping[str, Any]]) -> None:
        logging.raiseExceptions = False  # else W&B's own log shows a traceback for each line that a full disk refuses
        self._run = run
        self._run.define_metric("*", step_metric="epoch")
        for row in earlier:
            self.epoch(row)

    @property
    def active(self) -> bool:
        """Whether W&B still takes what it is given."""
        return self._run is not None

    def picture(self, name: str, pixels: np.ndarray) -> None:
        """An RGB image, uint8 (height, width, 3)."""
        if self._run is not None:
            self._guard(lambda: self._picture(name, pixels))

    def _picture(self, name: str, pixels: np.ndarray) -> None:
        import wandb

        self._run.log({name: wandb.Image(pixels)}, commit=False)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One row of metrics.csv, against its epoch."""
        if self._run is not None:
            values = {name: float(value) for name, value in row.items() if value not in ("", None)}
            self._guard(lambda: self._run.log(values, step=int(row["epoch"])))

    def result(self, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """The final numbers, and the table of them with the protocol card in every row."""
        if self._run is not None:
            self._guard(lambda: self._result(summary, rows))

    def _result(self, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        self._run.summary.update(dict(summary))
        self._run.log({"result": wandb.Table(columns=[*rows[0]], data=[[*row.values()] for row in rows])})

    def close(self, *, failed: bool = False) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            self._guard(lambda: finish(run, failed=failed))

    def _guard(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # whatever W&B raises, the run goes on
            self._run = None
            reason = next(iter(str(error).splitlines()), "")
            log.warning(
                "W&B stopped (%s: %s); the run folder has everything, tracker=none silences this",
                type(error).__name__,
                reason,
            )
            end_service()
        except BaseException:  # a signal while W&B starts
            self._run = None
            end_service()
            raise


def start_tracker(
    config: Config, folder: Path, facts: Mapping[str, Any], *, earlier: Sequence[Mapping[str, Any]] = ()
) -> Tracker:
    """The tracker of a run that trains now; `facts` holds its run_id, label and dataset.

    Raises InputError where WANDB_MODE is not known.
    """

    def describe() -> WandbRun:
        run = started_run(config, folder, facts, resumed=bool(earlier))
        record_run(folder, run)
        return run

    values = dataclasses.asdict(config)
    return Tracker(config.tracker.name, folder=folder, describe=describe, config=values, earlier=earlier)


def rebuild(folder: RunFolder) -> bool:
    """A W&B run anew from a run folder, finished or not: its rows and, where there is one, its result.

    False where the folder has no epoch yet, or W&B failed (it has said so then). Raises InputError where the folder
    cannot be read, or WANDB_MODE is not known.
    """
    config = read_config(folder.config)
    result = read_result(folder.result) if folder.result.is_file() else None
    facts = result or {"run_id": run_id(config), "label": folder.label, "dataset": config.dataset.name}
    return _copy(folder, config, result, lambda: rebuilt_run(config, folder.path, facts))


def answer_agent(config: Config, folder: RunFolder, result: Mapping[str, Any]) -> None:
    """Give the result of a run that was finished before to the W&B agent that started this process for a trial.

    Without it the agent's sweep would never learn what the trial is worth. Nothing happens where there is no agent.
    """
    if config.tracker.name == "wandb" and is_trial(result["run_id"]):
        _copy(folder, config, result, lambda: started_run(config, folder.path, result, resumed=False))


def _copy(
    folder: RunFolder, config: Config, result: Mapping[str, Any] | None, describe: Callable[[], WandbRun]
) -> bool:
    """Whether the W&B run that `describe` gives now holds the folder's rows and its result."""
    if not folder.metrics.is_file():
        return False
    with folder.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = dataclasses.asdict(config)
    tracker = Tracker("wandb", folder=folder.path, describe=describe, config=values, offline_instead=False)
    for row in rows:
        tracker.epoch(row)
    if result is not None:
        tracker.result(summary(result), flat_rows(result))
    reached = tracker.active
    tracker.close(failed=result is None)
    return reached and bool(rows)
