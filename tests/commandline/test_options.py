"""The command line wins over other files: a group option that is asked for sets every value in its file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.config import config_folder

CONF = config_folder("conf")
DATASETS = ("sysu", "regdb", "llcm", "synthetic")
FILES: dict[str, dict[str, Path]] = {}
"""Group -> option -> its file."""
for _file in sorted(CONF.rglob("*.yaml")):
    if _file.parent != CONF and not {CONF / "on_disk", CONF / "parts"} & set(_file.parents):
        FILES.setdefault(_file.parent.relative_to(CONF).as_posix(), {})[_file.stem] = _file


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf by its dotted key."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {key: leaf for name, value in values.items() for key, leaf in flat(value, f"{prefix}.{name}").items()}


@cache
def leaves(file: Path, package: str | None = None) -> dict[str, Any]:
    """What an option's file sets, and the options that it overrides others with, at their places in the whole.

    A value that depends on the option of another group is `...`.
    """
    first, *_ = file.read_text().splitlines()
    if package is None:
        group = file.parent.relative_to(CONF).as_posix().replace("/", ".")
        package = first.removeprefix("# @package ").strip() if first.startswith("# @package") else group
    loaded = OmegaConf.load(file)
    defaults = OmegaConf.to_container(loaded.pop("defaults", OmegaConf.create([])))
    content = OmegaConf.to_container(loaded, resolve=True)
    found: dict[str, Any] = {}
    depending: set[str] = set()
    for default in defaults:
        if default == "_self_":
            continue
        ((where, option),) = default.items()
        where, _, placed = where.removeprefix("override ").removeprefix("optional ").lstrip("/").partition("@")
        placed = package if placed == "_here_" else placed or None
        if "${" in option:
            depending |= {key for one in (CONF / where).glob("*.yaml") for key in leaves(one, placed)}
        else:
            found |= leaves(CONF / where / f"{option}.yaml", placed)
    found |= flat(content, "" if package == "_global_" else f".{package}")
    return found | dict.fromkeys(depending, ...)


def composed(*words: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return flat(OmegaConf.to_container(compose("config", list(words)), resolve=True))


def packed() -> list[list[tuple[str, str]]]:
    """Every option of every group but `dataset`, in few lists; the options of a list set no value in common."""
    pending = [(group, name) for group, files in FILES.items() if group != "dataset" for name in files]
    lists = []
    while pending:
        chosen: list[tuple[str, str]] = []
        taken: set[str] = set()
        for group, name in pending:
            own = leaves(FILES[group][name]).keys()
            if group not in dict(chosen) and taken.isdisjoint(own):
                chosen.append((group, name))
                taken |= own
        lists.append(chosen)
        pending = [option for option in pending if option not in chosen]
    return lists


@pytest.mark.parametrize("dataset", DATASETS)
def test_an_option_that_was_asked_for_sets_all_that_its_file_says(dataset):
    wrong, seen = [], 0
    for options in packed():
        values = composed(f"dataset={dataset}", *(f"{group}={name}" for group, name in options))
        for group, name in options:
            seen += 1
            for key, value in leaves(FILES[group][name]).items():
                if value is not ... and values[key] != value:
                    wrong.append(f"{group}={name} says {key[1:]}: {value}, the run has {values[key]}")
    assert not wrong, "\n".join(wrong)
    assert seen == sum(len(files) for group, files in FILES.items() if group != "dataset") > 75


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_dataset_without_further_words_is_its_recipe(dataset):
    values, recipe = composed(f"dataset={dataset}"), leaves(FILES["dataset"][dataset])
    recipe = {key: value for key, value in recipe.items() if value is not ...}
    assert {key: values[key] for key in recipe} == recipe
    assert len(recipe) > 5 and recipe[".dataset.name"] == dataset


def test_a_datasets_file_sets_nothing_that_an_option_of_a_group_sets():
    """Its values would be merged after the groups, and so overrule the option that the command line asks for.

    The group `recipe` is merged after the dataset.
    """
    before = [files for group, files in FILES.items() if group not in ("dataset", "recipe")]
    of_groups = {key for files in before for one in files.values() for key in leaves(one)}
    for dataset, file in FILES["dataset"].items():
        own = OmegaConf.to_container(OmegaConf.load(file))
        own.pop("defaults")
        assert of_groups.isdisjoint(flat(own)), dataset


# Of these groups an option stands for what is different from the others, and no file overrides them.
@pytest.mark.parametrize("group", sorted(FILES.keys() - {"dataset", "variant", "equations", "recipe"}))
def test_every_option_of_a_group_sets_the_same_keys(group):
    keys = {name: set(leaves(file)) for name, file in FILES[group].items()}
    every = set.union(*keys.values())
    assert {name: every - own for name, own in keys.items() if own != every} == {}


def test_options_over_the_synthetic_recipe_by_name():
    values = composed("dataset=synthetic", "augment=caj", "backbone=resnet50", "schedule=sysu", "ema=on")
    assert (values[".augment.pad"], values[".augment.erase"]) == (10, 0.5)
    assert (values[".backbone.last_stride"], values[".optimizer.backbone_scale"]) == (1, 0.1)
    assert (values[".loss.ramp"], values[".ema.decay"]) == (0.3, 0.999)
    values = composed("backbone=resnet50", "equations=literal", "augment=caj", "augment.pad=7")
    assert (values[".loss.ramp"], values[".augment.pad"], values[".image.height"]) == (0.0, 7, 64)
    plain = composed()
    assert (plain[".backbone.name"], plain[".backbone.last_stride"], plain[".optimizer.backbone_scale"]) == (
        *("resnet10", 2, 1.0),
    )
    assert (plain[".augment.pad"], plain[".augment.erase"], plain[".augment.exchange"]) == (4, 0.0, 0.5)
    assert (plain[".loss.ramp"], plain[".ema.decay"], plain[".schedule.epochs"]) == (1.0, 0.99, 11)
