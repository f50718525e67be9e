"""`from_run=FOLDER`: start from the configuration that a run saved, changed by the words of the command line.

The saved values replace the command's defaults, and no group has an option chosen. Hydra then composes as usual: a
group or a key on the command line, in a sweep file or in a user's file of options wins over the saved values.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
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
"""The name under which Hydra finds the configuration that `store` has given it."""
_OF_THE_CALL = ("sweep", "dry_run", "rerun", "debug")
"""Keys that describe one call of the command, not the run; a saved value of theirs is dropped."""


def folder_of(words: list[str]) -> Path | None:
    """The run folder that `from_run=` names on the command line, or None. If `from_run=` is repeated, the last wins.

    The path of the folder's `config.yaml` names the folder too.
    Raises `InputError` where the folder is not that of a run, and where one `from_run=` lists several values.
    """
    given = [word for word in words if re.match(r"\+{0,2}from_run=", word)]
    if not given:
        return None
    try:
        parsed = OverridesParser.create().parse_override(given[-1])
        value = None if parsed.is_sweep_override() else parsed.value()
    except HydraException:
        return None  # Hydra reports what is wrong with the word
    if parsed.is_sweep_override():
        raise InputError(f"{given[-1]}: one run folder is needed; start a command of its own for each")
    if value is None:
        return None
    folder = Path(str(value)).expanduser()
    if folder.name == "config.yaml" and folder.is_file():
        folder = folder.parent
    if not (folder / "config.yaml").is_file():
        raise InputError(
            f"from_run={value}: there is no {folder / 'config.yaml'}; from_run= takes a run folder, like "
            "outputs/synthetic/full-1a2b3c4d/seed0"
        )
    return folder


def require_choices(words: Iterable[str]) -> None:
    """Raise `InputError` for an option whose file reads the choice of another group, unless the words make that choice.

    For example `recipe=published` reads the choice of `method`. A saved configuration has values, but no choices.
    """
    conf = config_folder("conf")
    files = {(file.parent.relative_to(conf).as_posix(), file.stem): file for file in conf.rglob("*.yaml")}
    chosen = {group: option.split(",") for group, _, option in (word.partition("=") for word in words)}
    pending = [(group, option) for group, options in chosen.items() for option in options]
    for group, option in pending:  # grows: an option may choose the options of other groups
        file = files.get((group, option))
        for entry in [] if file is None else yaml.safe_load(file.read_text()).get("defaults", []):
            for where, named in entry.items() if isinstance(entry, dict) else ():
                read = re.fullmatch(r"\$\{(\w+)\}", named)
                if read and read[1] not in chosen:
                    raise InputError(
                        f"{group}={option} takes other values for each {read[1]}, and from_run= brings values but no "
                        f"choice of {read[1]}; give {read[1]}= too"
                    )
                other = where.removeprefix("override ").lstrip("/").partition("@")[0]
                pending += [(other, one) for one in (chosen[read[1]] if read else [named])]


def store(folder: Path) -> None:
    """Register the configuration of the run in `folder` with Hydra under the name `PRIMARY`.

    `output` becomes the output folder in which the run lies now, so that the command finds the same run from any
    working directory. Raises `InputError` where the run's `config.yaml` cannot be read.
    """
    from bdlf.runs.folder import read_config

    saved: dict[str, Any] = dataclasses.asdict(read_config(folder / "config.yaml"))
    for key in _OF_THE_CALL:
        del saved[key]
    place = Path(os.path.abspath(folder))  # resolves `..` and keeps symbolic links, as the user named the run by them
    if re.fullmatch(r"seed-?\d+", place.name) and re.search(r"-[0-9a-f]{8}$", place.parent.name):
        saved["output"] = str(place.parents[2])
    command = yaml.safe_load((config_folder("conf") / "config.yaml").read_text())
    defaults = [_without_option(entry) for entry in command["defaults"]]
    node = OmegaConf.create({"defaults": defaults, "hydra": command["hydra"], **saved})
    ConfigStore.instance().store(name=PRIMARY, node=node, provider=str(folder / "config.yaml"))


def _without_option(entry: Any) -> Any:
    """The entry of a defaults list, with null as its option if it names a group of this project."""
    if not isinstance(entry, dict):
        return entry
    return {group: option if group.startswith("override ") else None for group, option in entry.items()}


def check_start(composed: DictConfig, config_name: str | None) -> None:
    """Reset the recorded facts about files (`drawn`, `weights_sha256`) where the job reads other files than the run.

    `config_name` is the configuration that Hydra started from. Raises `InputError` where `from_run` stands in a file of
    options: it has to be known before Hydra composes.
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
