"""Draws Figure 4 of the paper: accuracy against the number of invertible blocks."""

from __future__ import annotations

import io
import textwrap

import numpy as np

from bdlf.reporting.block import Block


def figure4(block: Block, form: str) -> bytes:
    """The block of the table `figure4` as the bytes of a picture; `form` is `png` or `svg`.

    The lines are means over runs, the bands around them are one standard deviation over runs wide on either side.
    """
    from matplotlib.figure import Figure

    table = block.table  # a number of blocks without a run has NaN, where the line is interrupted
    blocks = [int(row.removeprefix("blocks")) for row in table["row"]]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, words in (("rank1", "rank-1"), ("mAP", "mAP")):
        mean = table[name].to_numpy(dtype=float)
        spread = np.nan_to_num(table[f"{name}_std"].to_numpy(dtype=float))
        (line,) = axes.plot(blocks, mean, marker="o", label=words)
        axes.fill_between(blocks, mean - spread, mean + spread, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set_xticks(range(1, 9))
    axes.set_xlim(0.7, 8.3)
    axes.set_xlabel("invertible blocks")
    axes.set_ylabel("percent, mean over runs ± std")
    axes.set_title(textwrap.fill(block.title, 95), fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return picture.getvalue()
