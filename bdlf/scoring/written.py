"""Writes scores that no training run has made. They never replace a run's own result."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bdlf.evaluation import Scores
from bdlf.runs.record import write_per_query, write_result
from bdlf.runs.table import show_result

log = logging.getLogger("bdlf")


def digest(value: Any) -> str:
    """The first eight hexadecimal digits of the hash of a JSON value, for the name of a folder below `evaluations/`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def write_scores(folder: Path, metrics: list[dict[str, Any]], scores: Sequence[Scores] | None, **facts: Any) -> None:
    """Write `result.json` into `folder`, and `per_query.npz` if there are `scores` of queries, and show the result.

    `facts` are the further fields of the result.
    """
    if scores is not None:
        write_per_query(folder / "per_query.npz", scores)
    show_result(write_result(folder / "result.json", metrics=metrics, **facts))
    log.info("written to %s", folder / "result.json")
