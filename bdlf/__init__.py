"""Base-Detail Feature Learning for visible-infrared person re-identification, as a framework for ablation sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd

    from bdlf.experiment import open_run

__version__ = "0.1.0"
__all__ = ["gather", "open_run"]  # for notebooks and scripts; both import what they need when they are first used


def gather(folders: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """The results of all finished runs at or below `folders`: one folder or several, at any depth.

    The frame has a row for every combination of run, model (raw or averaged), rule that chose the epoch, and protocol.
    `bdlf.reporting.gather.Gathered` describes its columns: among them `variant`, `seed`, `dataset`, `model`,
    `direction`, the figures (`rank1`, `mAP`, `mINP` ...) in percent and the costs. The frame has no rows if no run is
    finished. `wandb:ENTITY/PROJECT` in place of a folder stands for the runs of a W&B project.

    A run that cannot be read is left out, and a UserWarning says so. Raises InputError if one of `folders` does not
    exist, or if none of them holds a run.
    """
    import warnings

    from bdlf.reporting.gather import gather as gather_runs

    gathered = gather_runs(folders)
    for problem in gathered.problems:
        warnings.warn(problem, stacklevel=2)
    return gathered.frame


def __getattr__(name: str) -> Any:
    """Gives `open_run` when it is first asked for, because importing it takes torch and `import bdlf` must be light."""
    if name == "open_run":
        from bdlf.experiment import open_run

        return open_run
    raise AttributeError(f"module 'bdlf' has no attribute '{name}'")
