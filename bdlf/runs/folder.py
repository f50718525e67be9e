"""The run folder: which file of a run lies where, and what state the run is in."""

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
from bdlf.runs.record import images_of, read_result, source_state
from bdlf.runs.selection import LAST
from bdlf.system.errors import InputError
from bdlf.system.files import remove_leftovers

log = logging.getLogger(__name__)


def read_config(path: Path) -> Config:
    """The configuration in a run's `config.yaml`.

    Raises InputError if the file is missing, is not the configuration of a run, or holds an interpolation: the file is
    plain data, so interpolations are not resolved.
    """
    try:
        text = path.read_text()
        if "${" in text:
            raise InputError(f"{path} holds an interpolation (${{...}}); a run's config.yaml is plain data: restore it")
        blank = OmegaConf.structured(Config)
        for key, value in NEUTRAL.items():  # what a file means that was written before the key existed
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
    """The paths of the files of a run. Making a RunFolder creates nothing on disk."""

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
        """`<output>/<dataset>/.<run id>.lock`. The label is not part of it, so a run has one lock under all labels."""
        return self.path.parents[1] / f".{self.path.parent.name.rpartition('-')[2]}-{self.path.name}.lock"

    @property
    def label(self) -> str:
        """The name of the folder above `seed<k>`, without the hash."""
        name = self.path.resolve().parent.name
        return name.rpartition("-")[0] or name

    def weights(self, rule: str) -> Path:
        """The file with the weights of the epoch that a selection rule has chosen so far.

        For the rule of the last epoch this is the checkpoint. Raises InputError if there is no file for the rule.
        """
        if rule == LAST:
            return self.checkpoint
        kept = self.selected(rule)
        if not kept:
            raise InputError(f"{self.checkpoint.parent} has no weights that {rule} chose; rerun=true trains again")
        return kept[max(kept)]

    def selected(self, rule: str) -> dict[int, Path]:
        """By epoch (from 0), the existing files with weights of epochs that a selection rule chose when it scored them.

        A rule may choose several epochs one after another, each better than those before.
        """
        found = {}
        for path in self.checkpoint.parent.glob(f"{rule}-epoch*.pt"):
            number = re.fullmatch(rf"{rule}-epoch(\d+)\.pt", path.name)
            if number is not None:
                found[int(number[1])] = path
        return found

    def weights_of(self, rule: str, epoch: int) -> Path:
        """The path under which the weights of an epoch (from 0) are kept for a selection rule."""
        return self.checkpoint.parent / f"{rule}-epoch{epoch}.pt"

    def move_aside(self) -> None:
        """Rename the folder, if it exists, to the first free name of `<name>.old1`, `<name>.old2` ..."""
        if not self.path.exists():
            return
        number = 1
        while self._aside(number).exists():
            number += 1
        aside = self._aside(number)
        self.path.rename(aside)
        log.info("the earlier run is kept in %s", aside)

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.old{number}")

    def remove_leftovers(self) -> None:
        """Remove the half-written files of a process that was killed. Only the holder of `lock` may call this."""
        for folder in (self.path, self.checkpoint.parent):
            remove_leftovers(folder)

    def finished(self, run_id: str, fingerprint: str) -> dict[str, Any] | None:
        """The result of the run, or None if the run is not finished.

        Raises InputError if the result is that of another run than `run_id`, or if the images are no longer those of
        the run, so that their `fingerprint` differs.
        """
        if not self.result.is_file():
            return None
        result = read_result(self.result)
        self.require_same_run(self.result, result["run_id"], run_id)
        self.require_fingerprint(result["fingerprint"], fingerprint)
        return result

    def require_fingerprint(self, recorded: str, now: str) -> None:
        """Raise InputError if the fingerprint of the images now is not the one that the run has recorded."""
        if recorded != now and images_of(recorded) == images_of(now):
            raise InputError(
                f"{self.path} was trained on other silhouettes than those at dataset.silhouettes; restore them, or "
                "start again with rerun=true"
            )
        if recorded != now:
            raise InputError(
                f"{self.path} belongs to other images (dataset fingerprint {recorded[:8]}, now {now[:8]}); "
                "restore the dataset, or start again with rerun=true"
            )

    def require_same_run(self, file: Path, recorded: str, now: str) -> None:
        """Raise InputError if `file` records another run id than this run has, because it was copied or renamed."""
        if recorded != now:
            raise InputError(
                f"{file} is of run {recorded}, this is {now}; move it away, or start again with rerun=true"
            )

    def warn_of_commit(self, recorded: str | None) -> None:
        """Warn if the run was recorded by another commit than that of the code which runs now."""
        now = source_state()["commit"]
        if now and recorded and now != recorded:
            log.warning(
                "%s is of commit %s, the code here of %s; rerun=true starts again", self.path, recorded[:8], now[:8]
            )
