"""Result rows as a table on the screen."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from bdlf.evaluation.protocols import protocol_name
from bdlf.runs.record import FIGURES


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
        table.add_row(row["model"], _protocol(row), str(len(row["trials"])), queries, *figures)
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


def _protocol(row: dict[str, Any]) -> str:
    return protocol_name(row["direction"], row["mode"], row["shots"], row["gallery"], row["reading"])


def _figure(row: dict[str, Any], name: str) -> str:
    spread = f" ±{row['std'][name]:.1f}" if row["std"] else ""
    return f"{row['mean'][name]:.1f}{spread}"
