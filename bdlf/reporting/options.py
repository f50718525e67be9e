"""Reads the command line of `python -m bdlf.report`: options of the form key=value, and folders."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bdlf.system.errors import InputError

NAMES = ("table1", "roof", "table2", "table3", "figure4")
PROBES = "probes"
"""The table of `bdlf.reporting.probes`, which is shown only where it is asked for."""
FORMATS = ("md", "csv", "tex", "html")
FRAMES = ("false", "true", "full")


@dataclass
class Options:
    """What the command line asks for."""

    folders: list[str] = dataclasses.field(default_factory=list)
    table: str | None = None
    by: str | None = None
    reference: str | None = None
    format: str = "md"
    out: str | None = None
    frame: str = "false"
    plan: float | None = None
    to_wandb: bool = False


HELP = {
    "DIR ...": "where run folders lie, at any depth; or wandb:ENTITY/PROJECT",
    "table=NAME": f"one of {', '.join(NAMES)}; without it Table 1, and each other one with runs in two rows; "
    f"or {PROBES}: what python -m bdlf.probe found, for the rows of Table 2",
    "by=KEY,...": "instead a table by these keys of the configuration; `variant` stands for the components of Table 2",
    "reference=ROW": "the row that others are compared with: its name, or with by= its values in the order of the keys",
    "format=FORMAT": f"one of {', '.join(FORMATS)} (default md)",
    "out=DIR": "write files there, not to the screen; Figure 4 also as PNG and SVG",
    "frame=true|full": "also the tidy frame: a line for each run, model and protocol; full: with all keys",
    "plan=POINTS": "instead the runs that are missing to see a difference of so many points of mAP, as commands",
    "to_wandb=true": "rebuild a W&B run from each run folder, nothing else",
}


def parse(words: Sequence[str]) -> Options:
    """The options that the words of the command line give. A word that is an existing path counts as a folder.

    Raises InputError for an unknown or repeated key, for a wrong value, for a flag, and if no folder is given.
    """
    options = Options()
    keys = [one.name for one in dataclasses.fields(Options) if one.name != "folders"]
    given: set[str] = set()
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            raise InputError(_without_flag(word, keys))
        if not equals or Path(word).exists():
            options.folders.append(word)
        elif key not in keys:
            close = difflib.get_close_matches(key, keys, n=1)
            hint = f"; did you mean '{close[0]}='" if close else ""
            raise InputError(f"unknown option '{key}'{hint}; known: {', '.join(f'{one}=' for one in keys)}")
        elif key in given:
            raise InputError(f"{key}= is given twice; give it once")
        else:
            given.add(key)
            setattr(options, key, _value(key, value))
    if not options.folders:
        raise InputError("no folder is given: name the output folder of runs, like outputs (--help shows the options)")
    if options.by and options.table:
        raise InputError("by= and table= are two tables: give one of them")
    if options.table == PROBES and (options.reference or options.plan):
        raise InputError(f"table={PROBES} takes neither reference= nor plan=; leave them out")
    return options


def _value(key: str, value: str) -> object:
    choices = {"table": (*NAMES, PROBES), "format": FORMATS, "frame": FRAMES}
    if key in ("to_wandb", "frame") and value.lower() in ("true", "false"):
        return value.lower() == "true" if key == "to_wandb" else value.lower()
    if key == "to_wandb":
        raise InputError(f"to_wandb={value}: true or false is needed")
    if key in choices and value not in choices[key]:
        raise InputError(f"{key}={value} is not known; known: {', '.join(choices[key])}")
    if key == "plan":
        try:
            points = float(value)
        except ValueError:
            points = 0.0
        if not 0 < points < 100:
            raise InputError(f"plan={value}: points of mAP between 0 and 100 are needed, like plan=2.0")
        return points
    if not value:
        raise InputError(f"{key}= has no value")
    return value


def _without_flag(word: str, keys: Sequence[str]) -> str:
    key = word.lstrip("-").partition("=")[0].replace("-", "_")
    value = {"frame": "true", "to_wandb": "true"}.get(key, "...")
    if key in keys:
        return f"{word} is written {key}={value} now; options have no dashes"
    if word.startswith(("-sc", "--shell-completion")):
        return (
            f"{word}: bdlf-report has no completion; bdlf-train, -evaluate, -check, -synthesize and -benchmark have it"
        )
    return f"unknown flag '{word}'; options are {', '.join(f'{one}=' for one in keys)}, and --help"
