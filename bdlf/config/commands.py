"""The configurations of the other commands, as `bdlf.config.schema` has that of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from bdlf.config.schema import Data, Dataset, Synthetic


@dataclass
class Rescore:
    """As `Evaluation`; null: as the run was scored."""

    batch: int | None = None
    flip: bool | None = None
    feature: str | None = None
    mode: str | None = None
    shots: int | None = None
    direction: str | None = None
    gallery: str | None = None
    reading: str | None = None


@dataclass
class SyntheticSource:
    """As `Synthetic`; null: the default."""

    train_identities: int | None = None
    test_identities: int | None = None
    images_per_identity: int | None = None


@dataclass
class Source:
    """As `Dataset`, for a command that trains nothing; null: as the run says, or the default."""

    name: str | None = None
    root: str | None = None
    follow_links: bool | None = None
    split: int | None = None
    seed: int | None = None
    synthetic: SyntheticSource = field(default_factory=SyntheticSource)

    def dataset(self) -> Dataset:
        """With defaults for what is null."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        drawn = {name: value for name, value in vars(self.synthetic).items() if value is not None}
        return Dataset(**(given | {"synthetic": Synthetic(**drawn)}))


@dataclass
class EvaluateConfig:
    """`python -m bdlf.evaluate`."""

    run: str | None = None  # a run folder
    features: str | None = None  # a .npz of features from any code, of the test images of `dataset`
    splits: Any = None  # run folders of RegDB's splits, or patterns for them, to collate
    selection: str = "last_epoch"  # of the run's epochs, where it was trained with selection=...
    save_features: bool = False  # of the run, as <output>/features.npz
    output: str | None = None  # null: evaluations/<...> in the run's folder, beside the features or beside the runs
    dataset: Source = field(default_factory=Source)
    data: Data = field(default_factory=Data)
    evaluation: Rescore = field(default_factory=Rescore)
    devices: str = "auto"
    threads: int | None = None
    debug: bool = False


@dataclass
class CheckConfig:
    """`python -m bdlf.check`. Of RegDB, `dataset.split=null` is all ten splits."""

    dataset: Source = field(default_factory=Source)
    fast: bool = False  # open no image
    json: bool = False  # one JSON object instead of tables
    debug: bool = False


@dataclass
class SynthesizeConfig:
    """`python -m bdlf.synthesize`."""

    layout: str = MISSING  # regdb | sysu | llcm
    root: str = MISSING  # the folder to write; absent, empty or written by this command before
    seed: int = 0
    identities: int = 60
    images: int = 10  # of each identity by each camera that sees it
    height: int = 128
    width: int = 64
    debug: bool = False


@dataclass
class BenchmarkConfig:
    """`python -m bdlf.benchmark`."""

    suite: str = "all"  # input | step | evaluation | startup | all
    batch: int = 64  # images, half of each modality
    height: int = 384
    width: int = 144
    stage: int = 3
    blocks: int = 6
    recompute: bool = False
    precision: str = "32-true"
    compile: str = "none"
    devices: str = "auto"
    threads: int | None = None
    repeats: int = 5  # of what is slow; ten times as many of what is fast
    growth: bool = True  # also other sizes
    json: str = "benchmark.json"  # the file to write
    debug: bool = False
