"""Builds single parts of a run, each from the configuration alone, and refuses options with which no run can be built.

`bdlf.experiment` puts the parts together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from bdlf.active import SILHOUETTES, active_weights, flat, foreign_keys
from bdlf.config import Config, Dataset, terms_in
from bdlf.config.checks import check_values
from bdlf.data import listing
from bdlf.data.images import Images, check_cache, choose_cache
from bdlf.data.sampler import IdentitySampler
from bdlf.data.silhouettes import require_silhouettes
from bdlf.data.store import Render, cache_folder, open_store
from bdlf.data.synthetic.drawing import render, render_silhouettes
from bdlf.datasets import dataset_named
from bdlf.datasets.decoding import check_range
from bdlf.datasets.problems import STRICT, Problems
from bdlf.methods import METHODS, embedded_features
from bdlf.methods.sgiel import BALANCED
from bdlf.networks.network import Network
from bdlf.objective import Objective, try_once
from bdlf.runs.selection import selection_rules
from bdlf.system.device import accelerator
from bdlf.system.errors import InputError, check_choice
from bdlf.system.memory import require_memory
from bdlf.terms import TERMS
from bdlf.training.nonfinite import POLICIES
from bdlf.training.schedule import check_schedule


def check_options(config: Config) -> None:
    """Raise InputError, naming the key, for a value that would fail only later or would pass unnoticed."""
    check_values(config)
    check_choice("on_nonfinite", config.on_nonfinite, POLICIES)
    check_cache(config.data.cache)
    check_range(config.image.range)
    accelerator(config.devices)
    selection_rules(config.selection)
    refuse_of_other_methods(config)
    silhouettes_folder(config)
    check_choice("evaluation.feature", config.evaluation.feature, embedded_features(config.method.name))
    check_schedule(
        epochs=config.schedule.epochs,
        warmup_epochs=config.schedule.warmup_epochs,
        milestones=config.schedule.milestones,
        steps_per_epoch=config.schedule.steps_per_epoch,
    )


def refuse_of_other_methods(config: Config) -> None:
    """Raise InputError for an option that the method of `config` does not read.

    Whoever gave it would read the result wrongly. The options are those of the network of another method, the row of
    Table 2, and everything about a loss term that is not among `method.terms`.
    """
    name, values, defaults = config.method.name, flat(config), flat(Config())
    check_choice("method.name", name, METHODS)
    for term in config.method.terms:
        check_choice("method.terms", term, TERMS)
    for key in foreign_keys(values):
        given = values[key]
        is_switch = key.startswith("loss.") and key.endswith(".enabled")
        if given is False if is_switch else given != defaults[key]:  # a term that is on by default says nothing
            shown = (
                str(given).lower() if isinstance(given, bool) else f"{given:g}" if isinstance(given, float) else given
            )
            raise InputError(f"{key}={shown} changes nothing of method={name}; leave it out, or take another method=")


def read_listing(config: Dataset, *, splits: Sequence[str] | None = None, problems: Problems = STRICT) -> pd.DataFrame:
    """The listing of the dataset; see `bdlf.data.listing`. None of `splits` stands for all splits."""
    if not dataset_named(config.name).has_files:
        drawn = {"seed": config.seed, **dataclasses.asdict(config.synthetic)}
        return listing(config.name, None, split=config.split, synthetic=drawn, splits=splits, problems=problems)
    follow = config.follow_links
    return listing(config.name, config.root, split=config.split, splits=splits, follow_links=follow, problems=problems)


def dataset_split(config: Dataset) -> int | None:
    """The number of the split in result rows; None for a dataset without numbered splits."""
    return dataset_named(config.name).split_number(config.split)


def build_sampler(config: Config, images: pd.DataFrame) -> IdentitySampler:
    """Draws batches of `images`, the rows of a listing that are trained on, with the seed of the run.

    Raises InputError where `IdentitySampler` does, and for an epoch that is too long for the memory.
    """
    sampler = IdentitySampler(
        images["pid"].to_numpy(),
        images["modality"].to_numpy(),
        identities=config.batch.identities,
        images=config.batch.images,
        seed=config.seed,
        steps=config.schedule.steps_per_epoch,
    )
    drawn = 16 * sampler.steps_per_epoch * len(sampler.pids)  # bytes: a random number and a rank for each identity
    require_memory(f"schedule.steps_per_epoch={config.schedule.steps_per_epoch}", "drawing an epoch", drawn)
    return sampler


def open_images(config: Config, table: pd.DataFrame, device: torch.device) -> Images:
    """All images of the listing `table`, decoded once, or drawn if the dataset has no files.

    See `bdlf.data.store` and `bdlf.data.images.Images`. Raises InputError if the images do not fit where `data.cache`
    asks for them.
    """
    root = config.dataset.root if dataset_named(config.dataset.name).has_files else None
    return _open(config, table, device, root, render, config.dataset.name)


def _open(
    config: Config, table: pd.DataFrame, device: torch.device, root: str | Path | None, draw: Render, name: str
) -> Images:
    """The image files below `root`, or, where it is None, what `draw` draws; cached under `name`."""
    image, data = config.image, config.data
    choose_cache(data.cache, 3 * len(table) * image.height * image.width, device)  # refuses before decoding
    store = open_store(
        table,
        root,
        image.height,
        image.width,
        cache_dir=data.cache_dir or cache_folder(),
        render=draw if root is None else None,
        value_range=image.range,
        name=name,
    )
    return Images(store, device, data.cache)


def silhouettes_folder(config: Config) -> Path | None:
    """The folder of the silhouettes that the run is trained on. None: there are no files, or the method reads none.

    Raises InputError if the method needs such a folder and `dataset.silhouettes` names none, and if the key is given
    for a dataset that draws its silhouettes.
    """
    dataset, method = config.dataset, config.method.name
    has_files = dataset_named(dataset.name).has_files
    if dataset.silhouettes is not None and not has_files:
        raise InputError(
            f"dataset.silhouettes={dataset.silhouettes} changes nothing of dataset={dataset.name}, which draws its own "
            "silhouettes; leave it out"
        )
    if method not in SILHOUETTES or not has_files:
        return None
    if dataset.silhouettes is None:
        raise InputError(
            f"method={method} is trained on silhouettes too: set dataset.silhouettes=FOLDER to body-shape maps, one "
            "for each training image, under the path that the image has below dataset.root; run a human parser on the "
            "images to make them, as none are shipped"
        )
    return Path(dataset.silhouettes)


def open_silhouettes(config: Config, table: pd.DataFrame, device: torch.device) -> Images | None:
    """The silhouettes of all images of the listing `table`, decoded or drawn as `open_images` does it.

    None if the method of `config` reads none. Raises InputError where `silhouettes_folder` does, if a file is missing
    or is no image, and if the silhouettes do not fit where `data.cache` asks for them.
    """
    if config.method.name not in SILHOUETTES:
        return None
    folder = silhouettes_folder(config)
    if folder is not None:
        require_silhouettes(folder, table)
    return _open(config, table, device, folder, render_silhouettes, f"{config.dataset.name}-silhouettes")


def build_objective(config: Config) -> Objective:
    """The loss of a run: the terms that are on, with their weights and options.

    Every term is evaluated once on random numbers. Raises InputError for an option that a term refuses.
    """
    weights = active_weights(flat(config))
    terms = terms_in(config.loss)
    options = {}
    for name in weights:
        options[name] = dataclasses.asdict(terms[name])
        del options[name]["enabled"], options[name]["weight"]
    balance = BALANCED if config.method.sgiel.balanced else ()  # no other method has these terms
    objective = Objective(weights, options=options, ramp=config.loss.ramp, balance=balance)
    if objective.teacher and not config.ema.enabled:
        raise InputError("loss.related learns from the average of the weights, which ema=off leaves out; use ema=on")
    try_once(objective)
    return objective


def build_optimizer(config: Config, network: Network) -> torch.optim.SGD:
    """SGD whose learning rate differs between backbone, heads and projections.

    Each parameter group keeps the ratio of its rate to `optimizer.lr` as `lr_scale`.
    """
    rates = config.optimizer
    scales = {"backbone": rates.backbone_scale, "heads": 1.0, "projection": rates.projection_scale}
    groups = [
        {"params": parameters, "lr_scale": scales[name], "lr": rates.lr * scales[name]}
        for name, parameters in network.parameter_groups().items()
        if parameters
    ]
    return torch.optim.SGD(
        groups,
        lr=rates.lr,
        momentum=rates.momentum,
        nesterov=rates.nesterov,
        weight_decay=rates.weight_decay,
        fused=True,
    )
