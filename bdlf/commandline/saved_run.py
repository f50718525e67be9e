"""`from_run=FOLDER`: start the configuration that a run has saved, with what the command line changes.

The saved values take the place of the command's defaults, and no group has an option. So Hydra composes as ever: a
group or a key on the command line, in a sweep file or in an own file of options wins over the saved values.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from bdlf.config import config_folder
from bdlf.system.errors import InputError

PRIMARY = "from_run"
"""The name under which Hydra finds the configuration of `store`."""
_OF_THE_CALL = ("sweep", "dry_run", "rerun", "debug")
"""Keys that say what one call of the command did, not what the run is."""


def folder_of(words: list[str]) -> Path | None:
    """The folder that `from_run=` names among the words of a command line, the last of several. None without it.

    Raises `InputError` where it is none of a run, and where there are several.
    """
    given = [word for word in words if re.match(r"\+{0,2}from_run=", word)]
    if not given:
        return None
    try:
        parsed = OverridesParser.create().parse_override(given[-1])
        value = None if parsed.is_sweep_override() else parsed.value()
    except HydraException:
        return None  # Hydra says what is wrong with the word
    if parsed.is_sweep_override():
        raise InputError(f"{given[-1]}: one run folder is needed; start a command of its own for each")
    if value is None:
        return None
    folder = Path(str(value)).expanduser()
    if not (folder / "config.yaml").is_file():
        raise InputError(
            f"from_run={value}: there is no {folder / 'config.yaml'}; from_run= takes a run folder, like "
            "outputs/synthetic/full-1a2b3c4d/seed0"
        )
    return folder


def store(folder: Path) -> None:
    """Give Hydra the configuration of the run in `folder` as the primary one named `PRIMARY`.

    The run's output is the folder that holds it now, so that the same run is found there also from another working
    directory. Raises `InputError` where the run's `config.yaml` cannot be read.
    """
    from bdlf.runs.folder import read_config

    saved: dict[str, Any] = dataclasses.asdict(read_config(folder / "config.yaml"))
    for key in _OF_THE_CALL:
        del saved[key]
    place = Path(os.path.abspath(folder))  # without `..`; a link stays, as the run was named by it
    if re.fullmatch(r"seed-?\d+", place.name) and re.search(r"-[0-9a-f]{8}$", place.parent.name):
        saved["output"] = str(place.parents[2])
    command = yaml.safe_load((config_folder("conf") / "config.yaml").read_text())
    defaults = [_without_option(entry) for entry in command["defaults"]]
    node = OmegaConf.create({"defaults": defaults, "hydra": command["hydra"], **saved})
    ConfigStore.instance().store(name=PRIMARY, node=node, provider=str(folder / "config.yaml"))


def _without_option(entry: Any) -> Any:
    """An entry of the defaults list with null in the place of the option of a group of this project."""
    if not isinstance(entry, dict):
        return entry
    return {group: option if group.startswith("override ") else None for group, option in entry.items()}


def check_start(composed: DictConfig, config_name: str | None) -> None:
    """Drop the facts about the disk that the run saved and a job no longer has, because its files are others.

    Raises `InputError` where `from_run` stands in a file of options: it must be known before Hydra composes.
    """
    if "from_run" not in composed or composed.from_run is None:
        return
    if config_name != PRIMARY:
        raise InputError(f"from_run={composed.from_run} has no effect in a file; give it on the command line")
    saved = ConfigStore.instance().load(f"{PRIMARY}.yaml").node
    if (composed.dataset.name, composed.dataset.root) != (saved.dataset.name, saved.dataset.root):
        composed.dataset.drawn = None
    if composed.backbone.weights != saved.backbone.weights:
        composed.backbone.weights_sha256 = None
