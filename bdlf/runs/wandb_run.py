"""What a run is in Weights & Biases: its id, its names, its project, and the agent's sweep that it may belong to."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdlf.active import components, flat, in_use, variant_name
from bdlf.config import Config
from bdlf.runs.identity import run_group
from bdlf.system.errors import InputError
from bdlf.system.files import write_text

log = logging.getLogger(__name__)

MODES = ("offline", "online", "disabled", "shared", "dryrun", "run")
"""What W&B knows as WANDB_MODE; `dryrun` and `run` are old names of `offline` and `online`."""
DEFAULT_PROJECT = "bdlf"
OF_ONE_RUN = (
    *("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"),
    *("WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM"),
)
"""Variables with which the environment says which W&B run this process is. W&B prefers some of them to `init`."""

_trials: dict[str, str] = {}  # agent's id -> the id of the run of this process that has taken it


@dataclass(frozen=True)
class WandbRun:
    """What `wandb.init` is told about a run. `sweep` is the id of the W&B sweep whose agent started the run."""

    id: str
    name: str
    group: str
    project: str
    entity: str | None
    tags: list[str]
    sweep: str | None = None


def wandb_mode() -> str:
    """WANDB_MODE, `offline` where it is not set. Raises InputError for a mode that W&B does not know."""
    mode = os.environ.get("WANDB_MODE") or "offline"
    if mode not in MODES:
        raise InputError(f"WANDB_MODE={mode} is not known; known: {', '.join(MODES)}")
    return mode


def started_run(config: Config, folder: Path, facts: Mapping[str, Any], *, resumed: bool) -> WandbRun:
    """What a run that trains now is in W&B; `facts` holds its `run_id`, `label` and `dataset`.

    An option beats the environment, the environment beats what the folder of a `resumed` run records, and the record
    beats the default. The id is `run_id`, except where a W&B agent started this process for a trial: W&B accepts no
    other id than the agent's in a sweep, so the run takes the id, project and entity of the trial. Jobs of a Hydra
    sweep, and the second run of a process, are never the trial: two runs must not share an id.
    """
    environment = {key: value for key, value in os.environ.items() if value}
    record = recorded_run(folder) if resumed else None
    run = _described(config, facts, environment, record)
    trial = _trial(facts["run_id"], environment)
    if trial is not None:
        asked = {key: value for key in ("project", "entity") if (value := getattr(config.tracker, key)) is not None}
        place = {key: environment.get(f"WANDB_{key.upper()}", getattr(run, key)) for key in ("project", "entity")}
        for key, value in asked.items():
            if place[key] != value:
                log.warning("tracker.%s=%s: the run goes to the W&B agent's %s %s", key, value, key, place[key])
        return dataclasses.replace(run, id=trial[0], sweep=trial[1], **place)
    return run


def rebuilt_run(config: Config, folder: Path, facts: Mapping[str, Any]) -> WandbRun:
    """What a run that is rebuilt from its folder is in W&B: what the folder records, or else the defaults.

    Of the environment, only the project and the entity count: the other variables are about a run that trains now.
    """
    environment = {key: value for key in ("WANDB_PROJECT", "WANDB_ENTITY") if (value := os.environ.get(key))}
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
    if (described.project, described.entity) != (run.project, run.entity):  # a sweep, and its ids, are of one project
        described = dataclasses.replace(described, id=facts["run_id"], sweep=None)
    return described


def _tags(config: Config, dataset: str) -> list[str]:
    values = flat(config)
    used = in_use(values)
    tags = [dataset, variant_name(components(values))]
    tags += [f"{name}{used[f'dfe.{name}']}" for name in ("stage", "blocks") if f"dfe.{name}" in used]
    return tags + ([config.sweep] if config.sweep != Config.sweep else [])


def _trial(run_id: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The id and the sweep of the trial for which a W&B agent has started this process; None if there is none."""
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
    """Whether a W&B agent has started this process for a trial that is the run of this id."""
    return _trial(run_id, {key: value for key, value in os.environ.items() if value}) is not None


def record_run(folder: Path, run: WandbRun) -> None:
    """Write what the run in `folder` is in W&B to `<folder>/wandb/run.json`."""
    file = _record(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(dataclasses.asdict(run), indent=1))


def recorded_run(folder: Path) -> WandbRun | None:
    """What `record_run` wrote, None if it wrote nothing. Raises InputError where the file is damaged."""
    file = _record(folder)
    try:
        return WandbRun(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); remove it: the run gets its own id in W&B then") from error


def _record(folder: Path) -> Path:
    return folder / "wandb" / "run.json"
