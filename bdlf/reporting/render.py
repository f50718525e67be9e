"""Writes blocks as text: as Markdown, CSV, LaTeX or HTML."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pandas as pd

from bdlf.reporting import latex, markdown, web
from bdlf.reporting.block import Block

FORMATS = ("md", "csv", "tex", "html")


def rendered(blocks: Sequence[Block], form: str) -> str:
    """All blocks of a table in one text; `form` is one of FORMATS.

    CSV has a line of plain numbers for each row. If there are several blocks, its first column has their titles. The
    other formats have rounded texts, titles and notes: Markdown in lines of at most 100 characters, LaTeX that compiles
    alone and in a paper that has booktabs, and HTML as one page with the protocol cards.
    """
    return {"md": markdown.text, "csv": _csv, "tex": latex.text, "html": web.text}[form](blocks)


def _csv(blocks: Sequence[Block]) -> str:
    joined = pd.concat([block.table.assign(block=block.title) for block in blocks], ignore_index=True)
    titles = joined.pop("block")
    if len(blocks) > 1:
        joined.insert(0, "block", titles)
    for name in {"paper_rank1", "paper_mAP"} & set(joined):  # the paper prints one decimal
        joined[name] = [f"{value:.1f}" if pd.notna(value) else "" for value in joined[name]]
    text = io.StringIO()
    joined.to_csv(text, index=False, float_format="%.4f", lineterminator="\n")
    return text.getvalue()
