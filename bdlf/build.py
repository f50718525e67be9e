"""From the configuration to the parts of a run: beside the commands, the only code that sees the configuration."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import pandas as pd
import platformdirs
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import nn

from bdlf.active import active_weights, flat
from bdlf.config import Config, terms_in
from bdlf.config import Dataset as DatasetConfig
from bdlf.config import Optimizer as OptimizerConfig
from bdlf.config.checks import check_sizes
from bdlf.data import listing
from bdlf.data.augment import Augmentation
from bdlf.data.holdout import hold_out, train_on_all
from bdlf.data.images import Images, check_cache, choose_cache
from bdlf.data.sampler import IdentitySampler
from bdlf.data.store import open_store
from bdlf.data.synthetic.drawing import render
from bdlf.datasets.decoding import check_range
from bdlf.datasets.problems import STRICT, Problems
from bdlf.evaluation import Setting, settings
from bdlf.methods.bdlf import BDLF, EMBEDDED, BegOptions, DetailOptions
from bdlf.networks.backbone import Backbone
from bdlf.networks.embeddings import Embeddings
from bdlf.objective import Objective
from bdlf.runs.identity import dataset_id
from bdlf.runs.selection import VALIDATION, selection_rules
from bdlf.system.errors import InputError
from bdlf.system.memory import keep_freed_memory, require_memory
from bdlf.system.processes import default_threads
from bdlf.training.ema import Averaged
from bdlf.training.loop import Recipe
from bdlf.training.nonfinite import POLICIES
from bdlf.training.schedule import check_schedule

PRECISIONS = ("32-true", "bf16-mixed")
COMPILES = ("none", "default", "reduce-overhead", "max-autotune")
"""Modes of torch.compile; `reduce-overhead` and `max-autotune` take CUDA graphs on a GPU."""
DEVICES = ("auto", "cpu", "cuda")
TRACKERS = ("wandb", "none")
_THREADS = torch.get_num_threads()  # PyTorch's choice


def build_listing(
    config: DatasetConfig, *, splits: Sequence[str] | None = None, problems: Problems = STRICT
) -> pd.DataFrame:
    """The images of the dataset (of some of its splits), by name and place on disk; see `bdlf.data.listing`."""
    if config.name == "synthetic":
        drawn = {"seed": config.seed, **dataclasses.asdict(config.synthetic)}
        return listing(config.name, None, split=config.split, synthetic=drawn, splits=splits, problems=problems)
    return listing(
        config.name,
        config.root,
        split=config.split,
        splits=splits,
        follow_links=config.follow_links,
        problems=problems,
    )


def dataset_name(config: DatasetConfig) -> str:
    """The dataset's name beside every number: `regdb`, or `regdb-synthetic` for a tree that this package has drawn."""
    return dataset_id(config)


def build_fabric(config: Config) -> Fabric:
    """The device and arithmetic of the run; also sets threads and determinism of this process.

    The run is one process, whatever SLURM, MPI or Kubernetes have set in the environment: Fabric does not look there.
    """
    torch.set_num_threads(config.threads or default_threads(_THREADS))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what determinism needs, before CUDA starts
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # 32-true means float32
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if accelerator(config.devices) == "cpu":
        keep_freed_memory()
    precision = cast(Literal["32-true", "bf16-mixed"], config.precision)
    return Fabric(
        accelerator=accelerator(config.devices), devices=1, precision=precision, plugins=[LightningEnvironment()]
    )


def accelerator(devices: str) -> str:
    """`cpu` or `cuda`; `auto` takes a GPU where there is one."""
    if devices not in DEVICES:
        raise InputError(f"devices='{devices}' is not known; known: {', '.join(DEVICES)}")
    if devices == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "devices=cuda, but PyTorch finds no CUDA GPU here; use devices=cpu, or install a CUDA build of torch"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if devices == "auto" else devices


def build_partition(config: Config, table: pd.DataFrame) -> pd.DataFrame:
    """The listing with what is trained on in 'train', what chooses an epoch in 'val' (if anything), the rest 'test'."""
    if VALIDATION in selection_rules(config.selection):
        return hold_out(table, share=config.evaluation.holdout, seed=config.dataset.seed)
    return train_on_all(table)


def training_rows(table: pd.DataFrame) -> np.ndarray:
    """Rows of a partition that are trained on."""
    return np.flatnonzero(table["split"] == "train")


