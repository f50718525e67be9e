"""The recipe that each method was published with."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.assembly import check_options
from bdlf.config import Config, config_folder
from bdlf.data.augment import Augmentation
from bdlf.methods import METHODS
from bdlf.runs.identity import run_hash

CONF = config_folder("conf")
DATASETS = ("synthetic", "sysu", "regdb", "llcm")
SMALL, LARGE = (0.02, 0.4), (0.2, 0.8)

# method: identities in a batch, image size, epochs, milestones, clipping, average, flip at test, loss.ramp
PUBLISHED = {
    "agw": (8, (288, 144), 81, [20, 50], None, False, False, 0),
    "caj": (8, (288, 144), 100, [20, 50], None, False, True, 0),
    "lupi": (8, (288, 144), 121, [20, 50], None, False, False, 0),
    "deen": (6, (384, 144), 151, [20, 80], None, False, True, 0),
    "mmn": (4, (384, 192), 81, [20, 50], None, False, False, 0),
    "sgiel": (8, (288, 144), 120, [20, 85], 11, True, True, 0),
    "bdlf": (8, (384, 144), 220, [20, 95, 180], 10, True, True, 0.3),
}
CROP_AND_FLIP = {"pad": 10, "crop": True, "flip": 0.5}
PLAIN = {"erase": 0.0, "exchange": 0.0, "erase_area": SMALL, "erase_fill": "caj", "grey": 0.0}
CAJ = {**PLAIN, "erase": 0.5, "exchange": 0.5}
AUGMENTED = {
    "agw": PLAIN,
    "caj": CAJ,
    "lupi": {**CAJ, "exchange": 0.0},
    "deen": {**PLAIN, "erase": 0.5, "erase_fill": "imagenet", "grey": 0.5},
    "mmn": {**PLAIN, "erase": 0.5, "erase_fill": "zero"},
    "sgiel": CAJ,
    "bdlf": CAJ,
}
# What a dataset changes
MILESTONES = {("bdlf", "regdb"): [70, 130, 180], ("bdlf", "llcm"): [70, 130, 180]}
AREAS = {("deen", "sysu"): LARGE}


@cache
def composed(*words: str) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_object(compose("config", list(words)))


def published(method: str, *words: str) -> Config:
    return composed("recipe=published", f"method={method}", *words)


def augmentation(config: Config) -> dict[str, object]:
    values = dataclasses.asdict(config.augment)
    return {**values, "erase_area": tuple(values["erase_area"])}


def test_every_method_has_a_recipe():
    assert (
        set(METHODS) <= PUBLISHED.keys() == AUGMENTED.keys() == {file.stem for file in CONF.glob("parts/published/*")}
    )


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", METHODS)
def test_a_published_recipe_has_the_published_numbers(method, dataset):
    config = published(method, f"dataset={dataset}")
    identities, size, epochs, milestones, clip, average, flip, ramp = PUBLISHED[method]
    assert (config.method.name, config.recipe, config.dataset.name) == (method, "published", dataset)
    assert (config.batch.identities, config.batch.images) == (identities, 4)
    assert (config.image.height, config.image.width) == size
    assert (config.schedule.epochs, config.schedule.warmup_epochs) == (epochs, 10)
    assert config.schedule.steps_per_epoch is None
    assert config.schedule.milestones == MILESTONES.get((method, dataset), milestones)
    assert (config.optimizer.clip, config.ema.enabled, config.ema.decay) == (clip, average, 0.999)
    assert (config.evaluation.flip, config.loss.ramp) == (flip, ramp)
    area = AREAS.get((method, dataset), SMALL)
    assert augmentation(config) == {**CROP_AND_FLIP, **AUGMENTED[method], "erase_area": area}
    assert augmentation(config) == dataclasses.asdict(Augmentation(**augmentation(config)))
    rates = config.optimizer
    assert (rates.lr, rates.momentum, rates.nesterov, rates.weight_decay) == (0.1, 0.9, True, 5e-4)
    if dataset != "synthetic":
        assert (config.backbone.name, rates.backbone_scale) == ("resnet50", 0.1)
        maps = {"silhouettes": "maps"} if method == "sgiel" else {}
        check_options(dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, **maps)))


@pytest.mark.parametrize("dataset", ["sysu", "regdb", "llcm"])
def test_the_papers_method_has_its_published_recipe_on_every_real_dataset_anyway(dataset):
    shared, own = composed(f"dataset={dataset}"), published("bdlf", f"dataset={dataset}")
    assert dataclasses.replace(own, recipe="shared") == shared and run_hash(own) == run_hash(shared)


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_shared_recipe_is_that_of_the_dataset_and_is_the_default(dataset):
    assert composed(f"dataset={dataset}", "recipe=shared") == composed(f"dataset={dataset}")
    agw, bdlf = composed(f"dataset={dataset}", "method=agw"), composed(f"dataset={dataset}")
    assert dataclasses.replace(agw, method=bdlf.method) == bdlf


def test_the_command_line_wins_over_a_published_recipe():
    for dataset in ("synthetic", "sysu"):
        of_dataset = f"dataset={dataset}"
        config = published("deen", of_dataset, "augment=caj", "ema=short", "schedule=regdb_llcm", "image.width=100")
        assert augmentation(config) == {**CROP_AND_FLIP, **CAJ}, "with the area of this option too"
        assert (config.ema.enabled, config.ema.decay) == (True, 0.99)
        assert (config.schedule.epochs, config.schedule.milestones) == (220, [70, 130, 180])
        assert (config.loss.ramp, config.image.width, config.image.height) == (0.3, 100, 384)
        config = published("bdlf", of_dataset, "augment.erase_area=[0.1,0.2]", "optimizer.clip=3", "ema=off")
        assert (config.augment.erase_area, config.optimizer.clip, config.ema.enabled) == ([0.1, 0.2], 3, False)
        assert published("bdlf", of_dataset, "equations=literal").optimizer.clip is None


def test_the_options_of_a_recipe_can_be_chosen_one_by_one():
    assert composed("augment=deen", "dataset=sysu").augment.erase_area == list(LARGE)
    assert composed("augment=deen", "dataset=llcm").augment.erase_area == list(SMALL)
    assert composed("schedule=bdlf", "dataset=llcm").schedule.milestones == [70, 130, 180]
    assert [composed("ema=published", f"method={name}").ema.enabled for name in ("agw", "bdlf")] == [False, True]


def test_a_saved_configuration_needs_the_choices_that_a_recipe_reads():
    from bdlf.commandline.saved_run import require_choices
    from bdlf.system.errors import InputError

    for words, missing in {
        "recipe=published": "recipe=published takes other values for each method.* give method= too",
        "recipe=published method=agw,bdlf": "schedule=bdlf takes other values for each dataset.* give dataset= too",
        "augment=deen method=deen": "augment=deen takes other values for each dataset",
    }.items():
        with pytest.raises(InputError, match=missing):
            require_choices(words.split())
    require_choices(["recipe=published", "method=agw", "seed=1"])
    require_choices(["recipe=published", "method=bdlf,deen", "dataset=regdb"])


def test_from_scratch_two_methods_keep_the_rate_of_a_pretrained_backbone():
    rates = {method: composed(f"method={method}").optimizer.backbone_scale for method in METHODS}
    assert rates == {**dict.fromkeys(METHODS, 1.0), "deen": 0.1, "lupi": 0.1}
    assert composed("method=deen", "optimizer.backbone_scale=0.5").optimizer.backbone_scale == 0.5


def test_every_part_is_named_after_an_option_that_there_is():
    """The part of another name would never be read."""
    places = {"published": "method", "published_ema": "method", "deen_erasing": "dataset", "bdlf_schedule": "dataset"}
    places["from_scratch"] = "method"
    found = {file.relative_to(CONF / "parts") for file in (CONF / "parts").rglob("*.yaml")}
    assert {file.parent.as_posix() for file in found} == places.keys()
    for file in found:
        group = places[file.parent.as_posix()]
        assert (CONF / group / file.name).is_file() or file.stem not in METHODS, file
