"""The configurations of all commands but `bdlf.train`, whose configuration is in `bdlf.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from bdlf.config.schema import Data, Dataset, Synthetic


@dataclass
class Rescore:
    """The keys of `Evaluation` for scoring a run again; null: as the run was scored when it was trained."""

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
    """The keys of `Synthetic`; null: its default."""

    train_identities: int | None = None
    test_identities: int | None = None
    images_per_identity: int | None = None


@dataclass
class Source:
    """The keys of `Dataset` for commands that train nothing; null: the value of the run, or else the default."""

    name: str | None = None
    root: str | None = None
    follow_links: bool | None = None
    split: int | None = None
    seed: int | None = None
    synthetic: SyntheticSource = field(default_factory=SyntheticSource)

    def dataset(self) -> Dataset:
        """These values as a `Dataset`, with its default for each null."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        drawn = {name: value for name, value in vars(self.synthetic).items() if value is not None}
        return Dataset(**(given | {"synthetic": Synthetic(**drawn)}))


@dataclass
class EvaluateConfig:
    """`python -m bdlf.evaluate`."""

    run: str | None = None  # a run folder
    features: str | None = None  # a .npz file of features of the test images of `dataset`, from any code
    explain: bool = False  # say what is evaluated on `dataset`, without any data
    splits: Any = None  # run folders of RegDB's splits, or patterns of such folders, whose results are averaged
    selection: str = "last_epoch"  # which epoch of the run, if it was trained with selection=...
    save_features: bool = False  # true: write the features of the run to <output>/features.npz
    output: str | None = None  # null: evaluations/<...> in the run folder, beside the features, or beside the runs
    dataset: Source = field(default_factory=Source)
    data: Data = field(default_factory=Data)
    evaluation: Rescore = field(default_factory=Rescore)
    devices: str = "auto"
    threads: int | None = None
    debug: bool = False


@dataclass
class VisualizeConfig:
    """`python -m bdlf.visualize`."""

    run: str | None = None  # a run folder
    runs: Any = None  # run folders, or patterns of such folders, whose terms are laid over each other
    features: str | None = None  # a .npz file of features of the test images of `dataset`, from any code
    what: Any = None  # attention | ranking | embedding | distances | batch | terms, or several; null: all
    pids: Any = None  # identities to show, or several; null: chosen by average precision, by the seed, or the first
    width: int = 170  # of a figure in mm: 170 or 85, for both columns of a page or one
    map: str = "gradient"  # attention: gradient | norm, how a map becomes heat
    stage: int | None = None  # attention: stage of the backbone, 1..4; null: the last one as large as the detail maps
    method: str = "tsne"  # embedding: tsne | pca
    trial: int = 0  # ranking: which gallery of the protocol
    seed: int = 0  # embedding, distances: the identities and images that are drawn, and t-SNE
    selection: str = "last_epoch"  # which epoch of the run, if it was trained with selection=...
    output: str | None = None  # null: figures in the run folder, beside the features, or beside the runs
    dataset: Source = field(default_factory=Source)
    data: Data = field(default_factory=Data)
    evaluation: Rescore = field(default_factory=Rescore)
    devices: str = "auto"
    threads: int | None = None
    debug: bool = False


@dataclass
class ProbeConfig:
    """`python -m bdlf.probe`."""

    run: str | None = None  # a run folder
    features: str | None = None  # a .npz file of features of the test images of `dataset`, from any code
    what: Any = None  # features of the run: Z | Z_B | Z_D | Zbar_D | Z_M, or several; null: all that it has
    seed: int = 0  # draws the folds of the identities
    selection: str = "last_epoch"  # which epoch of the run, if it was trained with selection=...
    output: str | None = None  # null: the run folder, or beside the features
    dataset: Source = field(default_factory=Source)
    data: Data = field(default_factory=Data)
    devices: str = "auto"
    threads: int | None = None
    debug: bool = False


@dataclass
class CheckConfig:
    """`python -m bdlf.check`. For RegDB, `dataset.split=null` checks all ten splits."""

    dataset: Source = field(default_factory=Source)
    fast: bool = False  # true: do not open the images
    json: bool = False  # true: print one JSON object instead of tables
    debug: bool = False


@dataclass
class SynthesizeConfig:
    """`python -m bdlf.synthesize`."""

    layout: str = MISSING  # regdb | sysu | llcm
    root: str = MISSING  # the folder to write: it must be absent, empty, or written by this command before
    seed: int = 0
    identities: int = 60
    images: int = 10  # of each identity from each camera that sees the identity
    height: int = 128
    width: int = 64
    silhouettes: str | None = None  # a second folder, which gets the body-shape map of every image
    debug: bool = False


@dataclass
class BenchmarkConfig:
    """`python -m bdlf.benchmark`."""

    suite: str = "all"  # input | step | evaluation | startup | methods | all; all leaves out methods
    batch: int = 64  # images in a batch, half of them of each modality
    height: int = 384
    width: int = 144
    stage: int = 3
    blocks: int = 6
    recompute: bool = False
    precision: str = "32-true"
    compile: str = "none"
    devices: str = "auto"
    threads: int | None = None
    repeats: int = 5  # repetitions of slow measurements; fast ones are repeated ten times as often
    growth: bool = True  # true: measure other sizes too
    json: str = "benchmark.json"  # the file to which the results are written
    debug: bool = False
