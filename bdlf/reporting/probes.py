"""The rows of Table 2 with what linear probes found in the features of their runs: which term moves which probe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from scipy.special import stdtrit

from bdlf.reporting.families import TABLES
from bdlf.reporting.gather import Gathered
from bdlf.reporting.parts import Part, parts_of
from bdlf.runs.probes import NAME, read_probes
from bdlf.system.errors import InputError

FORMATS = ("md", "csv")
TARGETS = {
    ("modality", "modality"): "Modality, balanced accuracy in percent (chance 50)",
    ("retrieval", "mAP"): "The person in the other modality, mAP in percent",
    ("shared", "all"): "Factors that both modalities show (0 is chance, 100 perfect)",
    ("specific", "all"): "Factors that only one modality shows (0 is chance, 100 perfect)",
    ("nuisance", "all"): "Factors of the image or camera (0 is chance, 100 perfect)",
    ("camera", "all"): "Camera within a modality (0 is chance, 100 perfect)",
}
"""Group and target of each table, and its title."""
_CONTROLS = ("pixels", "factors")
"""Features that are the same in every row, and therefore not shown."""
_BASE = TABLES["table2"].reference


def probes_text(gathered: Gathered, form: str) -> tuple[str, list[str]]:
    """The tables in the format `form`, one of `FORMATS`, and a line for each run that has no usable probes.

    Figures are means over runs, behind them the standard deviation over runs. Raises InputError for another format, and
    if no run of Table 2 has been probed.
    """
    if form not in FORMATS:
        raise InputError(f"format={form}: table=probes is written as {' or '.join(FORMATS)}")
    texts: list[str] = []
    problems: list[str] = []
    for part in _parts(gathered):
        rows = _probed(part, problems)
        if len(rows):
            texts.append(_csv(rows) if form == "csv" else _markdown(part, rows))
    if not texts:
        why = f" ({problems[0]})" if problems else ""
        raise InputError(f"no run of Table 2 has been probed: python -m bdlf.probe run=FOLDER does so{why}")
    return "\n".join(texts), problems


def _parts(gathered: Gathered) -> Iterator[Part]:
    """One part for each family and set of images: probes do not depend on the direction in which a run is scored."""
    seen: set[tuple[int, int]] = set()
    for part in parts_of(gathered, TABLES["table2"]):
        key = (id(part.family), part.images)
        if key not in seen:
            seen.add(key)
            yield part


def _probed(part: Part, problems: list[str]) -> pd.DataFrame:
    """The rows of the runs' `probes.json`, with the `row` of Table 2 and the `path` of the run."""
    found = []
    for run in part.runs.drop_duplicates("path").to_dict("records"):
        file = Path(run["path"]) / NAME
        if not file.is_file():
            problems.append(f"{run['path']} has no {NAME}: python -m bdlf.probe run={run['path']}")
            continue
        try:
            probes = read_probes(file)
        except InputError as error:
            problems.append(str(error))
            continue
        if probes.get("run_id") != run["run_id"]:
            problems.append(f"{file} is of run {probes.get('run_id')}, not {run['run_id']}: probe the run again")
            continue
        found.append(pd.DataFrame(probes["rows"]).assign(row=run["row"], path=run["path"]))
    probed: pd.DataFrame = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    return probed


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, std, number of runs and the 95 % interval over runs, by row, group, target and feature."""
    means = rows.groupby(["row", "group", "target", "feature"], sort=False)["score"].agg(["mean", "std", "count"])
    half = [
        float(stdtrit(count - 1, 0.975)) * std / math.sqrt(count) if count > 1 else math.nan
        for std, count in zip(means["std"], means["count"], strict=True)
    ]
    found: pd.DataFrame = means.assign(low=means["mean"] - half, high=means["mean"] + half)
    return found


def _csv(rows: pd.DataFrame) -> str:
    return str(_means(rows).reset_index().to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def _markdown(part: Part, rows: pd.DataFrame) -> str:
    means = _means(rows)
    names = [name for name in part.family.rows if name in set(rows["row"])]
    features = [name for name in dict.fromkeys(rows["feature"]) if name not in _CONTROLS]
    title = f"Probes of the rows of Table 2: {part.card['dataset']}"
    lines = [title, "-" * len(title), ""]
    for (group, target), heading in TARGETS.items():
        if (group, target) not in set(zip(rows["group"], rows["target"], strict=True)):
            continue
        table = [["row", "runs", *features]]
        for name in names:
            runs = int(rows[rows["row"] == name]["path"].nunique())
            table.append([name, str(runs), *(_cell(means, (name, group, target, one)) for one in features)])
        kept = [column for column in range(len(table[0])) if any(line[column] != "-" for line in table[1:])]
        lines += [f"{heading}:", "", *_aligned([[line[column] for column in kept] for line in table]), ""]
    lines.append(
        "- Means over runs ± standard deviation over runs. Differences are Z_B minus a detail feature, in points."
    )
    lines.append(f"- A term moves a probe where a row differs from {_BASE} by more than the runs of one row do.")
    return "\n".join([*lines, ""])


def _cell(means: pd.DataFrame, key: tuple[str, str, str, str]) -> str:
    if key not in means.index:
        return "-"
    line = means.index.get_loc(key)
    mean, std, count = (means[name].to_numpy()[line] for name in ("mean", "std", "count"))
    return f"{mean:.1f}" + (f" ±{std:.1f}" if count > 1 else "")


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "| " + " | ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in pairs) + " |"
        for pairs in (list(enumerate(zip(line, widths, strict=True))) for line in table)
    ]
    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]
