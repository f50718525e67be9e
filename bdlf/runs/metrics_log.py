"""`metrics.csv`: exactly one row for every epoch, however often the run was interrupted."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from bdlf.system.errors import InputError
from bdlf.system.files import write_text


class MetricsLog:
    """The rows of `metrics.csv`, which all have the same columns.

    A row may leave columns empty, as the row of an epoch that is not scored does. A run that goes on may be scored in
    another way than before. Its file then has the columns that are asked for now, followed by the others that it had.
    """

    def __init__(self, path: Path, columns: list[str], *, keep_epochs: int = 0) -> None:
        """Keeps the rows of the first `keep_epochs` epochs of an existing file, and drops the rows after them.

        A process that died after its last checkpoint may have left such rows; their epochs are trained again. Raises
        InputError if the file lacks one of the rows to be kept.
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
        """Add the row of the next epoch and write the file. Raises KeyError as `amend` does."""
        self.rows.append({})
        self.amend(row)

    def amend(self, values: dict[str, Any]) -> None:
        """Add values to the last row and write the file. Raises KeyError for a column that the file does not have."""
        unknown = sorted(set(values) - set(self.columns))
        if unknown:
            raise KeyError(f"metrics.csv has no column {unknown}")
        self.rows[-1] = {**self.rows[-1], **values}
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
