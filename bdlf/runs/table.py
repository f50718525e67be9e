"""Result rows as a table on the screen."""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console
from rich.table import Table

from bdlf.runs.record import FIGURES

log = logging.getLogger(__name__)




def show_result(result: dict[str, Any]) -> None:
    """Print the rows of a `result.json`: what was scored, how, and mean +- std over trials, in percent."""
    table = Table(title=f"{result['dataset']}: {result['label']} ({result['run_id']}), percent", title_justify="left")
    for heading in ("model", "protocol", "trials", "queries"):
        table.add_column(heading)
    for figure in FIGURES:
        table.add_column(figure.replace("rank", "rank-"), justify="right")
    for row in result["metrics"]:
        queries = f"{row['valid_queries']}/{row['queries']}"
        figures = [_figure(row, name) for name in FIGURES]
        table.add_row(row["model"], protocol_name(row), str(len(row["trials"])), queries, *figures)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table)
    first = result["metrics"][0]
    flip = "on" if first["flip"] else "off"
    console.print(
        f"feature {first['feature']}, {first['similarity']} similarity, flip averaging {flip}, "
        f"epoch {first['epoch']} ({first['selection']})",
        highlight=False,
    )


def protocol_name(row: dict[str, Any]) -> str:
    """What is query and what is gallery, in words: `ir_to_vis all 1-shot agw`."""
    shots = f"{row['shots']}-shot" if row["shots"] else None
    return " ".join(part for part in (row["direction"], row["mode"], shots, row["gallery"], row["reading"]) if part)


def _figure(row: dict[str, Any], name: str) -> str:
    spread = f" ±{row['std'][name]:.1f}" if row["std"] else ""
    return f"{row['mean'][name]:.1f}{spread}"
