"""Which terms are on, what each needs of the network, and their weighted sum (Eq. 22)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.errors import InputError
from bdlf.losses import (
    correlation,
    detail_correlation,
    distillation,
    feature_relation,
    fused_distillation,
    identity,
    mutual_distillation,
    orthogonality,
    specific_shared,
    triplet,
)
from bdlf.losses.precision import widen
from bdlf.models.embeddings import Embeddings


@dataclass(frozen=True)
class Term:
    """One term of the loss: `loss(*inputs(embeddings, labels), **options)`."""

    equation: str
    """Number of the paper's equation, or several: "11, 12"."""
    meaning: str
    """One line for a table."""
    loss: Callable[..., Tensor]
    inputs: Callable[[Embeddings, Tensor], tuple[Tensor, ...]]
    features: tuple[str, ...] = ()
    """Fields of `Embeddings` that it reads."""
    logits: tuple[str, ...] = ()
    """Features whose class scores it reads."""
    distillation: bool = False
    """Ramped up over the first part of training."""

    @property
    def options(self) -> dict[str, Any]:
        """The loss's own options with their defaults."""
        parameters = inspect.signature(self.loss).parameters.values()
        return {each.name: each.default for each in parameters if each.default is not each.empty}

    def __call__(self, embeddings: Embeddings, labels: Tensor, options: Mapping[str, Any]) -> Tensor:
        return self.loss(*self.inputs(embeddings, labels), **options)


def _halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Visible rows and infrared rows."""
    visible, infrared = tensor.chunk(2)
    return visible, infrared


def _scores(name: str) -> Callable[[Embeddings, Tensor], tuple[Tensor, ...]]:
    return lambda e, labels: (e.logits[name], labels[: len(e.logits[name])])


def _score_halves(name: str) -> Callable[[Embeddings, Tensor], tuple[Tensor, ...]]:
    return lambda e, labels: _halves(e.logits[name])


def _score_pair(student: str, target: str) -> Callable[[Embeddings, Tensor], tuple[Tensor, ...]]:
    return lambda e, labels: (e.logits[student], e.logits[target])


def _features(*names: str) -> Callable[[Embeddings, Tensor], tuple[Tensor, ...]]:
    return lambda e, labels: tuple(getattr(e, name) for name in names)


def _feature_halves(*names: str) -> Callable[[Embeddings, Tensor], tuple[Tensor, ...]]:
    return lambda e, labels: tuple(half for name in names for half in _halves(getattr(e, name)))


TERMS: dict[str, Term] = {
    "id": Term(
        "22", "cross-entropy of CLS_B(Z)", identity, _scores("comprehensive"), logits=("comprehensive",)
    ),
    "tri": Term(
        "22",
        "batch-hard triplet on the pooled feature",
        triplet,
        lambda e, labels: (e.comprehensive_pooled, labels),
        features=("comprehensive_pooled",),
    ),
    "okl": Term(
        "21",
        "CLS_B(Z) of each modality learns from the other's",
        mutual_distillation,
        _score_halves("comprehensive"),
        logits=("comprehensive",),
        distillation=True,
    ),
    "id_detail": Term("6", "cross-entropy of CLS_D(Z^D)", identity, _scores("detail"), logits=("detail",)),
    "odkl": Term(
        "7",
        "CLS_D(Z^D) learns from CLS_B(Z)",
        distillation,
        _score_pair("detail", "comprehensive"),
        logits=("detail", "comprehensive"),
        distillation=True,
    ),
    "id_base": Term("20", "cross-entropy of CLS_B(Z^B)", identity, _scores("base"), logits=("base",)),
    "bkl": Term(
        "18",
        "CLS_B(Z^B) of each modality learns from the other's",
        mutual_distillation,
        _score_halves("base"),
        logits=("base",),
        distillation=True,
    ),
    "id_fused": Term("19", "cross-entropy of CLS_B(Z_F^B)", identity, _scores("fused"), logits=("fused",)),
    "fbkl": Term(
        "17",
        "CLS_B(Z^B) of both modalities learns from CLS_B(Z_F^B)",
        fused_distillation,
        lambda e, labels: (*_halves(e.logits["base"]), e.logits["fused"]),
        logits=("base", "fused"),
        distillation=True,
    ),
    "fkl": Term(
        "11, 12",
        "similarities within the batch agree between Zbar^D and Z^D",
        feature_relation,
        _features("detail_projected", "detail"),
        features=("detail_projected", "detail"),
        distillation=True,
    ),
    "dkl": Term(
        "13",
        "CLS_D(Zbar^D) learns from CLS_D(Z^D)",
        distillation,
        _score_pair("detail_projected", "detail"),
        logits=("detail_projected", "detail"),
        distillation=True,
    ),
    "dcorr": Term(
        "14",
        "correlations across and within the modalities agree between Zbar^D and Z^D",
        detail_correlation,
        _feature_halves("detail_projected", "detail"),
        features=("detail_projected", "detail"),
        distillation=True,
    ),
    "orth": Term(
        "10, 20", "P is an orthogonal projector", orthogonality, _features("projection"), features=("projection",)
    ),
    "skd": Term(
        "2",
        "base features correlate across the modalities, detail features do not",
        specific_shared,
        _feature_halves("base", "detail"),
        features=("base", "detail"),
        distillation=True,
    ),
}
"""Every term of the loss by its name in total, log, CSV column and table header, in the order of the paper's owners."""

