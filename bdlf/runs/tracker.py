"""A copy of a run's numbers in Weights & Biases. The run folder is the truth: nothing here can stop a run."""

from __future__ import annotations

import csv
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bdlf.active import components, flat, in_use, variant_name
from bdlf.config import Config
from bdlf.runs.card import flat_rows, summary
from bdlf.runs.folder import RunFolder, read_config
from bdlf.runs.identity import run_group, run_id
from bdlf.runs.record import read_result

log = logging.getLogger(__name__)


class Tracker:
    """Mirrors rows, pictures and the final table; after the first failure it says so once and stays silent.

    `name` is `wandb` or `none`. W&B runs offline unless the environment's WANDB_MODE says otherwise; its files lie in
    `<folder>/wandb`. `earlier` holds the rows of a run that goes on: the W&B run of that id goes on too, and the rows
    are logged again, so that offline the newest folder below `<folder>/wandb` holds everything (a server passes over
    the steps it has). Without `earlier`, a W&B run of that id is replaced.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        run_id: str,
        group: str,
        tags: Sequence[str],
        config: Mapping[str, Any],
        project: str,
        entity: str | None,
        earlier: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._run: Any = None
        if name == "wandb":
            settings = {
                "project": project,
                "entity": entity,
                "group": group,
                "tags": list(tags),
                "config": dict(config),
            }
            self._guard(lambda: self._start(folder, run_id, settings, earlier))

    def _start(
        self, folder: Path, run_id: str, settings: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]
    ) -> None:
        import wandb

        logging.raiseExceptions = False  # else W&B's own log shows a traceback for each line that a full disk refuses
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            **settings,
            id=run_id,
            name=run_id,
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            resume="allow" if earlier else None,
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
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
            self._guard(lambda: run.finish(exit_code=int(failed)))

    def _guard(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # whatever W&B raises, the run goes on
            self._run = None
            log.warning(
                "W&B stopped (%s: %s); the run folder has everything, tracker=none silences this",
                type(error).__name__,
                error,
            )


def start_tracker(
    config: Config, folder: Path, facts: Mapping[str, Any], *, earlier: Sequence[Mapping[str, Any]] = ()
) -> Tracker:
    """The tracker of a run; `facts` holds its run_id, label and dataset."""
    values = flat(config)
    used = in_use(values)
    tags = [facts["dataset"], variant_name(components(values))]
    tags += [f"{name}{used[f'dfe.{name}']}" for name in ("stage", "blocks") if f"dfe.{name}" in used]
    tags += [config.sweep] if config.sweep != Config.sweep else []
    return Tracker(
        config.tracker.name,
        folder=folder,
        run_id=facts["run_id"],
        group=run_group(config, facts["label"]),
        tags=tags,
        config=dataclasses.asdict(config),
        project=config.tracker.project,
        entity=config.tracker.entity,
        earlier=earlier,
    )


def rebuild(folder: RunFolder) -> bool:
    """A W&B run anew from a run folder, finished or not: its rows and, where there is one, its result.

    False where the folder has no epoch yet, or W&B failed (it has said so then). Raises InputError where the folder
    cannot be read.
    """
    config = read_config(folder.config)
    config.tracker.name = "wandb"
    if not folder.metrics.is_file():
        return False
    with folder.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    result = read_result(folder.result) if folder.result.is_file() else None
    facts = result or {
        "run_id": run_id(config),
        "label": folder.label,
        "dataset": config.dataset.name,
    }
    tracker = start_tracker(config, folder.path, facts)
    for row in rows:
        tracker.epoch(row)
    if result is not None:
        tracker.result(summary(result), flat_rows(result))
    reached = tracker.active
    tracker.close(failed=result is None)
    return reached and bool(rows)
