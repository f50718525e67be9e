"""Blocks as text: Markdown, CSV, LaTeX, HTML."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence

import pandas as pd

from bdlf.reporting.tables import Block

FORMATS = ("md", "csv", "tex", "html")
_DASH = "-"
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; }}
table {{ border-collapse: collapse; font-size: 90%; }}
th, td {{ padding: 0.2em 0.6em; border-bottom: 1px solid #ccc; text-align: left; white-space: nowrap; }}
</style>
{body}</html>
"""
_TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "~": r"\textasciitilde{}",
    "^": r"\^{}",
}


def rendered(blocks: Sequence[Block], form: str) -> str:
    """All blocks of a table in one text; `form` is one of FORMATS.

    CSV holds plain numbers, a line for each row and, where there are several blocks, their titles in a first column;
    the others hold the cells as they are read, with title and notes.
    """
    if form == "csv":
        tables = [block.table.assign(block=block.title) if len(blocks) > 1 else block.table for block in blocks]
        joined = pd.concat(tables, ignore_index=True)
        if len(blocks) > 1:
            joined.insert(0, "block", joined.pop("block"))
        for name in ("paper_rank1", "paper_mAP"):
            joined[name] = [_number(value, 1) if pd.notna(value) else "" for value in joined[name]]
        text = io.StringIO()
        joined.to_csv(text, index=False, float_format="%.4f", lineterminator="\n")
        return text.getvalue()
    write = {"md": _markdown, "tex": _latex, "html": _html}[form]
    body = "\n".join(write(block, cells(block.table)) for block in blocks)
    return _PAGE.format(title=html.escape(blocks[0].title), body=body) if form == "html" else body


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is read: texts, a dash where there is nothing."""
    shown = pd.DataFrame({"": table["row"], "runs": table["runs"]})
    for name, words in (("rank1", "rank-1"), ("mAP", "mAP"), ("mINP", "mINP")):
        if name in table:
            shown[words] = [_spread(*pair) for pair in zip(table[name], table[f"{name}_std"], strict=True)]
    for name, words in (("rank1", "diff. rank-1"), ("mAP", "diff. mAP")):
        if f"{name}_difference" in table:
            parts = [table[f"{name}_{part}"] for part in ("difference", "low", "high")]
            shown[words] = [_interval(*three) for three in zip(*parts, strict=True)]
    printed = zip(table["paper_rank1"], table["paper_mAP"], strict=True)
    shown["paper R-1 / mAP"] = [f"{_number(a, 1)} / {_number(b, 1)}" if pd.notna(a) else _DASH for a, b in printed]
    shown["paper's protocol"] = table["paper_protocol"].fillna(_DASH)
    if "rank1_to_paper" in table:
        shown["to paper"] = [f"{value:+.1f}" if pd.notna(value) else _DASH for value in table["rank1_to_paper"]]
    costs = {
        "train_seconds": ("train s", 1, 0),
        "images_per_second": ("images/s", 1, 0),
        "peak_memory_gib": ("GiB", 1, 2),
        "parameters": ("M par.", 1e-6, 1),
        "train_gflops": ("GFLOP train", 1, 2),
        "inference_gflops": ("GFLOP inf.", 1, 2),
    }
    for name, (words, scale, digits) in costs.items():
        if name in table:
            values = pd.to_numeric(table[name])
            shown[words] = [_number(value * scale, digits) if pd.notna(value) else _DASH for value in values]
    texts: pd.DataFrame = shown.astype(str)
    return texts


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _spread(mean: float | None, std: float | None) -> str:
    if pd.isna(mean):
        return _DASH
    return f"{mean:.1f} ± {std:.1f}" if pd.notna(std) else f"{mean:.1f}"


def _interval(mean: float | None, low: float, high: float) -> str:
    return _DASH if pd.isna(mean) else f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _markdown(block: Block, shown: pd.DataFrame) -> str:
    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"

    rows = [line(list(shown.columns)), line(["---"] * shown.shape[1]), *(line(row) for row in shown.values.tolist())]
    return "\n".join([f"### {block.title}", "", *rows, "", *(f"{note}.  " for note in block.notes), ""])


def _latex(block: Block, shown: pd.DataFrame) -> str:
    def line(values: Sequence[str]) -> str:
        return " & ".join(_tex(value) for value in values) + r" \\"

    rows = [line(row) for row in shown.values.tolist()]
    head = [r"\begin{table}", rf"\caption{{{_tex(block.title)}. {_tex('. '.join(block.notes))}.}}"]
    head += [rf"\begin{{tabular}}{{{'l' * shown.shape[1]}}}", r"\hline", line(list(shown.columns)), r"\hline"]
    return "\n".join([*head, *rows, r"\hline", r"\end{tabular}", r"\end{table}", ""])


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text).replace("±", r"$\pm$")


def _html(block: Block, shown: pd.DataFrame) -> str:
    notes = "".join(f"<p>{html.escape(note)}.</p>" for note in block.notes)
    return f"<h3>{html.escape(block.title)}</h3>\n{shown.to_html(index=False, border=0)}\n{notes}\n"
