"""Reads the configurations of recorded runs as flat mappings. It does without OmegaConf, to be fast for thousands."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from bdlf.active import flat
from bdlf.config import Config
from bdlf.runs.identity import NEUTRAL
from bdlf.system.errors import InputError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SEED = re.compile(r"^seed: (\d+)$", re.MULTILINE)


def read_values(path: Path) -> dict[str, Any]:
    """The values in a run's `config.yaml`, by dotted key.

    Raises InputError for an interpolation, an unknown key, and a value of another type than the schema's.
    """
    text = path.read_text()
    if "${" in text:
        raise InputError(f"{path} holds an interpolation (${{...}}); a run's config.yaml is plain data: restore it")
    seed = _SEED.search(text)
    try:  # files of one experiment differ only in the seed, so parsing the text without it once serves all of them
        tree = _tree(_SEED.sub("seed: 0", text) if seed else text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not the configuration of a run ({str(error).splitlines()[0]})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not the configuration of a run")
    return values_of(tree | {"seed": int(seed[1])} if seed else tree, path)


@lru_cache(maxsize=1024)
def _tree(text: str) -> Any:
    return yaml.load(text, _LOADER)


def values_of(tree: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """The nested configuration `tree` as a flat one, checked against the schema; `source` names it in messages.

    A key that is missing in `tree` was added to the schema later. It gets its value in NEUTRAL, or else the schema's
    default. Raises InputError for an unknown key and for a value of another type than the schema's.
    """
    values = dict(_blank())
    _fill(values, tree, "", source)
    return values


@cache
def _blank() -> dict[str, Any]:
    return flat(Config()) | NEUTRAL


def _fill(values: dict[str, Any], tree: Mapping[str, Any], prefix: str, source: str | Path) -> None:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in _groups():
            if not isinstance(value, Mapping):
                raise InputError(f"{source} has {key}: {value} where a group of keys belongs; restore it")
            _fill(values, value, f"{key}.", source)
        elif key not in values:
            raise InputError(f"{source} has the unknown key '{key}': it is of another version of bdlf; left out")
        elif not _fits(value, _annotations()[key]):
            raise InputError(f"{source} has {key}={value}, which is no {_annotations()[key]}; restore its config.yaml")
        else:
            values[key] = value


@cache
def _annotations() -> dict[str, str]:
    """The type of every key as the schema writes it, like `float | None`."""
    return _annotations_of(Config, "")


def _annotations_of(schema: Any, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in dataclasses.fields(schema):
        default = one.default_factory() if one.default_factory is not dataclasses.MISSING else None
        if dataclasses.is_dataclass(default):
            found |= _annotations_of(type(default), f"{prefix}{one.name}.")
        else:
            found[f"{prefix}{one.name}"] = str(one.type)
    return found


@cache
def _groups() -> frozenset[str]:
    parents = [key.split(".")[:-1] for key in _annotations()]
    return frozenset(".".join(parent[: depth + 1]) for parent in parents for depth in range(len(parent)))


_TYPES: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str, "None": type(None)}


def _fits(value: Any, annotation: str) -> bool:
    if annotation == "Any":
        return True
    return any(_is_a(value, name) for name in annotation.split(" | "))


def _is_a(value: Any, name: str) -> bool:
    if name.startswith("list["):
        of = name.removeprefix("list[").removesuffix("]")
        return isinstance(value, list) and all(_is_a(one, of) for one in value)
    if isinstance(value, bool):
        return name == "bool"  # and never a number
    return isinstance(value, _TYPES[name])