def build_sampler(config: Config, table: pd.DataFrame) -> IdentitySampler:
    """Batches of a partition's training rows, by the seed of the run."""
    chosen = table.iloc[training_rows(table)]
    sampler = IdentitySampler(
        chosen["pid"].to_numpy(),
        chosen["modality"].to_numpy(),
        identities=config.batch.identities,
        images=config.batch.images,
        seed=config.seed,
        steps=config.schedule.steps_per_epoch,
    )
    drawn = 16 * sampler.steps_per_epoch * len(sampler.pids)  # a random number and a rank for each step and identity
    require_memory(f"schedule.steps_per_epoch={config.schedule.steps_per_epoch}", "drawing an epoch", drawn)
    return sampler


def _cache_of_user() -> str:
    try:
        folder = platformdirs.user_cache_dir("bdlf")
    except RuntimeError:  # what newer versions of platformdirs do
        folder = "~"
    if folder.startswith("~"):
        raise InputError("this user has no home folder for the cache of decoded images: set data.cache_dir=FOLDER")
    return folder


def build_store(config: Config, table: pd.DataFrame, device: torch.device) -> Images:
    """All images of the listing, decoded (or drawn) once; see `bdlf.data.open_store`, `bdlf.data.images.Images`."""
    image, drawn = config.image, config.dataset.name == "synthetic"
    choose_cache(config.data.cache, 3 * len(table) * image.height * image.width, device)  # before minutes of decoding
    store = open_store(
        table,
        None if drawn else config.dataset.root,
        image.height,
        image.width,
        cache_dir=config.data.cache_dir or _cache_of_user(),
        render=render if drawn else None,
        value_range=image.range,
    )
    return Images(store, device, config.data.cache)


def build_augmentation(config: Config) -> Augmentation:
    """Of the training images; evaluation sees them as they are."""
    return Augmentation(**dataclasses.asdict(config.augment))


def build_settings(config: Config, table: pd.DataFrame) -> list[Setting]:
    """Every protocol that the result will hold."""
    chosen = config.evaluation
    return settings(
        config.dataset.name,
        table,
        root=config.dataset.root,
        mode=chosen.mode,
        shots=chosen.shots,
        direction=chosen.direction,
        gallery=chosen.gallery,
        reading=chosen.reading,
    )


def build_validation_settings(config: Config, table: pd.DataFrame) -> list[Setting]:
    """Every protocol, at its default, on the identities held out to choose an epoch; none where none is held out."""
    if VALIDATION not in selection_rules(config.selection):
        return []
    return settings(config.dataset.name, table, root=config.dataset.root, split="val")


def build_objective(config: Config) -> Objective:
    """The terms that are on, with their weights and options."""
    weights = active_weights(flat(config))
    terms = terms_in(config.loss)
    options = {}
    for name in weights:
        options[name] = dataclasses.asdict(terms[name])
        del options[name]["enabled"], options[name]["weight"]
    objective = Objective(weights, options=options, ramp=config.loss.ramp)
    _try_once(objective)
    return objective


