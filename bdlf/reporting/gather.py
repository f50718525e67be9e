"""Reads run folders into one tidy frame: a row for each run, model, rule that chose the epoch, and protocol."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from bdlf.active import in_use, method_name
from bdlf.reporting.recorded import read_values, values_of
from bdlf.runs.card import COSTS, ROWS, flat_rows
from bdlf.runs.identity import dataset_name, values_hash
from bdlf.runs.record import FIGURES, images_of, read_result
from bdlf.runs.selection import RULES
from bdlf.system.errors import InputError

PROTOCOL = ["dataset", "mode", "shots", "direction", "gallery", "reading", "similarity", "feature", "flip"]
"""The columns of the card that say on what and how a row was scored."""
ORIGIN = ("commit", "dirty", "versions")
"""Columns that say which code computed a row."""
_PASSED_OVER = re.compile(r"evaluations|wandb|checkpoints|.*\.old\d+")  # names of folders that are not searched


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The runs below some folders."""

    frame: pd.DataFrame
    """A row for each combination of run, model, selection and protocol. Its columns are:

    - `path` and `run_id` of the run, and `seed`;
    - `group`, the hash of the run's configuration without seed and split;
    - `variant`, the name of the row of Table 2 whose components are on, or of another method;
    - `stage` and `blocks`, missing if the run does not use them;
    - the protocol card (`bdlf.runs.record.ROW_KEYS` among it), the figures in percent and their std over trials;
    - the costs, and `commit`, `dirty` and `versions` of the code that computed the row;
    - `per_query`, the number of the row in the run's `per_query.npz`.
    """
    unfinished: pd.DataFrame
    """A row for each run without a usable result: `path`, `run_id`, `group`, `dataset`, `variant`, `stage`, `blocks`,
    `seed`, `split`, `epochs` (how many are trained), and `state`, which is `unfinished` or `unreadable`."""
    configurations: dict[str, dict[str, Any]]
    """A flat configuration for every `group`: that of one of its runs, with the seed, split and names of that run."""
    problems: list[str]
    """A line for each run or folder that was left out."""

    @property
    def methods(self) -> set[str]:
        """The names of the methods of all runs."""
        return {values["method.name"] for values in self.configurations.values()}

    def with_configurations(self) -> pd.DataFrame:
        """The frame with a further column for every key of the configuration, empty for runs that do not use it."""
        used = {group: in_use(values) for group, values in self.configurations.items()}
        keys = list(dict.fromkeys(key for one in used.values() for key in one if key not in self.frame))
        columns = {key: [used[group].get(key) for group in self.frame["group"]] for key in keys}
        wide: pd.DataFrame = pd.concat([self.frame, pd.DataFrame(columns, index=self.frame.index)], axis=1)
        return wide


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run whose configuration could be read."""

    axes: dict[str, Any]
    """The columns that all rows of the run share: its path, id, group, dataset, variant, stage, blocks, seed, split."""
    values: dict[str, Any]
    """The flat configuration."""
    rows: list[dict[str, Any]] | None = None
    """The rows of the result, with costs; None if there is no usable result."""
    problem: str = ""
    """Why the result cannot be used; '' if it can, or if the run is merely unfinished."""


def gather(places: str | Path | Iterable[str | Path]) -> Gathered:
    """Every run at or below `places`, each of which is a folder or `wandb:ENTITY/PROJECT`.

    A run is a folder with a `config.yaml`. A run that cannot be read, that another version wrote, or that has the run
    id of another one is left out, and a line of `problems` names it. A line also names a place without a run.

    Raises InputError if a place is neither a folder nor a project, or if no place has a run.
    """
    folders: dict[Path, None] = {}
    found: dict[str, _Run | str] = {}
    empty: list[str] = []
    for place in [places] if isinstance(places, str | Path) else places:
        if str(place).startswith("wandb:"):
            found |= _of_project(str(place))
            continue
        if not Path(place).is_dir():
            raise InputError(f"{place} is no folder; name the output folder of runs, like outputs")
        below = [Path(top) for top in _folders(Path(place))]
        if not below:
            empty.append(f"{place} holds no run folder (one with a config.yaml); name the output folder of runs")
        folders.update(dict.fromkeys(path.resolve() for path in below))
    if empty and not folders and not found:
        raise InputError("; ".join(empty))
    with ThreadPoolExecutor(8) as pool:
        found |= {str(path): run for path, run in zip(folders, pool.map(_read, folders), strict=True)}
    return _collected(found, empty)


def _collected(found: Mapping[str, _Run | str], empty: list[str]) -> Gathered:
    rows: list[dict[str, Any]] = []
    unfinished: list[dict[str, Any]] = []
    configurations: dict[str, dict[str, Any]] = {}
    problems = [*empty, *(run for _, run in sorted(found.items()) if isinstance(run, str))]
    owner: dict[str, str] = {}  # from a run id to the path of the run that has it
    runs = [run for run in found.values() if isinstance(run, _Run)]
    runs.sort(key=lambda run: (run.rows is None, run.axes["path"]))  # of two copies, the one with a result counts
    for run in runs:
        axes, path = run.axes, run.axes["path"]
        if axes["run_id"] in owner:
            claim = f"{path} claims run {axes['run_id']} as {owner[axes['run_id']]} does: left out; move one away"
            problems.append(run.problem or claim)
            continue
        owner[axes["run_id"]] = path
        configurations.setdefault(axes["group"], run.values)
        if run.rows is None:
            unfinished.append({**axes, "state": "unreadable" if run.problem else "unfinished"})
            problems += [run.problem] if run.problem else []
        else:
            rows += [{**axes, **row, "per_query": index} for index, row in enumerate(run.rows)]
    frame = pd.DataFrame(rows)
    for name in ("shots", "split", "stage", "blocks"):
        if name in frame:
            frame[name] = frame[name].astype("Int64")
    return Gathered(frame, pd.DataFrame(unfinished), configurations, problems)


def _folders(place: Path) -> Iterable[str]:
    for top, inner, files in os.walk(place):
        inner[:] = [name for name in inner if not _PASSED_OVER.fullmatch(name)]
        if "config.yaml" in files or {"result.json", "metrics.csv"} <= {*files}:  # the latter has lost its config
            yield top
            inner.clear()


def _read(path: Path) -> _Run | str:
    """The run in the folder `path`, or the line that says why the folder cannot be read."""
    try:
        values = read_values(path / "config.yaml")
        axes = _axes(values, str(path))
    except _DAMAGE as error:
        return _complaint(path, error)
    try:
        if not (path / "result.json").is_file():
            table = path / "metrics.csv"
            axes["epochs"] = max(0, len(table.read_text().splitlines()) - 1) if table.is_file() else 0
            return _Run(axes, values)
        result = read_result(path / "result.json")
        if result["run_id"] != axes["run_id"]:
            raise InputError(
                f"{path}: result.json is of run {result['run_id']}, its config.yaml of {axes['run_id']}: left out; "
                "restore the one that was changed"
            )
        return _Run(axes, values, _rows(flat_rows(result), result))
    except _DAMAGE as error:
        return _Run({**axes, "epochs": None}, values, problem=_complaint(path, error))


_DAMAGE = (InputError, KeyError, TypeError, AttributeError, OSError, ValueError)
"""The errors that reading a damaged file may raise."""


def _complaint(path: str | Path, error: Exception) -> str:
    if isinstance(error, OSError):
        text = f"{Path(error.filename or path).name}: {error.strerror or error}"
    else:
        text = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
    return text if str(path) in text else f"{path} cannot be read ({text}): left out; restore it or move it away"


def _rows(rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The flat rows of a result with the costs added. Raises InputError if they lack something that tables need."""
    if not rows:
        raise InputError("its result has no row")
    for row in rows:
        for key in (*PROTOCOL, "split", "model", "epoch", "selection"):
            if key not in row:
                raise InputError(f"a row of its result has no '{key}'")
        if row["selection"] not in RULES:
            raise InputError(f"unknown selection '{row['selection']}'; known: {', '.join(RULES)}")
        wrong = [name for name in FIGURES if not _is_number(row[name])]
        wrong += [name for name in COSTS if facts.get(name) is not None and not _is_number(facts.get(name))]
        if wrong:
            raise InputError(f"'{wrong[0]}' of its result is no number")
    costs = {name: facts.get(name) for name in COSTS}
    blank = {"fingerprint": "", "trained_identities": None, **dict.fromkeys(ORIGIN)}
    return [{**blank, **row, "fingerprint": images_of(row.get("fingerprint") or ""), **costs} for row in rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _of_project(place: str) -> dict[str, _Run | str]:
    """The runs of a W&B project, read from their configuration and summary. W&B has no figures of single queries."""
    import wandb

    name = place.removeprefix("wandb:")
    try:
        runs = list(wandb.Api().runs(name))
    except Exception as error:  # W&B may raise anything
        text = " ".join(str(error).split())
        raise InputError(f"the W&B project {name} cannot be read ({text}); log in, or name ENTITY/PROJECT") from error
    if not runs:
        raise InputError(f"the W&B project {name} holds no run")
    found: dict[str, _Run | str] = {}
    for run in runs:
        path = f"{place}/{run.id}"
        try:
            values = values_of({key: value for key, value in run.config.items() if not key.startswith("_")}, path)
            axes = _axes(values, path)
            summary = dict(run.summary)
            if ROWS not in summary:
                found[path] = _Run({**axes, "epochs": int(summary.get("epoch", -1)) + 1}, values)
            else:
                found[path] = _Run(axes, values, _rows(json.loads(summary[ROWS]), summary))
        except _DAMAGE as error:
            found[path] = _complaint(path, error)
    return found


def _axes(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    used = in_use(values)
    return {
        "path": path,
        "run_id": f"{values_hash(values)}-seed{values['seed']}",
        "group": values_hash(values, without_split=True),
        "dataset": dataset_name(values),
        "variant": method_name(values),
        "stage": used.get("dfe.stage"),
        "blocks": used.get("dfe.blocks"),
        "seed": values["seed"],
        "split": used.get("dataset.split"),
    }
