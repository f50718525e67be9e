"""`metrics.csv`: one row per epoch, no row doubled, none missing, however often the run was cut off."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from bdlf.system.errors import InputError
from bdlf.system.files import write_text


class MetricsLog:
    """Rows of one run under fixed columns; a row may leave some out (evaluation not due).

    A run that goes on may be scored otherwise than before. Its file then keeps the columns that it had, after the new
    ones.
    """

    def __init__(self, path: Path, columns: list[str], *, keep_epochs: int = 0) -> None:
        """Rows of epochs from `keep_epochs` on, left by a process that died after its last checkpoint, are dropped.

        Raises InputError where the file has not a row for each epoch before.
        """
        self.path = path
        self.columns = list(columns)
        self.rows: list[dict[str, Any]] = []
        if not keep_epochs:
            return
        try:
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))[:keep_epochs]
            self.columns += [name for name in self.rows[0] if name not in self.columns]
            whole = [row["epoch"] for row in self.rows] == [str(epoch) for epoch in range(keep_epochs)]
        except (OSError, LookupError, ValueError, csv.Error):
            whole = False
        if not whole:
            raise InputError(
                f"{path} has not the rows of epochs 0 to {keep_epochs - 1}, which the checkpoint comes after: restore "
                "it, or start again with rerun=true"
            )

    def append(self, row: dict[str, Any]) -> None:
        """One more epoch."""
        self.rows.append({})
        self.amend(row)

    def amend(self, values: dict[str, Any]) -> None:
        """Add values to the last row. Raises KeyError for a column that is not there."""
        unknown = sorted(set(values) - set(self.columns))
        if unknown:
            raise KeyError(f"metrics.csv has no column {unknown}")
        self.rows[-1] = {**self.rows[-1], **values}
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
