"""What figures are drawn from: a run, several runs laid over each other, or a file of features of any code."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from bdlf.assembly import check_options, open_images, read_listing
from bdlf.config import Config, VisualizeConfig
from bdlf.datasets import DATASETS
from bdlf.evaluation import Asked, Setting, settings
from bdlf.experiment import Experiment, open_run, prepare
from bdlf.inside.features import InsideFeatures, features_of_file, inside_features
from bdlf.runs.folder import RunFolder, read_config
from bdlf.system.device import accelerator
from bdlf.system.errors import InputError

_THUMBNAIL = (128, 64)
"""Height and width of the images beside features of a file, in pixels."""


class Material:
    """Opens each part of what `config` names when a figure first asks for it, and only once.

    Every part raises InputError if it cannot be had, so that the figures that do not need it can still be drawn.
    """

    def __init__(self, config: VisualizeConfig) -> None:
        self.config = config
        self.pids = numbers_of(config.pids)
        self._open = ExitStack()

    @cached_property
    def device(self) -> torch.device:
        """Where networks compute."""
        return torch.device(accelerator(self.config.devices))

    @cached_property
    def folder(self) -> RunFolder:
        """The folder of `run=`. Raises InputError if there is none."""
        if self.config.run is None:
            raise InputError("it is drawn of a run: give run=FOLDER")
        return RunFolder(Path(self.config.run))

    @cached_property
    def options(self) -> Config:
        """The run's own configuration, with the keys about scoring and about this machine that were given."""
        given, options = self.config, read_config(self.folder.config)
        chosen = {name: value for name, value in dataclasses.asdict(given.evaluation).items() if value is not None}
        options.evaluation = dataclasses.replace(options.evaluation, **chosen)
        options.dataset.root = given.dataset.root or options.dataset.root
        options.dataset.follow_links |= bool(given.dataset.follow_links)
        options.data, options.devices, options.threads = given.data, given.devices, given.threads
        check_options(options)
        return options

    @cached_property
    def run(self) -> Experiment:
        """The run with its weights."""
        options = self.options
        weights = self.folder.weights(self.config.selection)
        if not weights.is_file():
            raise InputError(
                f"{self.folder.path} has no weights ({weights.name} is not in checkpoints/), so only its terms and a "
                "batch can be drawn; restore the file, or train again with rerun=true"
            )
        return open_run(self.folder.path, selection=self.config.selection, config=options, device=self.device)

    @cached_property
    def untrained(self) -> Experiment:
        """The run as it was before it trained, which needs no weights."""
        return prepare(self.options, resumes=True)

    @cached_property
    def runs(self) -> dict[str, Experiment]:
        """The runs of `run=` and `runs=` by their names in a legend: label and seed, with the hash where it matters."""
        folders = [] if self.config.run is None else [self.folder]
        folders += [RunFolder(Path(found)) for found in paths_of(self.config.runs)]
        if not folders:
            raise InputError("it is drawn of runs: give run=FOLDER or runs=FOLDERS")
        folders = list({folder.path.resolve(): folder for folder in folders}.values())
        short = [f"{folder.label} {folder.path.resolve().name}" for folder in folders]
        whole = [f"{folder.path.resolve().parent.name} {folder.path.resolve().name}" for folder in folders]
        names = short if len(set(short)) == len(short) else whole
        return {
            name: Experiment(read_config(folder.config), folder) for name, folder in zip(names, folders, strict=True)
        }

    @cached_property
    def inside(self) -> InsideFeatures:
        """The features of the test images: all that the network has, or those of the file."""
        if self.config.features is None:
            return inside_features(self.run, device=self.device)
        source = self.config.dataset
        if source.name is None:
            raise InputError(f"features= needs their dataset: dataset={'|'.join(DATASETS)}")
        return features_of_file(self.config.features, source.dataset())

    @cached_property
    def table(self) -> pd.DataFrame:
        """The listing whose rows `inside.rows` means."""
        if self.config.features is None:
            return self.run.table
        return read_listing(self.config.dataset.dataset(), splits=("test",))

    @cached_property
    def setting(self) -> Setting:
        """The first way to score the test images that the run, or the options, ask for."""
        if self.config.features is None:
            return self.run.settings["test"][0]
        source = self.config.dataset.dataset()
        return settings(source.name, self.table, Asked.of(self.config.evaluation), root=source.root)[0]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The images of some rows of `table`, uint8 (n, height, width, 3)."""
        if self.config.features is None:
            return np.asarray(self.run.store(self.device).take(rows).cpu())
        cache = self._open.enter_context(TemporaryDirectory())
        options = Config(dataset=self.config.dataset.dataset())
        options.image.height, options.image.width = _THUMBNAIL
        options.data.cache_dir = cache
        few = self.table.iloc[rows].reset_index(drop=True)
        images = np.asarray(open_images(options, few, torch.device("cpu")).take(np.arange(len(few))))
        self._open.close()
        return images

    @property
    def title(self) -> str:
        """What the figures are of, in words."""
        if self.config.features is not None:
            return f"the features {Path(self.config.features).name} ({self.config.dataset.name})"
        return ", ".join(self.runs)

    @property
    def output(self) -> Path:
        """The folder for the figures: `output=`, or `figures` in the run, beside the features, or beside the runs."""
        if self.config.output is not None:
            return Path(self.config.output)
        if self.config.features is not None:
            file = Path(self.config.features)
            return file.with_name(f"{file.stem}-figures")
        if self.config.run is not None:
            return self.folder.path / "figures"
        first = next(iter(self.runs.values())).folder.path
        return first.resolve().parents[1] / "figures"


def paths_of(patterns: Any) -> list[str]:
    """The folders that a path, a pattern or a list of them names. Raises InputError if one matches nothing."""
    found: list[str] = []
    for pattern in _members(patterns):
        exact = os.path.exists(pattern)
        matches = (
            [pattern] if exact else [one for one in sorted(glob.glob(pattern)) if RunFolder(Path(one)).config.is_file()]
        )
        if not matches:
            raise InputError(f"runs={pattern}: no such run folder; name folders like outputs/synthetic/*/seed0")
        found += matches
    return found


def numbers_of(given: Any) -> tuple[int, ...]:
    """The identities of `pids=`, in their order. Raises InputError for what is no whole number."""
    found = []
    for member in _members(given):
        try:
            found.append(int(member))
        except ValueError:
            raise InputError(f"pids={member}: identities are whole numbers, like pids=5001,5002") from None
    return tuple(dict.fromkeys(found))


def _members(given: Any) -> list[str]:
    several = isinstance(given, Sequence) and not isinstance(given, str)
    return [] if given is None else [str(member) for member in (given if several else [given])]