def _try_once(objective: Objective) -> None:
    """Every term on random numbers: an unknown form is refused here, not in the first step."""
    random = torch.Generator().manual_seed(0)
    rows, width, identities = 8, 4, 3
    many = [field.name for field in dataclasses.fields(Embeddings) if field.name not in ("attention", "logits")]
    height = dict.fromkeys(many, rows) | {"fused": rows // 2, "projection": width}
    features = {name: torch.randn(height[name], width, generator=random) for name in many}
    logits = {name: torch.randn(height[name], identities, generator=random) for name in objective.logits}
    objective(Embeddings(**features, logits=logits), torch.arange(rows) % (rows // 2) // 2, 1.0)


def check_values(config: Config) -> None:
    """Raise InputError, naming the key, for a number or name that would fail only later, or not at all."""
    at_least = [
        ("seed", config.seed, 0),
        ("threads", config.threads, 1),
        ("evaluation.batch", config.evaluation.batch, 1),
        ("evaluation.every", config.evaluation.every, 1),
        ("batch.identities", config.batch.identities, 2),
        ("batch.images", config.batch.images, 1),
        ("checkpoint.every_minutes", config.checkpoint.every_minutes, 0),
        ("checkpoint.every_steps", config.checkpoint.every_steps, 1),
        ("checkpoint.keep", config.checkpoint.keep, 1),
        ("image.height", config.image.height, 1),
        ("image.width", config.image.width, 1),
        ("optimizer.backbone_scale", config.optimizer.backbone_scale, 0),
        ("optimizer.projection_scale", config.optimizer.projection_scale, 0),
        ("optimizer.weight_decay", config.optimizer.weight_decay, 0),
        ("loss.tri.margin", config.loss.tri.margin, 0),
        ("loss.skd.gamma", config.loss.skd.gamma, 0),
    ]
    for key, value, least in at_least:
        if value is not None and value < least:
            raise InputError(f"{key}={value}: {least} or more is needed")
    for key, value in (("loss.dcorr.gamma", config.loss.dcorr.gamma), ("loss.skd.delta", config.loss.skd.delta)):
        if not value > 0:
            raise InputError(f"{key}={value}: a number above 0 is needed, or the term divides by 0")
    if config.ema.enabled and not 0 <= config.ema.decay < 1:
        raise InputError(f"ema.decay={config.ema.decay}: a number in [0, 1) is needed")
    check_sizes(config)
    rates = config.optimizer
    if not rates.lr > 0:
        raise InputError(f"optimizer.lr={rates.lr}: a number above 0 is needed")
    if rates.clip is not None and not rates.clip > 0:
        raise InputError(f"optimizer.clip={rates.clip}: a number above 0 is needed, or null for no clipping")
    if not 0 <= rates.momentum < 1 or (rates.nesterov and rates.momentum == 0):
        raise InputError(f"optimizer.momentum={rates.momentum}: a number in (0, 1) is needed, 0 with nesterov=false")
    if config.evaluation.feature not in EMBEDDED:
        raise InputError(f"evaluation.feature='{config.evaluation.feature}' is not known; known: {', '.join(EMBEDDED)}")
    if config.precision not in PRECISIONS:
        raise InputError(f"precision='{config.precision}' is not known; known: {', '.join(PRECISIONS)}")
    if config.compile not in COMPILES:
        raise InputError(f"compile='{config.compile}' is not known; known: {', '.join(COMPILES)}")
    if config.tracker.name not in TRACKERS:
        raise InputError(f"tracker.name='{config.tracker.name}' is not known; known: {', '.join(TRACKERS)}")
    if config.on_nonfinite not in POLICIES:
        raise InputError(f"on_nonfinite='{config.on_nonfinite}' is not known; known: {', '.join(POLICIES)}")
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


def build_recipe(config: Config) -> Recipe:
    """What the loop needs beside the objects it drives."""
    schedule = config.schedule
    return Recipe(
        epochs=schedule.epochs,
        lr=config.optimizer.lr,
        warmup_epochs=schedule.warmup_epochs,
        milestones=tuple(schedule.milestones),
        clip=config.optimizer.clip,
        seed=config.seed,
        on_nonfinite=config.on_nonfinite,
    )


def build_optimizer(config: OptimizerConfig, model: BDLF) -> torch.optim.SGD:
    """SGD with a rate of its own for backbone, heads and projections; a group keeps its factor as `lr_scale`."""
    scales = {"backbone": config.backbone_scale, "heads": 1.0, "projection": config.projection_scale}
    groups = [
        {"params": parameters, "lr_scale": scales[name], "lr": config.lr * scales[name]}
        for name, parameters in model.parameter_groups().items()
        if parameters
    ]
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=True,
    )


def build_model(config: Config, identities: int, objective: Objective, *, weights: str | None = None) -> BDLF:
    """The network that the objective needs; `weights` other than the configuration's for a checkpoint to be loaded."""
    backbone = Backbone(
        config.backbone.name,
        weights=weights or config.backbone.weights,
        last_stride=config.backbone.last_stride,
        pooling=config.backbone.pooling,
        seed=config.seed,
    )
    dfe = dataclasses.asdict(config.dfe)
    return BDLF(
        backbone,
        identities,
        features=objective.features,
        logits=objective.logits,
        stage=dfe.pop("stage"),
        detail=DetailOptions(invertible=dfe.pop("enabled"), **dfe),
        beg=BegOptions(**dataclasses.asdict(config.beg)),
        seed=config.seed,
    )


def device_name(device: torch.device) -> str:
    """For the record: the GPU's name, or the number of CPU threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def set_up(config: Config, fabric: Fabric, network: BDLF) -> nn.Module:
    """`network`, moved to Fabric's device and compiled where that is asked for, as training calls it."""
    if config.compile != "none":
        network.compile(mode=config.compile)  # in place: names of weights, copies and `embed` stay what they are
    return fabric.setup_module(network)


def models_to_score(network: BDLF, averaged: Averaged | None) -> dict[str, BDLF]:
    """The averaged model, which is what is reported, and the raw one beside it."""
    return {**({"ema": cast(BDLF, averaged.module)} if averaged is not None else {}), "raw": network}
