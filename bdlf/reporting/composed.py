"""Gives what the command line composes for a dataset, a method and a recipe, and turns a run into another method's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from bdlf.active import PAPER, flat
from bdlf.system.errors import InputError

SHARED = "shared"
"""The value of `recipe` with which all methods are trained alike."""
OF_A_METHOD = ("method.", "loss.", "dfe.", "beg.")
"""What the keys begin with that say how a method works, as opposed to how it is trained."""
_OF_A_RECIPE = ("loss.ramp",)
"""Keys among these that `schedule=` sets, so they say how a method is trained."""


@cache
def composed(dataset: str, method: str = PAPER, recipe: str = SHARED) -> dict[str, Any]:
    """The flat configuration that these options alone give: `dataset=`, `method=` and `recipe=`.

    Callers never change it. Raises InputError if there is no such option.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import MissingConfigException
    from omegaconf import OmegaConf

    from bdlf.config import config_folder

    words = [f"dataset={dataset}"]
    words += [f"method={method}"] if method != PAPER else []
    words += [f"recipe={recipe}"] if recipe != SHARED else []
    try:
        with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
            return flat(OmegaConf.to_object(compose("config", words)))
    except MissingConfigException as error:
        raise InputError(f"a run has {' '.join(words)}, which this version does not know; leave the run out") from error


@cache
def method_names() -> tuple[str, ...]:
    """The values of `method=`: the paper's method, then the others in alphabetical order."""
    from bdlf.config import config_folder

    names = sorted(file.stem for file in config_folder("conf").glob("method/*.yaml"))
    return (PAPER, *(name for name in names if name != PAPER))


def origin(values: Mapping[str, Any]) -> tuple[str, str, str]:
    """The dataset, the method and the recipe of a flat configuration: the arguments of `composed`."""
    return values["dataset.name"], values["method.name"], values.get("recipe", SHARED)


def own_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a flat configuration that are not those which its dataset, method and recipe give it."""
    given = composed(*origin(values))
    return {key: value for key, value in values.items() if value != given[key]}


def with_method(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy of a flat configuration with the method `name`.

    What its dataset, method and recipe gave it is replaced by what they give to the method `name`. Values that differ
    from these stay as they are.
    """
    dataset, _, recipe = origin(values)
    return {**values, **composed(dataset, name, recipe), **own_values(values)}


def with_usual_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a flat configuration whose network, loss terms and weights are those that its method has by default.

    How it is trained stays as it is.
    """
    given = composed(*origin(values))
    usual = (key for key in given if key.startswith(OF_A_METHOD) and key not in _OF_A_RECIPE)
    return {**values, **{key: given[key] for key in usual}}
