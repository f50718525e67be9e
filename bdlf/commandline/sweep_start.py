"""The start of a sweep: what Hydra has composed for it, before any job runs.

Only the composed configuration says where the records of a sweep go: an own file of options, `++output=` or `${now:}`
may decide it. The process that starts the sweep gets it from Hydra here, and hands it to the jobs wherever they run.
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

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

_tell: Callable[[DictConfig], object] | None = None


@dataclass
class SweepCall:
    """One call of a command as a sweep. A launcher carries it to other processes, within the job's function."""

    name: str = field(default_factory=new_call)
    """Of its records."""
    folder: Path | None = None
    """Where its jobs are recorded; None before the sweep has started."""
    kept: bool = True
    """False: the records only tell the starting process what became of the jobs, and are removed at the end."""

    def begin(self, config: DictConfig) -> None:
        """Take the folder from the sweep's configuration. A dry run and a command without `sweep=` keep nothing."""
        dry = bool(OmegaConf.select(config, "dry_run", throw_on_resolution_failure=False))
        self.kept = "sweep" in config and not dry
        folder = Path(config.hydra.sweep.dir)
        self.folder = folder if self.kept else folder / f".{self.name}"


class JobFailedError(Exception):
    """A job gave no figure. A sweeper that optimises counts this as a failed trial."""


def figure(record: JobRecord) -> float | None:
    """What a job of a sweep returns to the sweeper: the figure that `objective=` names; 0 where nothing was to run.

    Raises `JobFailedError` where there is no figure and the sweeper is one that wants to know. Hydra's own wants
    none, and would start no further batch of jobs after an exception.
    """
    if record.state == "would run":
        return 0.0
    if record.objective is None and HydraConfig.get().sweeper["_target_"] != _BASIC:
        raise JobFailedError(f"job {record.job} {record.state}: {record.reason or 'it has no figure'}")
    return record.objective


def set_parameters(config: DictConfig, change: Callable[[list[str]], list[str]]) -> None:
    """Change the parameters that a sweep file gives, each as the word that would give it on the command line."""
    parameters = OmegaConf.select(config, "hydra.sweeper.params")
    if parameters:
        with read_write(config.hydra):
            for key, value in parameters.items():
                if isinstance(value, str):
                    parameters[key] = change([f"{key}={value}"])[0].partition("=")[2]


def swept_words(config: DictConfig) -> list[str]:
    """What the command line and the sweep's file say of the jobs."""
    parameters = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return [*config.hydra.overrides.task, *(f"{key}={value}" for key, value in parameters.items())]


@contextmanager
def listening(tell: Callable[[DictConfig], object]) -> Iterator[None]:
    """Within the block, a sweep that starts in this process calls `tell` with its configuration, `hydra` included."""
    global _tell
    _tell = tell
    try:
        yield
    finally:
        _tell = None


class SweepStart(Callback):  # type: ignore[misc]
    """Hydra's callback, which the configuration of every command names."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if _tell is not None:
            _tell(config)
