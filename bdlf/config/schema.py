"""The configuration of a run: every key with its type and its default.

A key or a type that is not here is refused before anything starts. The choices (options of groups, recipes per dataset,
rows of the paper's tables) are YAML files under `conf/` and `sweeps/`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Synthetic:
    """How much of the synthetic set is drawn; read only where `dataset.name` is `synthetic`."""

    train_identities: int = 96
    test_identities: int = 64
    images_per_identity: int = 8  # of each modality


@dataclass
class Dataset:
    name: str = MISSING  # sysu | regdb | llcm | synthetic
    root: str | None = None
    follow_links: bool = False  # to files outside of root
    split: int = 1  # RegDB's split, 1..10
    seed: int = 0  # of the synthetic identities, and of those held out; independent of the run's seed
    drawn: bool | None = None  # recorded by a run: whether bdlf.synthesize wrote the tree at root
    synthetic: Synthetic = field(default_factory=Synthetic)


@dataclass
class Image:
    height: int = 384
    width: int = 144
    range: str = (
        "file"  # file | set | full: what is black and white in grey of over 8 bits; see bdlf/datasets/decoding.py
    )


@dataclass
class Data:
    cache_dir: str | None = None  # decoded images; null: the user's cache folder
    cache: str = "auto"  # where training finds them: device | host | disk; auto: the first with room, on a CPU disk


@dataclass
class Batch:
    identities: int = 8
    images: int = 4  # of each identity and modality


@dataclass
class Augment:
    crop: bool = True
    pad: int = 10  # pixels of zero padding before the random crop
    flip: float = 0.5  # probability
    erase: float = 0.5  # probability, channel-level random erasing
    exchange: float = 0.5  # probability, visible half only


@dataclass
class Backbone:
    name: str = "resnet50"  # resnet50 | resnet18 | resnet10
    weights: str = "imagenet"  # imagenet | none | a file
    weights_sha256: str | None = None  # recorded by a run: the content of that file
    last_stride: int = 1
    pooling: str = "gem"  # gem | avg


@dataclass
class Dfe:
    enabled: bool = True
    stage: int = 3
    blocks: int = 6
    scale: str = "tanh"  # tanh: exp(tanh(F3)) | exp: exp(F3), Eq. 3 as printed
    init: str = "zero"  # of the last convolution of each F: zero | default
    attention_scaled: bool = True  # false: Eq. 4 as printed
    attention_zero_value: bool = False  # W_v starts at zero
    mask_own_identity: bool = False  # rows do not attend to their own identity in the other modality
    norm: str = "per_modality"  # BatchNorm of Z^D: per_modality | shared
    recompute: bool = False  # less memory for more time: block inputs from their outputs; same result up to rounding


@dataclass
class Beg:
    projection: str = "free"  # free: learnable P, Eq. 10 by the orth term | orthogonal: P = U U^T by construction
    init: str = "projector"  # of a free P: projector (rank C/2) | kaiming
    fusion_scaled: bool = True  # batch step of Eq. 16 also / sqrt(C); false: as printed
    fusion_zero_value: bool = True  # Pv and Qv start at zero; false: random


@dataclass
class Switch:
    """A group of terms. None (only `detail`): on whenever Z^D is built for something else."""

    enabled: bool | None = True


@dataclass
class Term:
    """One term. `enabled` None: as its group says; a weight of 0 switches it off as well."""

    enabled: bool | None = True
    weight: float = 1.0


@dataclass
class Triplet(Term):
    margin: float = 0.3


@dataclass
class Mutual(Term):
    reduction: str = "sum"  # of the two directions: sum | mean


@dataclass
class Fkl(Term):
    form: str = "normalized"  # normalized | raw (literal)
    detach: bool = True  # no gradient into Z^D


@dataclass
class Dcorr(Term):
    gamma: float = 1.01
    clamp: bool = False  # clamp the denominator's correlations at 0 before squaring
    detach: bool = True


@dataclass
class Skd(Term):
    form: str = "stable"  # stable | outside | literal
    delta: float = 0.01
    gamma: float = 0.1


@dataclass
class Loss:
    ramp: float = 0.3  # fraction of the run over which the distillation terms grow to full weight
    app: Switch = field(default_factory=Switch)
    cmf: Switch = field(default_factory=Switch)
    detail: Switch = field(default_factory=Switch)
    id: Term = field(default_factory=Term)
    tri: Triplet = field(default_factory=Triplet)
    okl: Mutual = field(default_factory=Mutual)
    id_detail: Term = field(default_factory=Term)
    odkl: Term = field(default_factory=Term)
    id_base: Term = field(default_factory=Term)
    bkl: Mutual = field(default_factory=Mutual)
    id_fused: Term = field(default_factory=Term)
    fbkl: Mutual = field(default_factory=Mutual)
    fkl: Fkl = field(default_factory=Fkl)
    dkl: Term = field(default_factory=Term)
    dcorr: Dcorr = field(default_factory=Dcorr)
    orth: Term = field(default_factory=Term)
    skd: Skd = field(default_factory=Skd)


@dataclass
class Optimizer:
    lr: float = 0.1
    backbone_scale: float = 0.1  # the backbone's rate / lr
    projection_scale: float = 0.1  # the rate of P and of the fusion's matrices / lr
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    clip: float | None = 10.0  # gradient norm; null: not clipped


@dataclass
class Schedule:
    epochs: int = 220
    steps_per_epoch: int | None = None  # null: floor(max(#V, #I) / images of one modality in a batch)
    warmup_epochs: int = 10  # rate (epoch + 1) / warmup_epochs; 0: none
    milestones: list[int] = field(default_factory=list)  # epochs from which the rate is divided by 10, again


@dataclass
class Ema:
    enabled: bool = True
    decay: float = 0.999


@dataclass
class Evaluation:
    every: int | None = None  # epochs between evaluations during training; null: the end, or each if one is chosen
    holdout: float = 0.2  # share of training identities that selection=validation keeps (SYSU-MM01: its own 99)
    batch: int = 256  # images embedded at a time
    flip: bool = True
    feature: str = "after_bn"  # after_bn | before_bn (the BN-neck)
    mode: str | None = None  # null in these five: every one that the dataset has, at its default
    shots: int | None = None
    direction: str | None = None
    gallery: str | None = None
    reading: str | None = None


@dataclass
class Tracker:
    name: str = "wandb"  # wandb | none
    project: str | None = None  # null: WANDB_PROJECT, or else bdlf
    entity: str | None = None  # null: WANDB_ENTITY, or else that of the login
    pictures: bool | None = None  # log a batch as a picture; null: of drawn images only, licensed ones stay here


@dataclass
class Checkpoint:
    """Written after an epoch, unless that would take over 2 % of the time, and besides:"""

    every_minutes: float | None = 10.0  # in the middle of an epoch too; null: not
    every_steps: int | None = None
    keep: int = 2  # the newest, and older ones to fall back on


@dataclass
class Config:
    """A run. What each group's options set is in `conf/<group>/`."""

    dataset: Dataset = field(default_factory=Dataset)
    image: Image = field(default_factory=Image)
    data: Data = field(default_factory=Data)
    batch: Batch = field(default_factory=Batch)
    augment: Augment = field(default_factory=Augment)
    backbone: Backbone = field(default_factory=Backbone)
    dfe: Dfe = field(default_factory=Dfe)
    beg: Beg = field(default_factory=Beg)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    ema: Ema = field(default_factory=Ema)
    evaluation: Evaluation = field(default_factory=Evaluation)
    selection: Any = "last_epoch"  # last_epoch | validation | best_on_test, or a list of them
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    tracker: Tracker = field(default_factory=Tracker)
    precision: str = "32-true"  # 32-true | bf16-mixed
    compile: str = "none"  # the network that is trained: none | torch.compile's default, reduce-overhead, max-autotune
    devices: str = "auto"  # auto | cpu | cuda
    threads: int | None = None  # CPU threads; null: PyTorch's choice
    deterministic: bool = False
    on_nonfinite: str = "stop"  # stop | skip: a step whose loss or gradient is not finite; ten in a row stop too
    seed: int = 0
    variant: str = "full"
    label: str | None = None  # name of the run's folder; null: from variant, stage and blocks
    output: str = "outputs"
    sweep: str = "multirun"  # name under <output>/sweeps of what -m or a sweep file started
    objective: str = "mean_mAP"  # the figure that a sweeper like Optuna's optimises; an unknown one lists all
    from_run: str | None = None  # on the command line: a run folder whose config.yaml takes the place of the defaults
    dry_run: bool = False
    rerun: bool = False
    debug: bool = False


def terms_in(loss: Loss) -> dict[str, Term]:
    """Every term of the schema by name, in the order of the schema."""
    values = ((f.name, getattr(loss, f.name)) for f in dataclasses.fields(loss))
    return {name: value for name, value in values if isinstance(value, Term)}
