"""The terms of the loss: what each reads of the network, which are on, and their weighted sum (Eq. 22)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.active import ATTENTION_OWN, CORR_BASE, CORR_DETAIL, CORR_DETAIL_CENTRED
from bdlf.losses import (
    colour_free,
    correlation,
    detail_correlation,
    distillation,
    dual_triplet,
    feature_relation,
    fused_distillation,
    identity,
    mutual_distillation,
    orthogonality,
    specific_shared,
    squared_difference,
    triplet,
    weighted_triplet,
)
from bdlf.losses.precision import widen
from bdlf.networks.embeddings import Embeddings
from bdlf.system.errors import InputError


@dataclass(frozen=True)
class Term:
    """One term of the loss: its function, the function's arguments, and its equation in the paper."""

    equation: str
    """The number of the paper's equation, or several numbers: "11, 12"."""
    meaning: str
    """What the term does, in one line for a table."""
    loss: Callable[..., Tensor]
    """The function. Its arguments are `features`, `logits`, the labels if `labelled`, and then its options by name."""
    features: tuple[str, ...] = ()
    """The fields of `Embeddings` that the term reads."""
    logits: tuple[str, ...] = ()
    """The features whose class scores the term reads."""
    labelled: bool = False
    """Whether the term reads the labels."""
    blocks: tuple[str, ...] | None = None
    """The blocks that the function gets as separate arguments, in this order. None: one tensor has all blocks."""
    distillation: bool = False
    """Whether the weight of the term grows over the first part of training."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of the function with their defaults."""
        parameters = inspect.signature(self.loss).parameters.values()
        return {each.name: each.default for each in parameters if each.default is not each.empty}

    def __call__(self, embeddings: Embeddings, labels: Tensor, options: Mapping[str, Any]) -> Tensor:
        """The value of the term, a scalar.

        `labels` has a label for each row of each block, and all blocks have the same labels. `options` are keyword
        arguments of `loss`.
        """
        read = [(name, getattr(embeddings, name)) for name in self.features]
        read += [(name, embeddings.logits[name]) for name in self.logits]
        inputs: list[Tensor] = []
        for name, tensor in read:
            if self.blocks is None or name in ONE_ROW_FOR_ALL_BLOCKS:
                inputs.append(tensor)
            else:
                inputs += [embeddings.block(tensor, block) for block in self.blocks]
        if self.labelled:
            inputs.append(labels[: len(inputs[0])])
        return self.loss(*inputs, **options)


ONE_ROW_FOR_ALL_BLOCKS = ("fused",)
"""Features that have n rows in all, because one row stands for the i-th rows of all blocks together."""

TERMS: dict[str, Term] = {
    "id": Term("22", "cross-entropy of CLS_B(Z)", identity, logits=("comprehensive",), labelled=True),
    "tri": Term("22", "batch-hard triplet of Z before the BN-neck", triplet, ("comprehensive_pooled",), labelled=True),
    "okl": Term(
        "21",
        "CLS_B(Z) of each modality learns from the other's",
        mutual_distillation,
        logits=("comprehensive",),
        blocks=("vis", "ir"),
        distillation=True,
    ),
    "id_detail": Term("6", "cross-entropy of CLS_D(Z^D)", identity, logits=("detail",), labelled=True),
    "odkl": Term(
        "7",
        "CLS_D(Z^D) learns from CLS_B(Z)",
        distillation,
        logits=("detail", "comprehensive"),
        distillation=True,
    ),
    "id_base": Term("20", "cross-entropy of CLS_B(Z^B)", identity, logits=("base",), labelled=True),
    "bkl": Term(
        "18",
        "CLS_B(Z^B) of each modality learns from the other's",
        mutual_distillation,
        logits=("base",),
        blocks=("vis", "ir"),
        distillation=True,
    ),
    "id_fused": Term("19", "cross-entropy of CLS_B(Z_F^B)", identity, logits=("fused",), labelled=True),
    "fbkl": Term(
        "17",
        "CLS_B(Z^B) of each modality learns from CLS_B(Z_F^B)",
        fused_distillation,
        logits=("base", "fused"),
        blocks=("vis", "ir"),
        distillation=True,
    ),
    "fkl": Term(
        "11, 12",
        "similarities within the batch agree between Zbar^D and Z^D",
        feature_relation,
        ("detail_projected", "detail"),
        distillation=True,
    ),
    "dkl": Term(
        "13",
        "CLS_D(Zbar^D) learns from CLS_D(Z^D)",
        distillation,
        logits=("detail_projected", "detail"),
        distillation=True,
    ),
    "dcorr": Term(
        "14",
        "correlations across and within the modalities agree between Zbar^D and Z^D",
        detail_correlation,
        ("detail_projected", "detail"),
        blocks=("vis", "ir"),
        distillation=True,
    ),
    "orth": Term("10, 20", "P is an orthogonal projector", orthogonality, ("projection",)),
    "skd": Term(
        "2",
        "base features correlate across the modalities, detail features do not",
        specific_shared,
        ("base", "detail"),
        blocks=("vis", "ir"),
        distillation=True,
    ),
    "wrt": Term(
        "AGW",
        "every row is nearer to its identity than to others, by weighted distances",
        weighted_triplet,
        ("comprehensive_pooled",),
        labelled=True,
    ),
    "sqd": Term(
        "CAJ",
        "the same by squared differences of the weighted distances",
        squared_difference,
        ("comprehensive_pooled",),
        labelled=True,
    ),
    "tri_dual": Term(
        "LUPI",
        "batch-hard triplets whose positives and negatives are of different blocks",
        dual_triplet,
        ("comprehensive_pooled",),
        labelled=True,
        blocks=("vis", "ir", "intermediate"),
    ),
    "colour_free": Term(
        "LUPI",
        "a visible image and its intermediate one have the same feature",
        colour_free,
        ("comprehensive_pooled",),
        blocks=("vis", "intermediate"),
    ),
}
"""Every term of the loss, by its name in logs, CSV columns and tables, and in the order in which tables list them."""


