"""The configuration of a run: every key with its type and its default.

A command refuses unknown keys and values of a wrong type before it starts anything. The options of the groups, the
recipe of each dataset and the rows of the paper's tables are YAML files under `conf/` and `sweeps/`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Synthetic:
    """The size of the synthetic dataset. It has no effect unless `dataset.name` is `synthetic`."""

    train_identities: int = 96
    test_identities: int = 64
    images_per_identity: int = 8  # in each modality


@dataclass
class Dataset:
    name: str = MISSING  # sysu | regdb | llcm | synthetic
    root: str | None = None
    silhouettes: str | None = None  # folder of body-shape maps, which method=sgiel needs of datasets with files
    follow_links: bool = False  # true: read files outside of root to which links lead
    split: int = 1  # 1..10, for RegDB only
    seed: int = 0  # draws the synthetic identities and chooses the held-out ones; independent of the run's seed
    drawn: bool | None = None  # recorded by a run: whether bdlf.synthesize wrote the files below root
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
    cache_dir: str | None = None  # folder of decoded images; null: the user's cache folder
    cache: str = "auto"  # where images are kept: device | host | disk; auto: the first with room, on a CPU disk


@dataclass
class Batch:
    identities: int = 8
    images: int = 4  # of each identity in each modality


@dataclass
class Augment:
    crop: bool = True
    pad: int = 10  # zero pixels added on each side before the random crop
    flip: float = 0.5  # probability
    erase: float = 0.5  # probability, channel-level random erasing
    exchange: float = 0.5  # probability of channel exchange, visible images only
    erase_area: list[float] = field(default_factory=lambda: [0.02, 0.4])  # smallest and largest share of the image
    erase_fill: str = "caj"  # caj | imagenet | zero: what erased pixels become, after normalisation
    grey: float = 0.0  # probability that an image of either modality becomes grey before the crop


BDLF_TERMS = (
    *("id", "tri", "okl", "id_detail", "odkl", "id_base", "bkl", "id_fused", "fbkl"),
    *("fkl", "dkl", "dcorr", "orth", "skd"),
)
"""The terms of the paper's total loss, Eq. 22."""


@dataclass
class TwoStream:
    """The network of AGW, CAJ and LUPI. Only these methods read it."""

    nonlocal_width: str = "released"  # released | half: channels inside a non-local block, 1 or half of the map's
    stem_relu: bool = True  # false: no ReLU before the max-pool of the private stems, as LUPI's released code has it


@dataclass
class Deen:
    """The network of DEEN. Only this method reads it."""

    stage: int = 3  # the expansion follows this stage of the ResNet: 3 | 2 (released for RegDB, without stage 4)
    expansion: bool = True  # false: without the two branches of DEE; then cpm and ort must be off
    aggregation: bool = True  # false: without MFA
    tokens: str = "pairs"  # pairs | positions: what attends in PNL, as the released code computes it, or as printed
    attention: str = "released"  # released | softmax: weights divided by a constant, or a softmax as printed


@dataclass
class Mmn:
    """The network of MMN. Only this method reads it."""

    parts: int = 4  # horizontal stripes of the last map; 1: the whole map
    learned_map: bool = False  # true: the map e of the term dcl is trained; the released code leaves it random


@dataclass
class Sgiel:
    """SGIEL. Only this method reads it."""

    balanced: bool = True  # false: its two groups of terms are not weighted by their gradients


@dataclass
class Method:
    name: str = "bdlf"  # one of bdlf.methods.METHODS
    terms: list[str] = field(default_factory=lambda: list(BDLF_TERMS))  # the loss terms that the method may have
    two_stream: TwoStream = field(default_factory=TwoStream)
    deen: Deen = field(default_factory=Deen)
    mmn: Mmn = field(default_factory=Mmn)
    sgiel: Sgiel = field(default_factory=Sgiel)


@dataclass
class Backbone:
    name: str = "resnet50"  # resnet50 | resnet18 | resnet10
    weights: str = "imagenet"  # imagenet | none | path of a file
    weights_sha256: str | None = None  # recorded by a run: the hash of that file
    last_stride: int = 1  # not read by MMN, where it is 1
    pooling: str = "gem"  # gem | avg; not read by DEEN and MMN, which average


