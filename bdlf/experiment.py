"""The way to build a run and to open one: from a configuration to all that it names.

`prepare(config)` builds what a run needs before it trains; whatever is wrong with the options is refused there.
`open_run(folder)` builds the network of an existing run, with its weights. Neither seeds anything or configures the
process: a command does that before, in a line of its own (`bdlf.system.device.configure_process`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

from bdlf.active import active_weights, flat
from bdlf.config import Config, Dataset, terms_in
from bdlf.config.checks import check_values
from bdlf.data import fingerprint, listing
from bdlf.data.augment import Augmentation
from bdlf.data.batches import Batches
from bdlf.data.holdout import hold_out, train_on_all
from bdlf.data.images import Images, check_cache, choose_cache
from bdlf.data.sampler import IdentitySampler
from bdlf.data.store import cache_folder, open_store
from bdlf.data.synthetic.drawing import render
from bdlf.datasets import dataset_named
from bdlf.datasets.decoding import check_range
from bdlf.datasets.problems import STRICT, Problems
from bdlf.evaluation import Setting, extract, settings
from bdlf.methods import build_network
from bdlf.methods.bdlf import EMBEDDED
from bdlf.networks.network import MODALITIES, Network
from bdlf.objective import Objective, try_once
from bdlf.runs.folder import RunFolder, read_config
from bdlf.runs.identity import dataset_id
from bdlf.runs.record import read_result
from bdlf.runs.selection import LAST, VALIDATION, selection_rules
from bdlf.system.device import accelerator
from bdlf.system.errors import InputError, check_choice
from bdlf.system.memory import require_memory
from bdlf.training.checkpoint import load_checkpoint
from bdlf.training.ema import Averaged
from bdlf.training.loop import Recipe
from bdlf.training.nonfinite import POLICIES
from bdlf.training.schedule import check_schedule
from bdlf.training.scoring import Plan, Scoring, Trained
from bdlf.training.step import Learner

_PROTOCOL = ("mode", "shots", "direction", "gallery", "reading")


def prepare(config: Config, *, images: pd.DataFrame | None = None, resumes: bool = False) -> Experiment:
    """All that a run of `config` needs before it trains. No image is decoded.

    `images` is the listing of the dataset, where the caller has read it already. A run that `resumes` gets its weights
    from a checkpoint, so no file of pre-trained weights is read. Raises InputError for whatever is wrong with the
    options or the dataset.
    """
    check_options(config)
    experiment = Experiment(config)
    if images is not None:
        experiment.listing = images
    for part in ("table", "settings", "sampler", "augmentation"):  # refuse now what cannot be scored or drawn
        getattr(experiment, part)
    weights = "none" if resumes else config.backbone.weights
    network = build_network(config, len(experiment.sampler.pids), experiment.objective, weights=weights)
    experiment.trained = Trained(network, None)
    return experiment


def open_run(
    folder: str | Path,
    *,
    selection: str = LAST,
    weights: Path | None = None,
    config: Config | None = None,
    device: str | torch.device = "cpu",
) -> Experiment:
    """An existing run with its trained networks, in evaluation mode on `device`. Its dataset need not be there.

    `selection` names the rule whose epoch is taken, one of those that the run was trained with; `weights` names a
    checkpoint of the run instead. `config` stands in for the run's own, where a caller scores it in another way.

    The result has `config`, `network` (the one that is reported: the average, if the run kept one), `result` and
    `metrics`, and embeds images: `open_run(folder).embed(images, "vis")`. Whoever asks for `listing`, `table`,
    `settings` or `sampler` needs the dataset's files.

    Raises InputError where the folder holds no run, or no weights that fit its configuration.
    """
    where = RunFolder(Path(folder))
    config = read_config(where.config) if config is None else config
    weights = where.weights(selection) if weights is None else weights
    if where.result.is_file() and not weights.is_file():
        raise InputError(
            f"{weights} is gone, so {where.path} can be scored no more; restore the file from a copy, or train again "
            "with rerun=true"
        )
    state = load_checkpoint(weights, device=device)
    experiment = Experiment(config, where)
    network = build_network(config, _identities(state["model"]), experiment.objective, weights="none")
    averaged = Averaged(cast(nn.Module, network), config.ema.decay) if config.ema.enabled else None
    experiment.trained = Trained(network, averaged).to(torch.device(device))
    experiment.trained.give_weights(state, weights)
    for model in experiment.trained.models.values():
        model.eval()
    experiment.checkpoint = {name: state.get(name) for name in ("run_id", "fingerprint", "epoch", "step")}
    return experiment


class Experiment:
    """A configuration and what it names: the dataset's tables, the networks, what training and scoring need.

    The parts that need the dataset's files are read when they are first asked for.
    """

    trained: Trained
    """The networks: untrained from `prepare`, with their weights from `open_run`."""
    checkpoint: dict[str, Any]
    """From `open_run`: the `run_id`, `fingerprint`, `epoch` and `step` of the weights."""

    def __init__(self, config: Config, folder: RunFolder | None = None) -> None:
        self.config = config
        self._folder = folder

    @property
    def folder(self) -> RunFolder:
        """The folder of the run. Raises InputError for an experiment that was not opened from one."""
        if self._folder is None:
            raise InputError("this experiment has no run folder yet: open_run(FOLDER) opens one that has run")
        return self._folder

    @property
    def network(self) -> Network:
        """The network that is reported."""
        return next(iter(self.trained.models.values()))

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of the run's `result.json`. Raises InputError where there is none yet."""
        if not self.folder.result.is_file():
            raise InputError(f"{self.folder.result} does not exist: the run is unfinished")
        return read_result(self.folder.result)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The run's `metrics.csv`: one row for each epoch. Raises InputError where there is none yet."""
        if not self.folder.metrics.is_file():
            raise InputError(f"{self.folder.metrics} does not exist: the run has finished no epoch")
        return pd.read_csv(self.folder.metrics)

    @cached_property
    def listing(self) -> pd.DataFrame:
        """The images of the dataset, by name and place on disk."""
        return read_listing(self.config.dataset)

    @cached_property
    def fingerprint(self) -> str:
        """Of all images; see `bdlf.data.fingerprint`."""
        return fingerprint(self.listing, self.config.dataset.root)

    @cached_property
    def test_fingerprint(self) -> str:
        """Of the test images."""
        return fingerprint(self.listing[self.listing["split"] == "test"], self.config.dataset.root)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The listing with what is trained on in 'train', what chooses an epoch in 'val' (if anything), else 'test'."""
        if VALIDATION in selection_rules(self.config.selection):
            share = self.config.evaluation.holdout
            return hold_out(self.listing, share=share, seed=self.config.dataset.seed)
        return train_on_all(self.listing)

    @property
    def training_rows(self) -> np.ndarray:
        """The rows of the table that are trained on."""
        return np.flatnonzero(self.table["split"] == "train")

    @property
    def held_out_identities(self) -> int:
        """The number of identities that choose an epoch."""
        return int(self.table["pid"][self.table["split"] == "val"].nunique())

    @cached_property
    def settings(self) -> dict[str, list[Setting]]:
        """The protocols of the result, 'test', and of the identities that choose an epoch, 'val', perhaps none."""
        name, root = self.config.dataset.name, self.config.dataset.root
        asked = {key: getattr(self.config.evaluation, key) for key in _PROTOCOL}
        found = {"test": settings(name, self.table, root=root, **asked), "val": []}
        if VALIDATION in selection_rules(self.config.selection):
            found["val"] = settings(name, self.table, root=root, split="val")
        return found

    @cached_property
    def sampler(self) -> IdentitySampler:
        """Draws batches of the training rows, by the seed of the run."""
        chosen = self.table.iloc[self.training_rows]
        sampler = IdentitySampler(
            chosen["pid"].to_numpy(),
            chosen["modality"].to_numpy(),
            identities=self.config.batch.identities,
            images=self.config.batch.images,
            seed=self.config.seed,
            steps=self.config.schedule.steps_per_epoch,
        )
        drawn = 16 * sampler.steps_per_epoch * len(sampler.pids)  # a random number and a rank for each
        option = f"schedule.steps_per_epoch={self.config.schedule.steps_per_epoch}"
        require_memory(option, "drawing an epoch", drawn)
        return sampler

    @cached_property
    def objective(self) -> Objective:
        """The terms that are on, with their weights and options."""
        return build_objective(self.config)

    @cached_property
    def augmentation(self) -> Augmentation:
        """What happens to the training images; the test images are scored as they are."""
        return Augmentation(**dataclasses.asdict(self.config.augment))

    @property
    def recipe(self) -> Recipe:
        """How long the run trains, and at which rates."""
        schedule = self.config.schedule
        return Recipe(
            epochs=schedule.epochs,
            lr=self.config.optimizer.lr,
            warmup_epochs=schedule.warmup_epochs,
            milestones=tuple(schedule.milestones),
            on_nonfinite=self.config.on_nonfinite,
        )

    @property
    def scoring(self) -> Scoring:
        """How the networks are scored, beside the protocols."""
        chosen, dataset = self.config.evaluation, self.config.dataset
        return Scoring(dataset_id(dataset), dataset_split(dataset), chosen.feature, chosen.flip, chosen.batch)

    @property
    def plan(self) -> Plan:
        """Which epochs are scored."""
        rules = selection_rules(self.config.selection)
        every, keep = self.config.evaluation.every, self.config.checkpoint.keep
        return Plan(self.config.schedule.epochs, rules, every, keep)

    @property
    def trained_images(self) -> int:
        """The number of images that the whole run trains on, each as often as it is drawn."""
        return self.config.schedule.epochs * self.sampler.steps_per_epoch * self.sampler.batch_size

    @property
    def parameters(self) -> int:
        """The number of learnable values of the network."""
        return sum(parameter.numel() for parameter in self.trained.network.parameters())

    def store(self, device: torch.device) -> Images:
        """All images of the listing, decoded (or drawn) once; see `bdlf.data.store` and `bdlf.data.images.Images`."""
        image, data = self.config.image, self.config.data
        drawn = not dataset_named(self.config.dataset.name).has_files
        choose_cache(data.cache, 3 * len(self.listing) * image.height * image.width, device)  # before it is decoded
        store = open_store(
            self.listing,
            None if drawn else self.config.dataset.root,
            image.height,
            image.width,
            cache_dir=data.cache_dir or cache_folder(),
            render=render if drawn else None,
            value_range=image.range,
            name=self.config.dataset.name,
        )
        return Images(store, device, data.cache)

    def batches(self, store: Images) -> Batches:
        """The batches of the run, of images in `store`."""
        views, seed = self.trained.network.views, self.config.seed
        return Batches(self.sampler, store, self.training_rows, self.augmentation, views, seed=seed)

    def learner(self, fabric: Fabric) -> Learner:
        """Move the network to the device of `fabric`, compile it if asked, and add its optimiser and its average."""
        network = cast(nn.Module, self.trained.network)
        if self.config.compile != "none":
            network.compile(mode=self.config.compile)  # in place: names of weights, copies and `embed` stay
        model = fabric.setup_module(network)
        optimizer = build_optimizer(self.config, self.trained.network)
        averaged = Averaged(network, self.config.ema.decay) if self.config.ema.enabled else None
        self.trained = Trained(self.trained.network, averaged)
        return Learner(fabric, network, model, optimizer, self.objective, averaged, self.config.optimizer.clip)

    def embed(
        self, images: UInt8[np.ndarray, "n height width 3"], modality: Literal["vis", "ir"]
    ) -> Float[np.ndarray, "n c"]:
        """Features of RGB images of one modality as the run is scored with: L2-normalised float32, one row each.

        Images of another size than the run's are resized as the run's own were (LANCZOS). Infrared images have three
        equal channels. Raises InputError for another shape or type, and for an unknown modality.
        """
        check_choice("modality", modality, MODALITIES)
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise InputError(
                f"embed() got an array of {images.dtype}, shape {images.shape}; "
                "give uint8 RGB images of shape (n, height, width, 3)"
            )
        size = (self.config.image.width, self.config.image.height)
        if images.shape[2:0:-1] != size:
            images = np.stack(
                [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS)) for one in images]
            )
        device = next(self.network.parameters()).device
        how = self.scoring
        return extract(
            partial(self.network.embed, feature=how.feature),
            Images(images, device, "disk"),
            np.arange(len(images)),
            np.full(len(images), modality),
            batch_size=how.batch_size,
            flip=how.flip,
        )


def check_options(config: Config) -> None:
    """Raise InputError, naming the key, for a value that would fail only later, or not at all."""
    check_values(config)
    check_choice("evaluation.feature", config.evaluation.feature, EMBEDDED)
    check_choice("on_nonfinite", config.on_nonfinite, POLICIES)
    check_cache(config.data.cache)
    check_range(config.image.range)
    accelerator(config.devices)
    selection_rules(config.selection)
    check_schedule(
        epochs=config.schedule.epochs,
        warmup_epochs=config.schedule.warmup_epochs,
        milestones=config.schedule.milestones,
        steps_per_epoch=config.schedule.steps_per_epoch,
    )


def read_listing(config: Dataset, *, splits: Sequence[str] | None = None, problems: Problems = STRICT) -> pd.DataFrame:
    """The images of the dataset (of some of its splits), by name and place on disk; see `bdlf.data.listing`."""
    if not dataset_named(config.name).has_files:
        drawn = {"seed": config.seed, **dataclasses.asdict(config.synthetic)}
        return listing(config.name, None, split=config.split, synthetic=drawn, splits=splits, problems=problems)
    follow = config.follow_links
    return listing(config.name, config.root, split=config.split, splits=splits, follow_links=follow, problems=problems)


def dataset_split(config: Dataset) -> int | None:
    """The number of the split in result rows; None for a dataset that has one split only."""
    return dataset_named(config.name).split_number(config.split)


def build_objective(config: Config) -> Objective:
    """The terms that are on, with their weights and options, tried once on random numbers."""
    weights = active_weights(flat(config))
    terms = terms_in(config.loss)
    options = {}
    for name in weights:
        options[name] = dataclasses.asdict(terms[name])
        del options[name]["enabled"], options[name]["weight"]
    objective = Objective(weights, options=options, ramp=config.loss.ramp)
    try_once(objective)
    return objective


def build_optimizer(config: Config, network: Network) -> torch.optim.SGD:
    """SGD with a rate of its own for backbone, heads and projections; a group keeps its factor as `lr_scale`."""
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


def _identities(weights: dict[str, torch.Tensor]) -> int:
    """The number of classes of a network's classifiers, by its weights; 1 for a network without classifiers.

    A network's classifiers have names that begin with `classifier`.
    """
    return next((len(values) for name, values in weights.items() if name.startswith("classifier")), 1)
