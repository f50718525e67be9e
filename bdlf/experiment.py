"""The one way to build a run from a configuration, and to open a run that exists.

`prepare(config)` builds what a run needs before it trains, and refuses whatever is wrong with the options.
`open_run(folder)` builds the network of an existing run and gives it its weights. Neither function seeds anything or
configures the process. A command does so before it calls them (`bdlf.system.device.configure_process`).
"""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from lightning_fabric import Fabric
from torch import nn

from bdlf.assembly import (
    build_objective,
    build_optimizer,
    build_sampler,
    check_options,
    dataset_split,
    open_images,
    open_silhouettes,
    read_listing,
    silhouettes_folder,
)
from bdlf.config import Config
from bdlf.data import fingerprint
from bdlf.data.augment import Augmentation
from bdlf.data.batches import Batches
from bdlf.data.holdout import hold_out, train_on_all
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.data.silhouettes import silhouettes_fingerprint
from bdlf.evaluation import Asked, Setting, settings
from bdlf.evaluation.extraction import extract_array
from bdlf.methods import build_network
from bdlf.networks.network import Network
from bdlf.objective import Objective
from bdlf.runs.folder import RunFolder, read_config
from bdlf.runs.identity import dataset_id
from bdlf.runs.record import read_result
from bdlf.runs.selection import LAST, VALIDATION, selection_rules
from bdlf.system.errors import InputError
from bdlf.training.checkpoint import load_checkpoint
from bdlf.training.ema import Averaged
from bdlf.training.loop import Recipe
from bdlf.training.scoring import Plan, Scoring, Trained
from bdlf.training.step import Learner


