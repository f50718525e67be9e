"""Decides what a run is called in Weights & Biases: its id, name, group, project, tags, and the sweep it belongs to."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdlf.active import flat, in_use, method_name
from bdlf.config import Config
from bdlf.runs.identity import run_group
from bdlf.system.errors import InputError
from bdlf.system.files import write_text

log = logging.getLogger(__name__)

MODES = ("offline", "online", "disabled", "shared", "dryrun", "run")
"""The values of WANDB_MODE that W&B knows. `dryrun` and `run` are its old names of `offline` and `online`."""
DEFAULT_PROJECT = "bdlf"
"""The project in W&B if neither an option, nor the environment, nor the run's record names another."""
OF_ONE_RUN = (
    *("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"),
    *("WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM"),
)
"""Environment variables that say which W&B run a process is. W&B obeys some of them rather than `wandb.init`."""

_trials: dict[str, str] = {}  # from the id of an agent's trial to the id of our run that is this trial


@dataclass(frozen=True)
class WandbRun:
    """What `wandb.init` is told about a run.

    `sweep` is the id of the W&B sweep whose agent started the run; None if no agent did.
    """

    id: str
    name: str
    group: str
    project: str
    entity: str | None
    tags: list[str]
    sweep: str | None = None


def wandb_mode() -> str:
    """The value of WANDB_MODE, or `offline` if it is not set. Raises InputError for a mode that W&B does not know."""
    mode = os.environ.get("WANDB_MODE") or "offline"
    if mode not in MODES:
        raise InputError(f"WANDB_MODE={mode} is not known; known: {', '.join(MODES)}")
    return mode


def started_run(config: Config, folder: Path, facts: Mapping[str, Any], *, resumed: bool) -> WandbRun:
    """What a run that trains now is in W&B; `facts` holds its `run_id`, `label` and `dataset`.

    An option (`tracker.project`, `tracker.entity`) beats the environment. The environment beats the record in the
    folder of a `resumed` run. The record beats the default.

    The id is `run_id`, unless a W&B agent started this process for a trial. In a sweep W&B accepts only the id that the
    agent has chosen, so the run then takes the id, project and entity of the trial. Jobs of a Hydra sweep, and the
    second run of a process, never take them, because two runs must not share an id.
    """
    environment = {key: value for key, value in os.environ.items() if value}
    record = recorded_run(folder) if resumed else None
    run = _described(config, facts, environment, record)
    trial = _trial(facts["run_id"], environment)
    if trial is None:
        return run
    place = {key: environment.get(f"WANDB_{key.upper()}", getattr(run, key)) for key in ("project", "entity")}
    for key, value in place.items():
        asked = getattr(config.tracker, key)
        if asked is not None and asked != value:
            log.warning("tracker.%s=%s: the run goes to the W&B agent's %s %s", key, asked, key, value)
    return dataclasses.replace(run, id=trial[0], sweep=trial[1], **place)


def rebuilt_run(config: Config, folder: Path, facts: Mapping[str, Any]) -> WandbRun:
    """What a run that is rebuilt from its folder is in W&B: what the folder records, or else the defaults.

    Of the environment only WANDB_PROJECT and WANDB_ENTITY count. The other variables are meant for a run that trains
    in this environment.
    """
    variables = ("WANDB_PROJECT", "WANDB_ENTITY")
    environment = {name: os.environ[name] for name in variables if os.environ.get(name)}
    return _described(config, facts, environment, recorded_run(folder))


def _described(
    config: Config, facts: Mapping[str, Any], environment: Mapping[str, str], record: WandbRun | None
) -> WandbRun:
    used = in_use(flat(config))
    split = f"-split{used['dataset.split']}" if "dataset.split" in used else ""
    run = record or WandbRun(
        id=facts["run_id"],
        name=f"{facts['label']}{split}-seed{config.seed}",
        group=run_group(config, facts["label"]),
        project=DEFAULT_PROJECT,
        entity=None,
        tags=_tags(config, facts["dataset"]),
    )
    keys = {"name": "NAME", "group": "RUN_GROUP", "project": "PROJECT", "entity": "ENTITY"}
    said: dict[str, Any] = {key: environment.get(f"WANDB_{name}") for key, name in keys.items()}
    said["tags"] = [tag.strip() for tag in environment.get("WANDB_TAGS", "").split(",") if tag.strip()]
    said |= {key: getattr(config.tracker, key) or said[key] for key in ("project", "entity")}
    described = dataclasses.replace(run, **{key: value for key, value in said.items() if value})
    if (described.project, described.entity) != (run.project, run.entity):  # no sweep reaches into another project
        described = dataclasses.replace(described, id=facts["run_id"], sweep=None)
    return described


def _tags(config: Config, dataset: str) -> list[str]:
    values = flat(config)
    used = in_use(values)
    tags = [dataset, method_name(values)]
    tags += [f"{name}{used[f'dfe.{name}']}" for name in ("stage", "blocks") if f"dfe.{name}" in used]
    return tags + ([config.sweep] if config.sweep != Config.sweep else [])


def _trial(run_id: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The id and the sweep of the trial that the run `run_id` is.

    None if no W&B agent started this process, if the process runs the jobs of a Hydra sweep, or if an earlier run of
    the process was the trial.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not {"WANDB_RUN_ID", "WANDB_SWEEP_ID"} <= set(environment):
        return None
    name, sweep = environment["WANDB_RUN_ID"], environment["WANDB_SWEEP_ID"]
    several = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if several or _trials.setdefault(name, run_id) != run_id:
        log.warning(
            "the W&B agent's trial %s is one run, this process has several: %s is no part of the sweep %s",
            *(name, run_id, sweep),
        )
        return None
    return name, sweep


def is_trial(run_id: str) -> bool:
    """Whether a W&B agent has started this process for a trial, and the run `run_id` is this trial."""
    return _trial(run_id, {key: value for key, value in os.environ.items() if value}) is not None


def record_run(folder: Path, run: WandbRun) -> None:
    """Record in `<folder>/wandb/run.json` what the run in `folder` is in W&B."""
    file = _record(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(dataclasses.asdict(run), indent=1))


def recorded_run(folder: Path) -> WandbRun | None:
    """What `record_run` has recorded, or None if there is no record. Raises InputError if the file is damaged."""
    file = _record(folder)
    try:
        return WandbRun(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); remove it: the run gets its own id in W&B then") from error


def _record(folder: Path) -> Path:
    return folder / "wandb" / "run.json"
