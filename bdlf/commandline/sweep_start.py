"""The start of a sweep: reads the configuration that Hydra composed for the sweep, before any job runs.

Only this configuration says where the records of the sweep go, because a user's file of options, `++output=` or
`${now:}` may decide it. The process that starts the sweep receives it from Hydra and hands it to the jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from bdlf.commandline.sweep_records import JobRecord, new_call
from bdlf.commandline.sweep_stop import is_watched

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

_tell: Callable[[DictConfig], object] | None = None


@dataclass
class SweepCall:
    """One call of a command as a sweep. A launcher pickles it into other processes together with the job function."""

    name: str = field(default_factory=new_call)
    """The name of this call among the records of the sweep."""
    folder: Path | None = None
    """The folder of the records; None before the sweep has started."""
    kept: bool = True
    """Whether the records stay on disk. If not, they only tell the starting process what became of the jobs."""
    watched: bool = False
    """Whether the jobs look for the file `stop` (`bdlf.commandline.sweep_stop`)."""

    def begin(self, config: DictConfig) -> None:
        """Set `folder`, `kept` and `watched` from the sweep's configuration.

        A dry run, and a command that has no key `sweep`, keep no records.
        """
        dry = bool(OmegaConf.select(config, "dry_run", throw_on_resolution_failure=False))
        self.kept = "sweep" in config and not dry
        folder = Path(config.hydra.sweep.dir)
        self.folder = folder if self.kept else folder / f".{self.name}"
        self.watched = is_watched(config)


class JobFailedError(Exception):
    """A job has no value of the objective. A sweeper that optimises counts the job as a failed trial."""


def figure(record: JobRecord) -> float | None:
    """The value that a job returns to the sweeper: the figure that `objective=` names, or 0 in a dry run.

    Raises `JobFailedError` where the job has no such value, unless the sweeper is Hydra's basic one. That sweeper uses
    no value, and after an exception it would start no further jobs.
    """
    if record.state == "would run":
        return 0.0
    if record.objective is None and HydraConfig.get().sweeper["_target_"] != _BASIC:
        raise JobFailedError(f"job {record.job} {record.state}: {record.reason or 'it has no figure'}")
    return record.objective


def set_parameters(config: DictConfig, change: Callable[[list[str]], list[str]]) -> None:
    """Apply `change` to each parameter of a sweep file, written as the word `key=value` of a command line."""
    parameters = OmegaConf.select(config, "hydra.sweeper.params")
    if parameters:
        with read_write(config.hydra):
            for key, value in parameters.items():
                if isinstance(value, str):
                    parameters[key] = change([f"{key}={value}"])[0].partition("=")[2]


def swept_words(config: DictConfig) -> list[str]:
    """The overrides of the command line, then the parameters of the sweep file, all as `key=value`."""
    parameters = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return [*config.hydra.overrides.task, *(f"{key}={value}" for key, value in parameters.items())]


@contextmanager
def listening(tell: Callable[[DictConfig], object]) -> Iterator[None]:
    """Inside the block, a sweep that starts calls `tell` with its configuration, which includes the node `hydra`."""
    global _tell
    _tell = tell
    try:
        yield
    finally:
        _tell = None


class SweepStart(Callback):  # type: ignore[misc]
    """The callback that every command's configuration names under `hydra.callbacks`."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if _tell is not None:
            _tell(config)