def prepare(config: Config, *, images: pd.DataFrame | None = None, resumes: bool = False) -> Experiment:
    """Build all that a run of `config` needs before it trains. No image is decoded.

    `images` is the listing of the dataset, if the caller has read it already. A run that `resumes` gets its weights
    from a checkpoint, so no file of pre-trained weights is read for it. Raises InputError for whatever is wrong with
    the options or the dataset.
    """
    check_options(config)
    experiment = Experiment(config)
    if images is not None:
        experiment.listing = images
    for part in ("table", "settings", "sampler", "augmentation"):  # each refuses what it cannot be built from
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
    """Open the run in `folder`: its trained networks, in evaluation mode on `device`.

    - `selection` names a selection rule that the run was trained with. The weights are those of the epoch that the rule
      chose.
    - `weights`, if given, is the checkpoint of the run to take instead.
    - `config`, if given, replaces the run's own configuration, so that a caller can score the run in another way.

    The result has `config`, `result`, `metrics` and `network`, which is the average of the weights if the run kept one.
    It embeds images: `open_run(folder).embed(images, "vis")`. The files of the dataset are needed only for `listing`,
    `table`, `settings`, `sampler` and what is made of them.

    Raises InputError if the folder holds no run, or no weights that fit its configuration.
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
    """A configuration and the parts that it names: the dataset's tables, the networks, and what trains and scores them.

    The dataset's files are read when a part that needs them is first asked for.
    """

    trained: Trained
    """The networks: `prepare` leaves them untrained, `open_run` gives them the run's weights."""
    checkpoint: dict[str, Any]
    """The `run_id`, `fingerprint`, `epoch` and `step` of the weights. Only `open_run` sets it."""

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
        """The network that results report first: the average of the weights, if the run keeps one."""
        return next(iter(self.trained.models.values()))

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of the run's `result.json`. Raises InputError if there is none yet."""
        if not self.folder.result.is_file():
            raise InputError(f"{self.folder.result} does not exist: the run is unfinished")
        return read_result(self.folder.result)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The run's `metrics.csv`: one row for each epoch. Raises InputError if there is none yet."""
        if not self.folder.metrics.is_file():
            raise InputError(f"{self.folder.metrics} does not exist: the run has finished no epoch")
        return pd.read_csv(self.folder.metrics)

    @cached_property
    def listing(self) -> pd.DataFrame:
        """A row for each image of the dataset; see `bdlf.data.listing`."""
        return read_listing(self.config.dataset)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of all files that the run reads.

        It is `images_fingerprint`. If the run is trained on silhouettes from files, a plus sign and the fingerprint of
        these files follow; see `bdlf.runs.record.images_of`. Raises InputError if one of them is missing.
        """
        folder = silhouettes_folder(self.config)
        if folder is None:
            return self.images_fingerprint
        silhouettes = silhouettes_fingerprint(folder, self.listing.iloc[self.training_rows])
        return f"{self.images_fingerprint}+{silhouettes}"

    @cached_property
    def images_fingerprint(self) -> str:
        """The fingerprint of all images; see `bdlf.data.fingerprint`."""
        return fingerprint(self.listing, self.config.dataset.root)

    @cached_property
    def test_fingerprint(self) -> str:
        """The fingerprint of the test images alone."""
        return fingerprint(self.listing[self.listing["split"] == "test"], self.config.dataset.root)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The listing, with the column `split` as this run uses the images.

        `train` are the images that it trains on, `val` those of the identities that choose an epoch, if a selection
        rule needs any, and `test` the images that it is scored on.
        """
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
        """The number of identities that are held out of training to choose an epoch."""
        return int(self.table["pid"][self.table["split"] == "val"].nunique())

    @cached_property
    def settings(self) -> dict[str, list[Setting]]:
        """The settings that are scored on the test images, `test`, and on the held-out identities, `val`.

        `val` is empty unless a selection rule needs it.
        """
        name, root = self.config.dataset.name, self.config.dataset.root
        found = {"test": settings(name, self.table, Asked.of(self.config.evaluation), root=root), "val": []}
        if VALIDATION in selection_rules(self.config.selection):
            found["val"] = settings(name, self.table, Asked(), root=root, split="val")
        return found

    @cached_property
    def sampler(self) -> IdentitySampler:
        """Draws the batches from the training rows, with the seed of the run."""
        return build_sampler(self.config, self.table.iloc[self.training_rows])

    @cached_property
    def objective(self) -> Objective:
        """The loss: the terms that are on, with their weights and options."""
        return build_objective(self.config)

    @cached_property
    def augmentation(self) -> Augmentation:
        """How training images are augmented. Test images are scored as they are."""
        return Augmentation(**dataclasses.asdict(self.config.augment))

    @property
    def recipe(self) -> Recipe:
        """How long the run trains, at which rates, and what it does about a step that is not finite."""
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
        """How the networks are scored under every setting."""
        chosen, dataset = self.config.evaluation, self.config.dataset
        return Scoring(dataset_id(dataset), dataset_split(dataset), chosen.feature, chosen.flip, chosen.batch)

    @property
    def plan(self) -> Plan:
        """Which epochs are scored, and which of them are reported."""
        rules = selection_rules(self.config.selection)
        every, keep = self.config.evaluation.every, self.config.checkpoint.keep
        return Plan(self.config.schedule.epochs, rules, every, keep)

    @property
    def trained_images(self) -> int:
        """The number of images that the whole run trains on. An image counts each time that it is drawn."""
        return self.config.schedule.epochs * self.sampler.steps_per_epoch * self.sampler.batch_size

    @property
    def parameters(self) -> int:
        """The number of learnable values of the network."""
        return sum(parameter.numel() for parameter in self.trained.network.parameters())

    def store(self, device: torch.device) -> Images:
        """All images of the listing, for batches on `device`; see `bdlf.assembly.open_images`."""
        return open_images(self.config, self.listing, device)

    def batches(self, store: Images) -> Batches:
        """The batches that the run trains on, of the images in `store`, and of their silhouettes if a view shows them.

        Silhouettes are opened for the device of `store`; see `bdlf.assembly.open_silhouettes`.
        """
        rows = self.training_rows
        return Batches(
            self.sampler,
            store,
            rows,
            self.augmentation,
            self.trained.network.views,
            seed=self.config.seed,
            silhouettes=open_silhouettes(self.config, self.listing.iloc[rows], store.device),
        )

    def learner(self, fabric: Fabric) -> Learner:
        """Make what trains the network: its optimiser, and the average of its weights if the run keeps one.

        The network is moved to the device of `fabric`, and compiled if `compile` asks for it.
        """
        network = cast(nn.Module, self.trained.network)
        if self.config.compile != "none":
            network.compile(mode=self.config.compile)  # in place: the names of the weights stay
        model = fabric.setup_module(network)
        optimizer = build_optimizer(self.config, self.trained.network)
        averaged = Averaged(network, self.config.ema.decay) if self.config.ema.enabled else None
        self.trained = Trained(self.trained.network, averaged)
        return Learner(fabric, network, model, optimizer, self.objective, averaged, self.config.optimizer.clip)

    def embed(
        self, images: UInt8[np.ndarray, "n height width 3"], modality: Literal["vis", "ir"]
    ) -> Float[np.ndarray, "n c"]:
        """The features with which the run is scored, of RGB images of one modality: L2-normalised float32, (n, c).

        Infrared images have three equal channels. Images of another size than the run's are resized with LANCZOS, as
        the run's own images were. Raises InputError for another shape or type, and for an unknown modality.
        """
        how, size = self.scoring, self.config.image
        return extract_array(
            partial(self.network.embed, feature=how.feature),
            images,
            modality,
            size=(size.height, size.width),
            device=next(self.network.parameters()).device,
            batch_size=how.batch_size,
            flip=how.flip,
        )


def _identities(weights: dict[str, torch.Tensor]) -> int:
    """The number of identities that a network tells apart, read from its weights; 1 for a network without classifiers.

    The names of a network's classifiers begin with `classifier`, and their weights have a row for each identity.
    """
    return next((len(values) for name, values in weights.items() if name.startswith("classifier")), 1)
