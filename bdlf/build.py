"""From the configuration to the parts of a run. The only code beside the commands that sees the configuration object."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import platformdirs
import torch
from lightning_fabric import Fabric

from bdlf.config import Config, active_weights, terms_in
from bdlf.config import Dataset as DatasetConfig
from bdlf.config import Optimizer as OptimizerConfig
from bdlf.data import Augmentation, IdentitySampler, listing, open_store
from bdlf.errors import InputError
from bdlf.evaluation import Setting, settings
from bdlf.models import BDLF, Backbone
from bdlf.objective import Objective
from bdlf.training.loop import Recipe
from bdlf.training.schedule import check_schedule

PRECISIONS = ("32-true", "bf16-mixed")
DEVICES = ("auto", "cpu", "cuda")


def build_listing(config: DatasetConfig) -> pd.DataFrame:
    """The images of the dataset, by name and place on disk."""
    return listing(config.name, config.root, split=config.split, synthetic=synthetic_arguments(config))


def synthetic_arguments(config: DatasetConfig) -> dict[str, int]:
    return {"seed": config.seed, **dataclasses.asdict(config.synthetic)}


def build_fabric(config: Config) -> Fabric:
    """The device and arithmetic of the run; also sets threads and determinism of this process."""
    if config.precision not in PRECISIONS:
        raise InputError(f"precision='{config.precision}' is not known; known: {', '.join(PRECISIONS)}")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    return Fabric(accelerator=accelerator(config.devices), devices=1, precision=config.precision)


def accelerator(devices: str) -> str:
    """`cpu` or `cuda`; `auto` takes a GPU where there is one."""
    if devices not in DEVICES:
        raise InputError(f"devices='{devices}' is not known; known: {', '.join(DEVICES)}")
    if devices == "cuda" and not torch.cuda.is_available():
        raise InputError("devices=cuda, but PyTorch finds no CUDA GPU here; use devices=cpu, or install a CUDA build of torch")
    return ("cuda" if torch.cuda.is_available() else "cpu") if devices == "auto" else devices


def training_rows(table: pd.DataFrame) -> np.ndarray:
    """Rows of the listing that are trained on: SYSU-MM01's validation identities are part of training, as everywhere."""
    return np.flatnonzero(table["split"].isin(["train", "val"]))


def build_sampler(config: Config, table: pd.DataFrame) -> IdentitySampler:
    chosen = table.iloc[training_rows(table)]
    return IdentitySampler(
        chosen["pid"].to_numpy(),
        chosen["modality"].to_numpy(),
        identities=config.batch.identities,
        images=config.batch.images,
        seed=config.seed,
        steps=config.schedule.steps_per_epoch,
    )


def cache_folder(config: Config) -> Path:
    return Path(config.data.cache_dir) if config.data.cache_dir else Path(platformdirs.user_cache_dir("bdlf"))


def build_store(config: Config, table: pd.DataFrame) -> np.ndarray:
    """All images of the listing, decoded (or drawn) once; see `bdlf.data.open_store`."""
    return open_store(
        table, config.dataset.root, config.image.height, config.image.width, cache_dir=cache_folder(config), render=renderer(table)
    )


def build_augmentation(config: Config) -> Augmentation:
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


def build_objective(config: Config) -> Objective:
    weights = active_weights(config.loss, config.dfe)
    terms = terms_in(config.loss)
    options = {}
    for name in weights:
        options[name] = dataclasses.asdict(terms[name])
        del options[name]["enabled"], options[name]["weight"]
    return Objective(weights, options=options, ramp=config.loss.ramp)


def build_recipe(config: Config) -> Recipe:
    schedule = config.schedule
    check_schedule(
        epochs=schedule.epochs,
        warmup_epochs=schedule.warmup_epochs,
        milestones=schedule.milestones,
        steps_per_epoch=schedule.steps_per_epoch,
    )
    return Recipe(
        epochs=schedule.epochs,
        lr=config.optimizer.lr,
        warmup_epochs=schedule.warmup_epochs,
        milestones=tuple(schedule.milestones),
        clip=config.optimizer.clip,
        seed=config.seed,
    )


def build_optimizer(config: OptimizerConfig, model: BDLF) -> torch.optim.SGD:
    """SGD with a rate of its own for the backbone, the heads, and the projections; `lr_scale` of a group is kept in it."""
    scales = {"backbone": config.backbone_scale, "heads": 1.0, "projection": config.projection_scale}
    groups = [
        {"params": parameters, "lr_scale": scales[name], "lr": config.lr * scales[name]}
        for name, parameters in model.parameter_groups().items()
        if parameters
    ]
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, weight_decay=config.weight_decay
    )


def metric_columns(config: Config, objective: Objective, chosen: list[Setting]) -> list[str]:
    """Columns of metrics.csv: one per term that is on, diagnostics, throughput, and the scores of each protocol."""
    models = ["ema", "raw"] if config.ema.enabled else ["raw"]
    scores = [f"{figure}/{setting.name}/{model}" for setting in chosen for model in models for figure in ("rank1", "mAP", "mINP")]
    measured = ["corr_base", "corr_detail", "corr_detail_centred", "attention_own"]
    return ["epoch", "lr", "total", *objective.terms, "gradient_norm", *measured, "images_per_second", "seconds", "memory_gib", *scores]
