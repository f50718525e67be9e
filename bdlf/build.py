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

from bdlf.config import Backbone as BackboneConfig
from bdlf.config import Config, active_weights, terms_in
from bdlf.config import Dataset as DatasetConfig
from bdlf.config import Evaluation as EvaluationConfig
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
