"""The figure of the terms: every term of the loss, its weight and the correlations, over the epochs of some runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bdlf.active import ATTENTION_OWN, CORR_BASE, CORR_DETAIL, CORR_DETAIL_CENTRED
from bdlf.inside.style import GREY, LINES, OKABE_ITO, blank, styled
from bdlf.terms import TERMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bdlf.experiment import Experiment

WATCHED = (CORR_BASE, CORR_DETAIL, CORR_DETAIL_CENTRED, ATTENTION_OWN)
"""What is logged beside the terms; see `bdlf.objective.correlations`."""


def terms_figure(runs: Mapping[str, Experiment], *, width: int = 170) -> Figure:
    """A panel for the total, for each term that some run has, for each correlation, and for the weights.

    `runs` are runs by the names that the legend gives them. Only their `config` and `metrics.csv` are read. A solid
    line is the mean of a term over an epoch, without its weight. The last panel has the weights in the middle of an
    epoch, with the ramp; a line of its own for each weight that differs.

    Raises InputError for a run that has finished no epoch.
    """
    metrics = {name: run.metrics for name, run in runs.items()}
    panels = [name for name in ("total", *TERMS, *WATCHED) if any(_has(log, name) for log in metrics.values())]
    columns = 5 if width > 100 else 3
    lines = math.ceil((len(panels) + 1) / columns)
    with styled():
        figure = blank(width, 23 * lines + 4 + 3.2 * len(runs))
        every = figure.subplots(lines, columns, sharex=True).ravel()
        for axes, name in zip(every, panels, strict=False):
            for at, (run, log) in enumerate(metrics.items()):
                if _has(log, name):
                    axes.plot(log["epoch"] + 1, log[name], label=run, **_line(at, len(log)))
            axes.set_title(_title(name, 13 if columns == 3 else 20))
            if name in WATCHED:
                axes.axhline(0, color=GREY, linewidth=0.5, zorder=0)
        _weights(every[len(panels)], runs)
        for axes in every[len(panels) + 1 :]:
            axes.remove()
        for axes in every[max(0, len(panels) + 1 - columns) : len(panels) + 1]:
            axes.xaxis.set_tick_params(labelbottom=True)
            axes.set_xlabel("epoch")
        for axes in every[: len(panels) + 1]:
            _whole_epochs(axes, max(len(log) for log in metrics.values()))
        if len(runs) > 1:
            handles = list(every[0].get_lines())
            figure.legend(handles=handles, loc="outside upper center", ncols=1 if width < 100 else 2)
    return figure


def terms_numbers(runs: Mapping[str, Experiment]) -> dict[str, Any]:
    """The values of the last epoch of each run: `total`, every term and every correlation that the run has."""
    numbers = {}
    for name, run in runs.items():
        last = run.metrics.iloc[-1]
        known = [column for column in ("total", *TERMS, *WATCHED) if _has(run.metrics, column)]
        values = {column: float(last[column]) for column in known}
        numbers[name] = {"epoch": int(last["epoch"]) + 1} | {
            column: value if math.isfinite(value) else None for column, value in values.items()
        }
    return numbers


def weights_of(run: Experiment, epochs: int) -> dict[str, np.ndarray]:
    """(epochs,) the weight of each term in the middle of each epoch, with its ramp."""
    progress = [(epoch + 0.5) / run.config.schedule.epochs for epoch in range(epochs)]
    objective = run.objective
    return {name: np.array([objective.weight(name, min(at, 1.0)) for at in progress]) for name in objective.terms}


def _title(name: str, most: int) -> str:
    """The name of a column, in two lines if it has more than `most` characters."""
    title = f"{name} (ramped)" if name in TERMS and TERMS[name].ramped else name
    if len(title) <= most:
        return title
    at = title.rindex(" (") if "(" in title else title.rindex("_")
    return f"{title[:at]}\n{title[at:].strip()}"


def _has(log: pd.DataFrame, name: str) -> bool:
    """Whether some epoch has a value. The columns of what a method does not watch are empty."""
    return name in log.columns and bool(log[name].notna().any())


def _weights(axes: Axes, runs: Mapping[str, Experiment]) -> None:
    """The panel of the weights: one line for all terms of a run whose weights are the same."""
    top = 0.0
    curves: dict[tuple[float, ...], list[str]] = {}
    for at, run in enumerate(runs.values()):
        epochs = len(run.metrics)
        curves = {}
        for name, weights in weights_of(run, epochs).items():
            curves.setdefault(tuple(weights.tolist()), []).append(name)
        for number, (curve, names) in enumerate(curves.items()):
            style = _line(at, epochs) if len(runs) > 1 else {**_line(0, epochs), "linestyle": LINES[number % 4]}
            ramped = "ramped " if len(set(curve)) > 1 else ""
            label = f"{names[0]}" if len(names) == 1 else f"{len(names)} {ramped}terms"
            axes.plot(range(1, epochs + 1), curve, label=label, **style)
            top = max(top, *curve)
    if len(runs) == 1:
        axes.legend(loc="upper left", handlelength=1.6, borderpad=0, borderaxespad=0.2, labelspacing=0.2)
    axes.set_ylim(0, (1.25 + 0.35 * len(curves)) * top)
    axes.set_title("weights")


def _line(at: int, epochs: int) -> dict[str, Any]:
    """How the line of run number `at` looks. Runs differ by colour and by dashes."""
    marker = {"marker": "o", "markersize": 2.2} if epochs < 3 else {}
    return {"color": OKABE_ITO[at % 7], "linestyle": LINES[at % len(LINES)], **marker}


def _whole_epochs(axes: Axes, epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.set_xlim(0.6, epochs + 0.4)
