"""Run folders as one tidy frame: a row for each run, model, epoch rule and protocol."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bdlf.config import Config
from bdlf.errors import InputError
from bdlf.runs.card import COSTS, ROWS, flat_rows
from bdlf.runs.identity import canonical, run_hash, run_id
from bdlf.runs.record import FIGURES, read_result
from bdlf.runs.selection import RULES

PROTOCOL = ["dataset", "mode", "shots", "direction", "gallery", "reading", "similarity", "feature", "flip"]
"""What of the card says how a row was scored."""

VARIANTS = {
    # DFE, app, orth, skd
    (False, False, False, False): "baseline",
    (True, False, False, False): "dfe",
    (True, True, False, False): "dfe_app",
    (True, False, False, True): "dfe_skd",
    (False, True, True, True): "app_orth_skd",
    (True, True, False, True): "dfe_app_skd",
    (True, True, True, True): "full",
}
"""Rows of Table 2 by what is switched on."""
_PASSED_OVER = re.compile(r"evaluations|wandb|checkpoints|.*\.old\d+")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclasses.dataclass(frozen=True)
class Gathered:
    """What lies below some folders."""

    frame: pd.DataFrame
    """A row for each run x model x selection x protocol: `path`, `group` (a hash of the configuration less seed and
    split), `family`, `variant` (of what is switched on; '' where Table 2 has no such row), `stage`, `blocks`, `seed`,
    the card, figures in percent, their std over trials, and costs. `per_query` is the row's number in the run's
    `per_query.npz`."""
    unfinished: pd.DataFrame
    """A row for each run without a usable result: `path`, `group`, `family`, `variant`, `stage`, `blocks`, `seed`,
    `split`, `epochs` done, and `state`: unfinished | unreadable."""
    families: dict[str, dict[str, Any]]
    """What the runs of a family have in common: their configuration less variant, stage, blocks, seed and split."""
    problems: list[str]
    """A line for each folder that could not be read."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run whose configuration could be read."""

    axes: dict[str, Any]
    """Where it stands."""
    common: dict[str, Any]
    """What its family has in common."""
    rows: list[dict[str, Any]] | None = None
    """Of its result, with costs; None where there is none that can be used."""
    problem: str = ""
    """Why its result cannot be used; '' where it is only unfinished."""


def gather(places: Iterable[str | Path]) -> Gathered:
    """Every run at or below `places`: folders with a `config.yaml`, or `wandb:ENTITY/PROJECT`.

    Runs that cannot be read, of another version, or that claim another's run id are left out and named in `problems`,
    and so are places without a run beside others. Raises InputError where a place is no folder or project, or where
    none has a run.
    """
    folders: dict[Path, None] = {}
    entries: dict[str, Entry | str] = {}
    empty: list[str] = []
    for place in places:
        if str(place).startswith("wandb:"):
            entries |= _of_project(str(place))
            continue
        if not Path(place).is_dir():
            raise InputError(f"{place} is no folder; name the output folder of runs, like outputs")
        found = [Path(top) for top in _folders(Path(place))]
        if not found:
            empty.append(f"{place} holds no run folder (one with a config.yaml); name the output folder of runs")
        folders.update(dict.fromkeys(path.resolve() for path in found))
    if empty and not folders and not entries:
        raise InputError("; ".join(empty))
    with ThreadPoolExecutor(8) as pool:
        entries |= {str(path): entry for path, entry in zip(folders, pool.map(_read, folders), strict=True)}
    rows: list[dict[str, Any]] = []
    unfinished: list[dict[str, Any]] = []
    families: dict[str, dict[str, Any]] = {}
    problems = [*empty, *(entry for _, entry in sorted(entries.items()) if isinstance(entry, str))]
    owner: dict[str, str] = {}
    runs = [entry for entry in entries.values() if isinstance(entry, Entry)]
    for entry in sorted(runs, key=lambda run: (run.rows is None, run.axes["path"])):  # a copy with a result wins
        axes, path = entry.axes, entry.axes["path"]
        if axes["run_id"] in owner:
            problems.append(f"{path} claims run {axes['run_id']} as {owner[axes['run_id']]} does: left out; remove one")
            continue
        owner[axes["run_id"]] = path
        families[axes["family"]] = entry.common
        if entry.rows is None:
            unfinished.append({**axes, "state": "unreadable" if entry.problem else "unfinished"})
            problems += [entry.problem] if entry.problem else []
        else:
            rows += [{**axes, **row, "per_query": index} for index, row in enumerate(entry.rows)]
    frame = pd.DataFrame(rows)
    if rows:
        frame["shots"] = frame["shots"].astype("Int64")
        frame["split"] = frame["split"].astype("Int64")
    return Gathered(frame, pd.DataFrame(unfinished), families, problems)


def _folders(place: Path) -> Iterable[str]:
    for top, inner, files in os.walk(place):
        inner[:] = [name for name in inner if not _PASSED_OVER.fullmatch(name)]
        if "config.yaml" in files or {"result.json", "metrics.csv"} <= {*files}:  # a run, or one that lost its config
            yield top
            inner.clear()


