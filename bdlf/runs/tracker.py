"""A copy of a run's numbers in Weights & Biases. The run folder is the truth: nothing here can stop a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bdlf.errors import InputError

log = logging.getLogger(__name__)


class Tracker:
    """Mirrors rows and the final table; after the first failure it says so once and stays silent.

    `name` is `wandb` or `none`. W&B runs offline unless the environment's WANDB_MODE says otherwise; its files lie in
    `<folder>/wandb`.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        run_id: str,
        group: str,
        config: Mapping[str, Any],
        project: str,
        entity: str | None,
    ) -> None:
        if name not in ("wandb", "none"):
            raise InputError(f"tracker.name='{name}' is not known; known: wandb, none")
        self._run: Any = None
        if name == "wandb":
            self._guard(lambda: self._start(folder, run_id, group, config, project, entity))

    def _start(
        self, folder: Path, run_id: str, group: str, config: Mapping[str, Any], project: str, entity: str | None
    ) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=project,
            entity=entity,
            id=run_id,
            name=run_id,
            group=group,
            dir=str(folder),
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One row of metrics.csv, against its epoch."""
        if self._run is not None:
            self._guard(lambda: self._run.log(dict(row), step=int(row["epoch"])))

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
