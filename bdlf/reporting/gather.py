"""Run folders as one tidy frame: a row for each run, model, epoch rule and protocol."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bdlf.config import Config
from bdlf.errors import InputError
from bdlf.runs.card import COSTS, ROWS, flat_rows
from bdlf.runs.identity import canonical, run_id
from bdlf.runs.record import read_result

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
    """A row for each run x model x selection x protocol: `path`, `family`, `variant` (of what is switched on; '' where
    Table 2 has no such row), `stage`, `blocks`, `seed`, the card, figures in percent, their std over trials, and
    costs. `per_query` is the row's number in the run's `per_query.npz`."""
    unfinished: pd.DataFrame
    """A row for each run without a result: `path`, `family`, `variant`, `stage`, `blocks`, `seed`, `epochs` done."""
    families: dict[str, dict[str, Any]]
    """What the runs of a family have in common: their configuration less variant, stage, blocks, seed and split."""
    problems: list[str]
    """A line for each folder that could not be read."""


Entry = tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]] | None]
"""Where a run stands, what its family has in common, and its rows with their costs; None where it has no result."""


def gather(places: Iterable[str | Path]) -> Gathered:
    """Every run at or below `places`: folders with a `config.yaml`, or `wandb:ENTITY/PROJECT`.

    Runs that cannot be read, of another version, or that claim another's run id are left out and named in `problems`.
    Raises InputError where a place is no folder or project, or has no run.
    """
    folders: dict[Path, None] = {}
    entries: dict[str, Entry | str] = {}
    for place in places:
        if str(place).startswith("wandb:"):
            entries |= _of_project(str(place))
            continue
        if not Path(place).is_dir():
            raise InputError(f"{place} is no folder; name the output folder of runs, like outputs")
        found = [Path(top) for top in _folders(Path(place))]
        if not found:
            raise InputError(f"{place} holds no run folder (one with a config.yaml); name the output folder of runs")
        folders.update(dict.fromkeys(path.resolve() for path in found))
    with ThreadPoolExecutor(8) as pool:
        entries |= {str(path): entry for path, entry in zip(folders, pool.map(_read, folders), strict=True)}
    rows: list[dict[str, Any]] = []
    unfinished: list[dict[str, Any]] = []
    families: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    owner: dict[str, str] = {}
    for path, entry in sorted(entries.items()):
        if isinstance(entry, str):
            problems.append(entry)
            continue
        axes, common, own = entry
        if axes["run_id"] in owner:
            problems.append(f"{path} claims run {axes['run_id']} as {owner[axes['run_id']]} does: left out; remove one")
            continue
        owner[axes["run_id"]] = path
        families[axes["family"]] = common
        if own is None:
            unfinished.append(axes)
        else:
            rows += [{**axes, **row, "per_query": index} for index, row in enumerate(own)]
    frame = pd.DataFrame(rows)
    if rows:
        frame["shots"] = frame["shots"].astype("Int64")
        frame["split"] = frame["split"].astype("Int64")
    return Gathered(frame, pd.DataFrame(unfinished), families, problems)


def _folders(place: Path) -> Iterable[str]:
    for top, inner, files in os.walk(place):
        inner[:] = [name for name in inner if not _PASSED_OVER.fullmatch(name)]
        if "config.yaml" in files:
            yield top
            inner.clear()


def _read(path: Path) -> Entry | str:
    """A run folder; or why it cannot be read."""
    try:
        config = _config(path / "config.yaml")
        axes, common = _axes(config, str(path))
        if not (path / "result.json").is_file():
            table = path / "metrics.csv"
            axes["epochs"] = max(0, len(table.read_text().splitlines()) - 1) if table.is_file() else 0
            return axes, common, None
        result = read_result(path / "result.json")
        if result["run_id"] != axes["run_id"]:
            return f"{path}: result.json is of run {result['run_id']}, its config.yaml of {axes['run_id']}: left out"
        costs = {name: result.get(name) for name in COSTS}
        return axes, common, [{**row, **costs} for row in flat_rows(result)]
    except (InputError, KeyError, TypeError, AttributeError, OSError, ValueError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return text if str(path) in text else f"{path} cannot be read ({text}): left out"


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
                entries[path] = ({**axes, "epochs": int(summary.get("epoch", -1)) + 1}, common, None)
                continue
            costs = {name: summary.get(name) for name in COSTS}
            entries[path] = (axes, common, [{**row, **costs} for row in json.loads(summary[ROWS])])
        except (InputError, KeyError, TypeError, AttributeError, ValueError) as error:
            entries[path] = f"{path} cannot be read ({error}): left out"
    return entries


def _axes(config: Config, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    common = _family(config)
    axes = {
        "path": path,
        "run_id": run_id(config),
        "family": json.dumps(common, sort_keys=True),
        "dataset": config.dataset.name,
        "variant": _variant(config),
        "stage": config.dfe.stage,
        "blocks": config.dfe.blocks,
        "seed": config.seed,
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
        if dataclasses.is_dataclass(getattr(node, name)) and isinstance(value, dict):
            _fill(getattr(node, name), value, path)
        else:
            setattr(node, name, value)


def _variant(config: Config) -> str:
    loss = config.loss
    switches = (config.dfe.enabled, bool(loss.app.enabled), bool(loss.orth.enabled), bool(loss.skd.enabled))
    return VARIANTS.get(switches, "")


def _family(config: Config) -> dict[str, Any]:
    """The canonical configuration with variant, stage, blocks and split put back to where all runs are the same."""
    same = copy.deepcopy(config)
    same.dfe.enabled = same.loss.app.enabled = same.loss.orth.enabled = same.loss.skd.enabled = True
    same.dfe.stage, same.dfe.blocks, same.dataset.split = 3, 6, 1
    return canonical(same)