class Losses(NamedTuple):
    """The loss of one batch."""

    total: Tensor
    """The sum over the terms of weight x ramp x value, from which the gradient is computed."""
    values: dict[str, Tensor]
    """The value of each term, without weight and ramp, and without gradient."""


class Objective:
    """The weighted sum of the terms that are on. A term of weight 0 is off: it is not computed and needs no feature.

    - `weights` maps names of `TERMS` to weights >= 0 [paper: all 1].
    - `options` maps names of `TERMS` to keyword arguments of the functions of these terms.
    - `ramp` is a fraction of training, in 0..1. Over this first part of training the weights of the distillation terms
      grow linearly [ours: early in training these terms would pull every prediction towards the uniform one]. With 0
      they have their full weight from the start [paper].

    `terms` has the names of the terms that are on, in the order of `TERMS`. `features` and `logits` say what the
    network has to provide; it is built from them.

    Raises:
        InputError: an unknown term or option, a weight below 0 or not finite, a ramp outside 0..1, or every weight 0.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        ramp: float = 0.3,
    ) -> None:
        options = options or {}
        for name in (*weights, *options):
            _known("loss term", name, TERMS)
        for name, given in options.items():
            for option in given:
                _known(f"option of loss term {name!r}", option, TERMS[name].options)
        for name, weight in weights.items():
            if not (weight >= 0 and math.isfinite(weight)):
                raise InputError(f"weight of loss term {name!r} is {weight}; it must be a finite number >= 0")
        if not 0 <= ramp <= 1:
            raise InputError(f"ramp of the distillation terms is {ramp}; it must be a fraction of training in 0..1")
        self.terms = tuple(name for name in TERMS if weights.get(name, 0) != 0)
        if not self.terms:
            raise InputError(f"no loss term is on; give at least one of {', '.join(TERMS)} a weight above 0")
        self.features = frozenset(feature for name in self.terms for feature in TERMS[name].features)
        self.logits = frozenset(feature for name in self.terms for feature in TERMS[name].logits)
        self._weights = {name: float(weights[name]) for name in self.terms}
        self._options = {name: dict(options.get(name, {})) for name in self.terms}
        self._ramp = ramp

    def __call__(self, embeddings: Embeddings, labels: Int[Tensor, " rows"], progress: float) -> Losses:
        """The losses of one batch at `progress`, the fraction of training that is done, in 0..1.

        `labels` has a label for each of the k n rows of `embeddings`: the same n labels for each of the k blocks.

        Raises:
            InputError: a tensor is missing or has another shape than it should, or `progress` is outside 0..1.
        """
        if not 0 <= progress <= 1:
            raise InputError(f"progress is {progress}; it must be the fraction of training done, in 0..1")
        self._check(embeddings, len(labels))
        computed = {name: TERMS[name](embeddings, labels, self._options[name]) for name in self.terms}
        weighted = [self.weight(name, progress) * value for name, value in computed.items()]
        return Losses(torch.stack(weighted).sum(), {name: value.detach() for name, value in computed.items()})

    def weight(self, name: str, progress: float) -> float:
        """The weight at `progress` of a term that is on, with its ramp."""
        ramped = TERMS[name].distillation and progress < self._ramp
        return self._weights[name] * (progress / self._ramp if ramped else 1.0)

    def _check(self, embeddings: Embeddings, rows: int) -> None:
        blocks = len(embeddings.blocks)
        features = {name: getattr(embeddings, name) for name in sorted(self.features)}
        logits = {name: embeddings.logits.get(name) for name in sorted(self.logits)}
        for what, tensors in (("feature", features), ("logits", logits)):
            _check_rows(what, tensors, rows, blocks)
        for name in self.terms:
            _check_widths("feature", {one: features[one] for one in TERMS[name].features})
            _check_widths("logits", {one: logits[one] for one in TERMS[name].logits})


def try_once(objective: Objective) -> None:
    """Evaluate every term on random numbers, so that an unknown form is refused before the first training step."""
    random = torch.Generator().manual_seed(0)
    n, width, identities = 4, 4, 3
    named = [block for name in objective.terms for block in TERMS[name].blocks or ()]
    blocks = tuple(dict.fromkeys(["vis", "ir", *named]))
    rows = {"projection": width, **dict.fromkeys(ONE_ROW_FOR_ALL_BLOCKS, n)}
    others = ("attention", "logits", "blocks")
    features: dict[str, Any] = {
        field.name: torch.randn(rows.get(field.name, n * len(blocks)), width, generator=random)
        for field in fields(Embeddings)
        if field.name not in others
    }
    features["logits"] = {
        name: torch.randn(rows.get(name, n * len(blocks)), identities, generator=random) for name in objective.logits
    }
    labels = torch.tensor([0, 0, 1, 1]).repeat(len(blocks))
    objective(Embeddings(**features, blocks=blocks), labels, 1.0)


@torch.no_grad()
def correlations(embeddings: Embeddings, labels: Int[Tensor, " rows"]) -> dict[str, Float[Tensor, ""]]:
    """The quantities that are logged beside the terms, if the network built the features for them. No gradients.

    All of them compare the blocks `vis` and `ir`. `labels` has a label for each row of each block.

    - `corr_base`, `corr_detail`: the correlations of Z^B and of Z^D between the modalities, in -1..1. The term `skd`
      acts on both.
    - `corr_detail_centred`: the correlation of Z^D after the mean of each modality over the batch is subtracted. If it
      stays high while `corr_detail` falls, the modalities still share the identities, and only a constant offset
      between the modalities hides this.
    - `attention_own`: the share of a row's attention, in 0..1, that falls on rows of its own identity in the other
      modality, averaged over the rows.
    """
    watched: dict[str, Tensor] = {}
    if embeddings.base is not None:
        watched[CORR_BASE] = correlation(*_modalities(embeddings, embeddings.base))
    if embeddings.detail is not None:
        visible, infrared = (widen(rows) for rows in _modalities(embeddings, embeddings.detail))
        watched[CORR_DETAIL] = correlation(visible, infrared)
        watched[CORR_DETAIL_CENTRED] = correlation(visible - visible.mean(dim=0), infrared - infrared.mean(dim=0))
    if embeddings.attention is not None:
        visible_labels, infrared_labels = _modalities(embeddings, labels)
        own = torch.cat([visible_labels[:, None] == infrared_labels, infrared_labels[:, None] == visible_labels])
        watched[ATTENTION_OWN] = (widen(embeddings.attention) * own).sum(dim=1).mean()
    return watched


def _modalities(embeddings: Embeddings, tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the visible block and of the infrared block."""
    return embeddings.block(tensor, "vis"), embeddings.block(tensor, "ir")


def _check_rows(what: str, tensors: Mapping[str, Tensor | None], rows: int, blocks: int) -> None:
    for name, tensor in tensors.items():
        if tensor is None:
            raise InputError(f"{what} {name!r}: a loss term that is on needs it, the network did not build it")
        expected = rows // blocks if name in ONE_ROW_FOR_ALL_BLOCKS else rows
        if name == "projection":  # a square matrix
            expected = tensor.shape[-1]
        if tensor.ndim != 2 or len(tensor) != expected:
            raise InputError(f"{what} {name!r} of shape {tuple(tensor.shape)}: {rows} labels need {expected} rows")


def _check_widths(what: str, tensors: Mapping[str, Tensor | None]) -> None:
    """Require one width of all features that a term reads together."""
    widths = {name: tensor.shape[1] for name, tensor in tensors.items() if tensor is not None}
    if len(set(widths.values())) > 1:
        raise InputError(f"{what} of different widths: {widths}; all need the same")


def _known(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise InputError(f"unknown {what}: {name!r}; known: {', '.join(known) or 'none'}")