@dataclass
class Dfe:
    enabled: bool = True
    stage: int = 3  # Z^M is the output of this stage of the ResNet, 1..4
    blocks: int = 6  # number of invertible blocks
    scale: str = "tanh"  # tanh: exp(tanh(F3)) | exp: exp(F3), Eq. 3 as printed
    init: str = "zero"  # initial weights of the last convolution of each F: zero | default
    attention_scaled: bool = True  # false: Eq. 4 as printed
    attention_zero_value: bool = False  # true: W_v starts at zero
    mask_own_identity: bool = False  # true: rows do not attend to their own identity in the other modality
    norm: str = "per_modality"  # BatchNorm of Z^D: per_modality | shared
    recompute: bool = False  # true: recompute the inputs of blocks from their outputs; saves memory, takes time


@dataclass
class Beg:
    projection: str = "free"  # free: P is learnable, the term orth enforces Eq. 10 | orthogonal: P = U U^T
    init: str = "projector"  # initial value of a free P: projector (rank C/2) | kaiming
    fusion_scaled: bool = True  # true: divide by sqrt(C) in the batch step of Eq. 16 too; false: as printed
    fusion_zero_value: bool = True  # Pv and Qv start at zero; false: random


@dataclass
class Switch:
    """A group of terms. None, for `detail` only: the group is on if something else needs Z^D."""

    enabled: bool | None = True


@dataclass
class Term:
    """One term of the loss. `enabled` None: on or off as its group. A weight of 0 also switches the term off."""

    enabled: bool | None = True
    weight: float = 1.0


@dataclass
class Triplet(Term):
    margin: float = 0.3


@dataclass
class Mutual(Term):
    reduction: str = "sum"  # how the two directions are combined: sum | mean


@dataclass
class Fkl(Term):
    form: str = "normalized"  # normalized | raw (as printed)
    detach: bool = True  # true: Z^D gets no gradient from this term


@dataclass
class Dcorr(Term):
    gamma: float = 1.01
    clamp: bool = False  # true: negative correlations in the denominator count as 0
    detach: bool = True  # true: Z^D gets no gradient from this term


@dataclass
class Skd(Term):
    form: str = "stable"  # stable | outside | literal
    delta: float = 0.01  # used by the form stable
    gamma: float = 0.1  # used by the forms outside and literal


@dataclass
class WeightedTriplet(Term):
    form: str = "softmax"  # softmax | released: weights as printed, or as the released code computes them


@dataclass
class SquaredDifference(WeightedTriplet):
    cut: float = 88.0  # largest squared difference


@dataclass
class DualTriplet(Term):
    margin: float = 0.3


@dataclass
class ColourFree(Term):
    factor: float = 10.0


@dataclass
class PairMining(Term):
    weight: float = 0.8
    margin: float = 0.2
    form: str = "released"  # released | paper: hinges of the released code, or the printed Eqs. 3-5


@dataclass
class BranchOrthogonality(Term):
    weight: float = 0.01  # of the released code; the paper prints 0.1


@dataclass
class MiddleTriplet(Term):
    margin: float = 0.3


@dataclass
class Consistency(Term):
    weight: float = 0.2  # of the released code for four parts; 0.5 without parts


@dataclass
class Loss:
    ramp: float = 0.3  # the distillation terms grow to their full weight over this share of the run
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
    wrt: WeightedTriplet = field(default_factory=WeightedTriplet)
    sqd: SquaredDifference = field(default_factory=SquaredDifference)
    tri_dual: DualTriplet = field(default_factory=DualTriplet)
    colour_free: ColourFree = field(default_factory=ColourFree)
    cpm: PairMining = field(default_factory=PairMining)
    ort: BranchOrthogonality = field(default_factory=BranchOrthogonality)
    id_parts: Term = field(default_factory=Term)
    tri_middle: MiddleTriplet = field(default_factory=MiddleTriplet)
    dcl: Consistency = field(default_factory=Consistency)
    id_shape: Term = field(default_factory=Term)
    id_erased: Term = field(default_factory=Term)
    kl_erased: Term = field(default_factory=Term)
    related: Term = field(default_factory=Term)
    ortho: Term = field(default_factory=Term)


