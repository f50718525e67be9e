"""Copies a run's numbers to Weights & Biases. The run folder holds everything, so no failure here stops a run."""

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
    """Sends the rows, pictures and final table of one run to W&B, or to nowhere.

    `start` starts the run in W&B and returns W&B's object for it; None means that nothing is tracked. `earlier` holds
    the rows of the epochs that the run has already trained if it goes on. They are sent first, so that offline the
    newest of the run's W&B folders holds all rows. A W&B server skips the rows that it already has.

    After the first failure of W&B, the tracker warns once, ends W&B, and does nothing any more.
    """

    def __init__(self, start: Callable[[], Any] | None, earlier: Sequence[Mapping[str, Any]] = ()) -> None:
        self._run: Any = None
        if start is not None:
            self._guard(lambda: self._start(start(), earlier))

    def _start(self, run: Any, earlier: Sequence[Mapping[str, Any]]) -> None:
        logging.raiseExceptions = False  # W&B's own log would show a traceback for each line that a full disk refuses
        self._run = run
        self._run.define_metric("*", step_metric="epoch")
        for row in earlier:
            self.epoch(row)

    @property
    def active(self) -> bool:
        """Whether the tracker sends what it is given. It does not without W&B, after a failure, or once closed."""
        return self._run is not None

    def picture(self, name: str, pixels: np.ndarray) -> None:
        """Send an RGB image, uint8 (height, width, 3), under `name`."""
        if self._run is not None:
            self._guard(lambda: self._picture(name, pixels))

    def _picture(self, name: str, pixels: np.ndarray) -> None:
        import wandb

        self._run.log({name: wandb.Image(pixels)}, commit=False)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Send one row of metrics.csv; its epoch is the step in W&B."""
        if self._run is not None:
            values = {name: float(value) for name, value in row.items() if value not in ("", None)}
            self._guard(lambda: self._run.log(values, step=int(row["epoch"])))

    def result(self, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the final numbers (`bdlf.runs.card.summary`), and a table of the flat rows of the result."""
        if self._run is not None:
            self._guard(lambda: self._result(summary, rows))

    def _result(self, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        self._run.summary.update(dict(summary))
        self._run.log({"result": wandb.Table(columns=[*rows[0]], data=[[*row.values()] for row in rows])})

    def close(self, *, failed: bool = False) -> None:
        """End the run in W&B, as finished or as failed."""
        if self._run is not None:
            run, self._run = self._run, None
            self._guard(lambda: finish(run, failed=failed))

    def _guard(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # the run goes on, whatever W&B raises
            self._run = None
            reason = next(iter(str(error).splitlines()), "")
            log.warning(
                "W&B stopped (%s: %s); the run folder has everything, tracker=none silences this",
                type(error).__name__,
                reason,
            )
            end_service()
        except BaseException:  # a signal that arrives while W&B starts
            self._run = None
            end_service()
            raise


def start_tracker(
    config: Config, folder: Path, facts: Mapping[str, Any], *, earlier: Sequence[Mapping[str, Any]] = ()
) -> Tracker:
    """The tracker of a run that trains now, as `config.tracker` asks for it.

    `facts` holds the run's run_id, label and dataset. `earlier` holds the rows of the epochs before, if the run goes
    on; the run with this id in W&B then goes on too. Without `earlier`, a run with this id in W&B is replaced. If no
    W&B server can be used, the run is tracked offline.

    Raises InputError if WANDB_MODE is not known.
    """
    if config.tracker.name != "wandb":
        return Tracker(None)
    mode, resumed = wandb_mode(), bool(earlier)

    def start() -> Any:
        run = started_run(config, folder, facts, resumed=resumed)
        record_run(folder, run)
        return begin(run, folder, dataclasses.asdict(config), mode=mode, resumed=resumed, offline_instead=True)

    return Tracker(start, earlier)


def rebuild(folder: RunFolder) -> bool:
    """Make the run in W&B anew from a run folder: the rows of its epochs and, if it has one, its result.

    Returns False if the folder has no epoch yet, or if W&B failed, which a warning has then reported. Raises InputError
    if the folder cannot be read, or if WANDB_MODE is not known.
    """
    config = read_config(folder.config)
    result = read_result(folder.result) if folder.result.is_file() else None
    facts = result or {"run_id": run_id(config), "label": folder.label, "dataset": config.dataset.name}
    return _copy(folder, config, result, lambda: rebuilt_run(config, folder.path, facts))


def answer_agent(config: Config, folder: RunFolder, result: Mapping[str, Any]) -> None:
    """Send the result of a run that finished earlier to the W&B agent that started this process for a trial.

    The agent's sweep would otherwise never learn the figures of this trial. Does nothing if no agent started the
    process.
    """
    if config.tracker.name == "wandb" and is_trial(result["run_id"]):
        _copy(folder, config, result, lambda: started_run(config, folder.path, result, resumed=False))


def _copy(
    folder: RunFolder, config: Config, result: Mapping[str, Any] | None, describe: Callable[[], WandbRun]
) -> bool:
    """Replace the run in W&B that `describe` returns by the rows and the result of a run folder.

    Returns whether W&B has taken everything and there was at least one row. Without a server this is a failure, because
    nothing would be sent.
    """
    if not folder.metrics.is_file():
        return False
    with folder.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    mode = wandb_mode()

    def start() -> Any:
        values = dataclasses.asdict(config)
        return begin(describe(), folder.path, values, mode=mode, resumed=False, offline_instead=False)

    tracker = Tracker(start)
    for row in rows:
        tracker.epoch(row)
    if result is not None:
        tracker.result(summary(result), flat_rows(result))
    reached = tracker.active
    tracker.close(failed=result is None)
    return reached and bool(rows)
