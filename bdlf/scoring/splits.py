"""`evaluate splits=FOLDERS`: averages the results of RegDB's ten splits."""

from __future__ import annotations

from pathlib import Path

from bdlf.config import EvaluateConfig
from bdlf.runs.collate import collate_splits, run_folders
from bdlf.scoring.written import digest, write_scores


def collate(config: EvaluateConfig) -> None:
    """Average the results of the runs that `config.splits` names, and write the mean beside their folders.

    Raises InputError if the runs are not of one configuration and seed.
    """
    folders = run_folders(config.splits)
    facts, metrics = collate_splits(folders)
    place = folders[0].path.resolve().parents[1] / "evaluations" / f"{facts['label']}-{digest(facts['run_ids'])}"
    write_scores(Path(config.output) if config.output else place, metrics, None, run_id=None, **facts, selection=None)
