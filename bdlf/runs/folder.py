"""The run folder: where everything about one run lies, and what state it is in."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bdlf.config import Config
from bdlf.runs.identity import NEUTRAL
from bdlf.runs.record import read_result, source_state
from bdlf.runs.selection import LAST
from bdlf.system.errors import InputError
from bdlf.system.files import remove_leftovers

log = logging.getLogger(__name__)


def read_config(path: Path) -> Config:
    """A run's `config.yaml` as data: an interpolation in it is refused, not resolved."""
    try:
        text = path.read_text()
        if "${" in text:
            raise InputError(f"{path} holds an interpolation (${{...}}); a run's config.yaml is plain data: restore it")
        blank = OmegaConf.structured(Config)
        for key, value in NEUTRAL.items():  # what a file that is older than the key stands for
            OmegaConf.update(blank, key, value)
        merged = OmegaConf.merge(blank, OmegaConf.create(yaml.safe_load(text)))
        return cast(Config, OmegaConf.to_object(merged))
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; run= takes a run folder, like outputs/synthetic/full-1a2b3c4d/seed0"
        ) from None
    except (OSError, yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not the configuration of a run ({str(error).splitlines()[0]}); restore it"
        ) from error


class RunFolder:
    """Names of the files of a run; nothing is created before it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.checkpoint = path / "checkpoints" / "last.pt"
        self.per_query = path / "per_query.npz"
        self.result = path / "result.json"
        self.log = path / "train.log"

    @property
    def lock(self) -> Path:
        """`<output>/<dataset>/.<run id>.lock`: the same for every label under which a run may be started."""
        return self.path.parents[1] / f".{self.path.parent.name.rpartition('-')[2]}-{self.path.name}.lock"

    @property
    def label(self) -> str:
        """What the folder of the run's seeds is called, less the hash."""
        name = self.path.resolve().parent.name
        return name.rpartition("-")[0] or name

    def weights(self, rule: str) -> Path:
        """The weights of the epoch that a selection rule prefers so far; of the last epoch, the checkpoint.

        Raises InputError where the run keeps none for the rule.
        """
        if rule == LAST:
            return self.checkpoint
        kept = self.selected(rule)
        if not kept:
            raise InputError(f"{self.checkpoint.parent} has no weights that {rule} chose; rerun=true trains again")
        return kept[max(kept)]

    def selected(self, rule: str) -> dict[int, Path]:
        """By epoch (from 0), the weights of epochs that a selection rule preferred when they were scored."""
        found = {}
        for path in self.checkpoint.parent.glob(f"{rule}-epoch*.pt"):
            if number := re.fullmatch(rf"{rule}-epoch(\d+)\.pt", path.name):
                found[int(number[1])] = path
        return found

    def weights_of(self, rule: str, epoch: int) -> Path:
        """Where the weights of an epoch (from 0) lie that a selection rule prefers."""
        return self.checkpoint.parent / f"{rule}-epoch{epoch}.pt"

    def move_aside(self) -> None:
        """Rename an existing folder to `<name>.old1`, `.old2` ...; nothing is deleted."""
        if self.path.exists():
            taken = 1
            while (aside := self.path.with_name(f"{self.path.name}.old{taken}")).exists():
                taken += 1
            self.path.rename(aside)
            log.info("the earlier run is kept in %s", aside)

    def remove_leftovers(self) -> None:
        """What a process that was killed was writing; for who holds `lock`."""
        for folder in (self.path, self.checkpoint.parent):
            remove_leftovers(folder)

    def finished(self, run_id: str, fingerprint: str) -> dict[str, Any] | None:
        """The result of a finished run; None where there is none yet.

        Raises InputError where the dataset has changed since.
        """
        if not self.result.is_file():
            return None
        result = read_result(self.result)
        self.require_same_run(self.result, result["run_id"], run_id)
        self.require_fingerprint(result["fingerprint"], fingerprint)
        return result

    def require_fingerprint(self, recorded: str, now: str) -> None:
        """Refuse to go on with other images."""
        if recorded != now:
            raise InputError(
                f"{self.path} belongs to other images (dataset fingerprint {recorded[:8]}, now {now[:8]}); "
                "restore the dataset, or start again with rerun=true"
            )

    def require_same_run(self, file: Path, recorded: str, now: str) -> None:
        """Refuse a file that was copied or renamed from another run."""
        if recorded != now:
            raise InputError(
                f"{file} is of run {recorded}, this is {now}; move it away, or start again with rerun=true"
            )

    def warn_of_commit(self, recorded: str | None) -> None:
        """Say so where other code wrote what is there."""
        now = source_state()["commit"]
        if now and recorded and now != recorded:
            log.warning(
                "%s is of commit %s, the code here of %s; rerun=true starts again", self.path, recorded[:8], now[:8]
            )