def _read(path: Path) -> Entry | str:
    """A run folder; or why it is none that can be read."""
    try:
        config = _config(path / "config.yaml")
        axes, common = _axes(config, str(path))
    except _DAMAGE as error:
        return _complaint(path, error)
    try:
        if not (path / "result.json").is_file():
            table = path / "metrics.csv"
            axes["epochs"] = max(0, len(table.read_text().splitlines()) - 1) if table.is_file() else 0
            return Entry(axes, common)
        result = read_result(path / "result.json")
        if result["run_id"] != axes["run_id"]:
            raise InputError(
                f"{path}: result.json is of run {result['run_id']}, its config.yaml of {axes['run_id']}: left out; "
                "restore the one that was changed"
            )
        return Entry(axes, common, _rows(flat_rows(result), result))
    except _DAMAGE as error:
        return Entry({**axes, "epochs": None}, common, problem=_complaint(path, error))


_DAMAGE = (InputError, KeyError, TypeError, AttributeError, OSError, ValueError)
"""What reading a damaged file raises."""


def _complaint(path: str | Path, error: Exception) -> str:
    if isinstance(error, OSError):
        text = f"{Path(error.filename or path).name}: {error.strerror or error}"
    else:
        text = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
    return text if str(path) in text else f"{path} cannot be read ({text}): left out; restore it or move it away"


def _rows(rows: list[dict[str, Any]], costs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with their costs, once all that tables are made of is there; raises InputError where it is not."""
    if not rows:
        raise InputError("its result has no row")
    for row in rows:
        for key in (*PROTOCOL, "split", "model", "epoch", "selection"):
            if key not in row:
                raise InputError(f"a row of its result has no '{key}'")
        if row["selection"] not in RULES:
            raise InputError(f"unknown selection '{row['selection']}'; known: {', '.join(RULES)}")
        wrong = [name for name in FIGURES if not _is_number(row[name])]
        wrong += [name for name in COSTS if costs.get(name) is not None and not _is_number(costs.get(name))]
        if wrong:
            raise InputError(f"'{wrong[0]}' of its result is no number")
    return [{"fingerprint": "", **row, **{name: costs.get(name) for name in COSTS}} for row in rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _of_project(place: str) -> dict[str, Entry | str]:
    """The runs of a W&B project, from their configuration and summary; there are no figures of single queries."""
    import wandb

    name = place.removeprefix("wandb:")
    try:
        runs = list(wandb.Api().runs(name))
    except Exception as error:  # whatever W&B raises
        text = " ".join(str(error).split())
        raise InputError(f"the W&B project {name} cannot be read ({text}); log in, or name ENTITY/PROJECT") from error
    if not runs:
        raise InputError(f"the W&B project {name} holds no run")
    entries: dict[str, Entry | str] = {}
    for run in runs:
        path = f"{place}/{run.id}"
        try:
            config = Config()
            _fill(config, {key: value for key, value in run.config.items() if not key.startswith("_")}, Path(path))
            axes, common = _axes(config, path)
            summary = dict(run.summary)
            if ROWS not in summary:
                entries[path] = Entry({**axes, "epochs": int(summary.get("epoch", -1)) + 1}, common)
            else:
                entries[path] = Entry(axes, common, _rows(json.loads(summary[ROWS]), summary))
        except _DAMAGE as error:
            entries[path] = _complaint(path, error)
    return entries


def _axes(config: Config, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    common = _family(config)
    for name, value in {"seed": config.seed, "dfe.stage": config.dfe.stage, "dfe.blocks": config.dfe.blocks}.items():
        if not isinstance(value, int):
            raise InputError(f"{path} has {name}={value}, which is no whole number; restore its config.yaml")
    identifier, split = run_id(config), None
    group = identifier.partition("-")[0]
    if config.dataset.name == "regdb":
        split = config.dataset.split
        group = run_hash(replace(config, dataset=replace(config.dataset, split=1)))
    axes = {
        "path": path,
        "run_id": identifier,
        "group": group,
        "family": json.dumps(common, sort_keys=True),
        "dataset": config.dataset.name,
        "variant": _variant(config),
        "stage": config.dfe.stage,
        "blocks": config.dfe.blocks,
        "seed": config.seed,
        "split": split,
    }
    return axes, common


def _config(path: Path) -> Config:
    """As `read_config`, without the checks that take OmegaConf long: a thousand of them are read at once."""
    text = path.read_text()
    if "${" in text:
        raise InputError(f"{path} holds an interpolation (${{...}}); a run's config.yaml is plain data: restore it")
    try:
        tree = yaml.load(text, _LOADER)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not the configuration of a run ({str(error).splitlines()[0]})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not the configuration of a run")
    config = Config()
    _fill(config, tree, path)
    return config


def _fill(node: Any, tree: dict[str, Any], path: Path) -> None:
    for name, value in tree.items():
        if not hasattr(node, name):
            raise InputError(f"{path} has the unknown key '{name}': it is of another version of bdlf; left out")
        if dataclasses.is_dataclass(getattr(node, name)):
            if not isinstance(value, dict):
                raise InputError(f"{path} has {name}: {value} where a group of keys belongs; restore it")
            _fill(getattr(node, name), value, path)
        else:
            setattr(node, name, value)


def _variant(config: Config) -> str:
    loss = config.loss
    switches = (config.dfe.enabled, bool(loss.app.enabled), bool(loss.orth.enabled), bool(loss.skd.enabled))
    return VARIANTS.get(switches, "")


def _family(config: Config) -> dict[str, Any]:
    """The canonical configuration with variant, stage, blocks and split put back to where all runs are the same."""
    on = {name: replace(getattr(config.loss, name), enabled=True) for name in ("app", "orth", "skd")}
    same = replace(
        config,
        dfe=replace(config.dfe, enabled=True, stage=3, blocks=6),
        loss=replace(config.loss, **on),
        dataset=replace(config.dataset, split=1),
    )
    return canonical(same)