@dataclass
class Optimizer:
    lr: float = 0.1
    backbone_scale: float = 0.1  # learning rate of the backbone / lr
    projection_scale: float = 0.1  # learning rate of P and of the fusion's matrices / lr
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    clip: float | None = 10.0  # largest norm of the gradient; null: not clipped


@dataclass
class Schedule:
    epochs: int = 220
    steps_per_epoch: int | None = None  # null: floor(images of the larger modality / images of it in a batch)
    warmup_epochs: int = 10  # the rate is multiplied by (epoch + 1) / warmup_epochs in these epochs; 0: no warm-up
    milestones: list[int] = field(default_factory=list)  # at each of these epochs the rate is divided by 10


@dataclass
class Ema:
    enabled: bool = True
    decay: float = 0.999


@dataclass
class Evaluation:
    every: int | None = None  # epochs between evaluations; null: at the end, or each epoch if `selection` needs it
    holdout: float = 0.2  # share of training identities that selection=validation holds out (SYSU-MM01: its own 99)
    batch: int = 256  # images embedded at a time
    flip: bool = True  # average the features of each image and of its mirror image
    feature: str = "after_bn"  # after_bn | before_bn: after or before the BN-neck; MMN: after_bn | without_middle
    mode: str | None = None  # this and the next four: null stands for the settings that the dataset's protocol reports
    shots: int | None = None
    direction: str | None = None
    gallery: str | None = None
    reading: str | None = None


@dataclass
class Tracker:
    name: str = "wandb"  # wandb | none
    project: str | None = None  # null: WANDB_PROJECT, or else bdlf
    entity: str | None = None  # null: WANDB_ENTITY, or else the entity of the login
    pictures: bool | None = None  # log a batch as a picture; null: only drawn images, as datasets are licensed


@dataclass
class Checkpoint:
    """A checkpoint is written after every epoch, unless that would cost more than 2 % of the time. Additionally:"""

    every_minutes: float | None = 10.0  # also within an epoch, when this time has passed; null: never
    every_steps: int | None = None  # also after this many steps; null: never
    keep: int = 2  # how many are kept: the newest, and older ones in case it is damaged


@dataclass
class Config:
    """A run. The files in `conf/<group>/` are the options of the groups."""

    method: Method = field(default_factory=Method)
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
    compile: str = "none"  # none, or a mode of torch.compile: default | reduce-overhead | max-autotune
    devices: str = "auto"  # auto | cpu | cuda
    threads: int | None = None  # CPU threads; null: as many as PyTorch takes, limited by the available cores
    deterministic: bool = False  # true: only deterministic algorithms, so that results repeat bit for bit
    on_nonfinite: str = "stop"  # stop | skip a step whose loss or gradient is not finite; ten in a row always stop
    seed: int = 0
    variant: str = "full"
    recipe: str = "shared"  # shared | published: records which option was chosen; the values themselves decide
    label: str | None = None  # name of the run's folder; null: made from method, variant, stage, blocks and recipe
    output: str = "outputs"
    sweep: str = "multirun"  # a sweep keeps its records in <output>/sweeps/<this name>
    objective: str = "mean_mAP"  # the figure that a sweeper like Optuna optimises; an unknown name lists all
    from_run: str | None = None  # on the command line only: a run folder whose config.yaml replaces the defaults
    dry_run: bool = False  # true: check everything and estimate the time, but train nothing
    rerun: bool = False  # true: move the run folder aside and train from the start
    debug: bool = False  # true: show a traceback with an error


def terms_in(loss: Loss) -> dict[str, Term]:
    """Every term of the schema by name, in the order of the schema."""
    values = ((f.name, getattr(loss, f.name)) for f in dataclasses.fields(loss))
    return {name: value for name, value in values if isinstance(value, Term)}
