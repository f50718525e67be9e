"""Prints the rows of a result as a table on the screen."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from bdlf.runs.card import common_lines
from bdlf.runs.record import FIGURES, protocol
from bdlf.system.screen import encodable
from bdlf.system.screen_table import print_line, print_table


def show_result(result: dict[str, Any], *, rows: Collection[int] | None = None) -> None:
    """Print the rows of a result and their protocol card.

    Figures are means over trials in percent, with their standard deviation over trials (ddof 1) where there are
    several. If `rows` is given, only the rows with these numbers are printed, and a last line says how many others the
    result holds.
    """
    others = 0
    if rows is not None:
        others = len(result["metrics"]) - len(rows)
        result = {**result, "metrics": [result["metrics"][row] for row in sorted(rows)]}
    of_run = f" ({result['run_id']})" if result["run_id"] else ""
    title = f"{result['dataset']}: {result['label']}{of_run}, percent"
    names = ["model", "epoch (from 0)", "protocol", "trials", "valid/queries"]
    headings = [*names, *(figure.replace("rank", "rank-") for figure in FIGURES)]
    lines = []
    for row in result["metrics"]:
        queries = f"{row['valid_queries']}/{row['queries']}"
        facts = [row["model"], _epoch(row), protocol(row), str(len(row["trials"])), queries]
        lines.append([*facts, *(_figure(row, name) for name in FIGURES)])
    print_table(headings, lines, title=title, figures=range(len(names), len(headings)))
    for line in common_lines(result):
        print_line(line)
    if others:
        print_line(f"result.json also holds {others} rows of other scorings")


def _epoch(row: dict[str, Any]) -> str:
    """The epoch, counted from 0 as in metrics.csv, and the rule that chose it, as in `10 last_epoch`."""
    if row["selection"] is None:
        return "-"
    return f"{'-' if row['epoch'] is None else row['epoch']} {row['selection']}"


def _figure(row: dict[str, Any], name: str) -> str:
    sign = encodable("±", sys.stdout.encoding or "utf-8")
    spread = f" {sign}{row['std'][name]:.1f}" if row["std"] else ""
    return f"{row['mean'][name]:.1f}{spread}"
