"""Finds the run that a configuration names, and reads the state of the run from its folder."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from bdlf.commandline.jobs import announce
from bdlf.config import Config
from bdlf.datasets.checking.published import quick_findings
from bdlf.experiment import Experiment, prepare
from bdlf.runs.folder import RunFolder
from bdlf.runs.identity import dataset_id, run_id, run_path, with_facts
from bdlf.runs.selection import selection_rules
from bdlf.runs.tracker import answer_agent
from bdlf.runs.wandb_run import wandb_mode
from bdlf.scoring.missing_rows import missing_rows, show_asked
from bdlf.scoring.objective_value import check_objective, objective_value
from bdlf.system.errors import InputError
from bdlf.system.locks import held
from bdlf.training.checkpoint import has_checkpoint
from bdlf.training.selected import SelectedWeights

log = logging.getLogger("bdlf")


class Job:
    """One configuration to be trained, and the run that it names.

    Raises InputError for a wrong value of `selection`, of `objective` or of W&B's environment, and for a dataset that
    cannot be listed. `prepare` checks all other options.
    """

    def __init__(self, config: Config) -> None:
        selection_rules(config.selection)
        if config.tracker.name == "wandb":
            wandb_mode()
        check_objective(config)
        self.config = config = with_facts(config)
        self.name = run_id(config)
        self.folder = RunFolder(run_path(config))
        self._announce_folder()
        self._read = Experiment(config)
        self.listing = self._read.listing
        self.fingerprint = self._read.fingerprint

    def facts(self) -> dict[str, Any]:
        """What the result says about the run and its dataset, known before training."""
        dataset = self.config.dataset
        return {
            "run_id": self.name,
            "label": self.folder.label,
            "dataset": dataset_id(dataset),
            "fingerprint": self.fingerprint,
            "test_fingerprint": self._read.test_fingerprint,
            "dataset_findings": quick_findings(self.listing, dataset.root, dataset.name),
            "seed": self.config.seed,
        }

    def finished(self) -> dict[str, Any] | None:
        """The result of the run; None if the run is unfinished or `rerun=true` asks for a new start."""
        return None if self.config.rerun else self.folder.finished(self.name, self.fingerprint)

    def resumes(self) -> bool:
        """Whether the run goes on from a checkpoint: there is one, and `rerun=true` does not ask for a new start."""
        return has_checkpoint(self.folder.checkpoint) and not self.config.rerun

    def prepare(self) -> Experiment:
        """All that the run needs before it trains; see `bdlf.experiment.prepare`."""
        return prepare(self.config, images=self.listing, resumes=self.resumes())

    def missing(self, result: dict[str, Any]) -> dict[Any, Any]:
        """The rows that the configuration asks for and that `result`, of the finished run, lacks."""
        return missing_rows(self.config, self.folder, result)

    def answer(self, result: dict[str, Any], *, agent: bool = True) -> None:
        """Give the result of the finished run to the sweep and to the screen, and with `agent` to a W&B agent."""
        if agent:
            answer_agent(self.config, self.folder, result)
        self.announce_objective(result)
        show_asked(self.config, self.folder, result)

    def announce_objective(self, result: dict[str, Any]) -> None:
        """Tell the sweep the figure that `objective=` names."""
        announce(objective=objective_value(self.config, self.folder, result))

    def look_again(self) -> None:
        """Find the folder again, because another process may just have made it under another label."""
        self.folder = RunFolder(run_path(self.config))
        self._announce_folder()

    def tidy_up(self, result: dict[str, Any]) -> None:
        """Remove files that a process has left behind because it was killed after it had written the result.

        The caller holds the run's lock.
        """
        epochs = {rule: chosen["epoch"] for rule, chosen in result["chosen"].items()}
        SelectedWeights(self.folder, list(epochs), generations=1).finish(epochs)
        self.folder.remove_leftovers()

    def tidy_up_if_abandoned(self, result: dict[str, Any]) -> None:
        """Call `tidy_up` if the run has a lock file that no process holds any more."""
        if self.folder.lock.exists():
            with contextlib.suppress(InputError), held(self.folder.lock, f"run {self.name}", remedy=""):
                self.tidy_up(result)

    def _announce_folder(self) -> None:
        announce(run_id=self.name, folder=str(self.folder.path), log=str(self.folder.log))