GROUPS: dict[str, tuple[str, ...]] = {
    "app": ("fkl", "dkl", "dcorr"),
    "cmf": ("id_fused", "fbkl"),
    "detail": ("id_detail", "odkl"),
}
"""Terms that the paper switches together."""


class Losses(NamedTuple):
    """What one batch costs."""

    total: Tensor
    """Sum of weight x ramp x value; carries the gradient."""
    values: dict[str, Tensor]
    """The terms themselves, neither weighted nor ramped, detached."""


class Objective:
    """The weighted sum of the terms that are on. A term of weight 0 is not computed, and what it needs may be absent.

    `weights` maps names of `TERMS` to weights >= 0 [paper: all 1]; `options` maps them to keyword arguments of their loss.
    The weight of a distillation term grows linearly over the first `ramp` of training, a fraction in 0..1 [ours: at
    first these terms pull every prediction to uniform]; 0 means full from the start.

    `terms` (names in the order of `TERMS`), `features` and `logits` (what the network has to provide) are public: the
    network is built from them.

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

    def __call__(self, embeddings: Embeddings, labels: Int[Tensor, "rows"], progress: float) -> Losses:
        """Losses of one batch of 2n rows at `progress`, the fraction of training done, in 0..1.

        Raises:
            InputError: labels whose two halves differ, a feature that is missing or of another shape, progress outside 0..1.
        """
        if not 0 <= progress <= 1:
            raise InputError(f"progress is {progress}; it must be the fraction of training done, in 0..1")
        self._check(embeddings, labels)
        computed = {name: TERMS[name](embeddings, labels, self._options[name]) for name in self.terms}
        weighted = [self.weight(name, progress) * value for name, value in computed.items()]
        return Losses(torch.stack(weighted).sum(), {name: value.detach() for name, value in computed.items()})

    def weight(self, name: str, progress: float) -> float:
        """Weight x ramp of an active term at `progress`."""
        ramped = TERMS[name].distillation and progress < self._ramp
        return self._weights[name] * (progress / self._ramp if ramped else 1.0)

    def _check(self, embeddings: Embeddings, labels: Tensor) -> None:
        rows = len(labels)
        if rows == 0 or rows % 2 or not torch.equal(*_halves(labels)):
            raise InputError(
                f"labels of the {rows} rows: the infrared half must repeat the visible half; use the identity sampler"
            )
        needed = {name: getattr(embeddings, name) for name in sorted(self.features)}
        scores = {f"logits of {name}": embeddings.logits.get(name) for name in sorted(self.logits)}
        for kind in (needed, scores):
            widths = {}
            for name, tensor in kind.items():
                if tensor is None:
                    raise InputError(f"the network gave no {name}, which {self._users(name)} needs; switch it off or build it")
                expected = rows // 2 if name.endswith("fused") else tensor.shape[1] if name == "projection" else rows
                if tensor.ndim != 2 or len(tensor) != expected:
                    raise InputError(f"{name} has shape {tuple(tensor.shape)}; {expected} rows go with {rows} labels")
                widths[name] = tensor.shape[1]
            if len(set(widths.values())) > 1:
                raise InputError(f"features of one batch must be equally wide, these are not: {widths}")
