"""Refuses words of the command line that Hydra would accept but that change nothing or make no recordable sweep."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from bdlf.commandline.words import quoted
from bdlf.config import config_folder
from bdlf.system.errors import InputError

_ONE_FOR_A_SWEEP = {
    "output": "every call of a sweep keeps one table, below one output=",
    "sweep": "every call of a sweep keeps one table, under one sweep=",
    "sweeps": "a sweep file says which jobs there are, and a job cannot start jobs",
    "from_run": "the jobs of a sweep start from one saved configuration",
}


def refuse_without_effect(words: Iterable[str], name: str, folder: str) -> None:
    """Raise `InputError` where a word removes a group (`~group` or `group=null`) of `conf/<folder>/<name>.yaml`.

    Removing a group does not switch its component off: the defaults of the schema remain, and they switch it on. Groups
    whose default option is null may be set to null.
    """
    source = config_folder("conf") / folder
    defaults = OmegaConf.load(source / f"{name}.yaml").defaults
    groups = {
        group: option
        for entry in defaults
        if OmegaConf.is_dict(entry)
        for group, option in entry.items()
        if " " not in group and option is not None
    }
    for word in words:
        removed = re.match(r"~([\w/]+)(@|=|$)", word)
        key, _, value = word.partition("=")
        nulled = "null" in (part.strip() for part in value.lower().split(","))
        group = removed[1] if removed else key.lstrip("+") if nulled else ""
        if group in groups:
            options = sorted(file.stem for file in (source / group).glob("*.yaml"))
            off = next((option for option in ("off", "none") if option in options), None)
            remedy = f"write {group}={off}" if off else f"give {group}= one of {', '.join(options)}"
            raise InputError(f"{word} changes nothing: without an option the defaults stay; {remedy}")


def refuse_sweep_over(words: Iterable[str]) -> None:
    """Raise `InputError` for several values of a key that must be the same for all jobs of a sweep."""
    for word in words:
        key, _, values = word.partition("=")
        if key.lstrip("+") in _ONE_FOR_A_SWEEP and _is_swept(word):
            why = f"{_ONE_FOR_A_SWEEP[key.lstrip('+')]}; give one value, and a command of its own for each"
            comma = f" (a name with a comma is typed {shlex.quote(f'{key}={quoted(values)}')})"
            raise InputError(f"{word}: {why}{comma if key.lstrip('+') in ('output', 'sweep') else ''}")


def _is_swept(word: str) -> bool:
    try:
        return bool(OverridesParser.create().parse_override(word).is_sweep_override())
    except HydraException:
        return False


def refuse_hidden_configuration(words: list[str], name: str, *, has_from_run: bool) -> None:
    """Raise `InputError` for flags of Hydra that seem to read a saved configuration but do not.

    - `--config-path` replaces the folder of the command's own options, so that none of them is found.
    - `--config-dir` adds a folder that is searched last: a `<name>.yaml` there is never read, because the command's own
      file is found first.

    `has_from_run` says whether the command has `from_run=`, which the message then recommends.
    """
    saved = "; from_run=FOLDER starts the configuration that a run has saved" if has_from_run else ""
    for flag, value in _flags(words):
        if flag in ("-cp", "--config-path"):
            raise InputError(f"{flag} {value}: this command has its options in a folder of its own{saved}")
        if flag in ("-cd", "--config-dir") and (Path(value) / f"{name}.yaml").is_file():
            raise InputError(
                f"{flag} {value}: its {name}.yaml is not read, because the command's own {name}.yaml comes first"
                + (f"; from_run={value} starts a run's saved configuration" if has_from_run else "")
            )


def _flags(words: list[str]) -> Iterator[tuple[str, str]]:
    """Each flag of Hydra that takes a folder, with that folder, from `--flag=folder` or `--flag folder`."""
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in ("-cp", "--config-path", "-cd", "--config-dir"):
            yield flag, value if equals else next(iter(words[place + 1 :]), "")
