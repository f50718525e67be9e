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
from bdlf.networks.embeddings import Embeddings
from bdlf.system.errors import InputError


@dataclass(frozen=True)
class Term:
    """One term of the loss: its function, what it is given, and where the paper has it."""

    equation: str
    """Number of the paper's equation, or several: "11, 12"."""
    meaning: str
    """One line for a table."""
    loss: Callable[..., Tensor]
    """Takes `features`, `logits` and the labels if `labelled`, in this order, then its options by name."""
    features: tuple[str, ...] = ()
    """Fields of `Embeddings` that it reads."""
    logits: tuple[str, ...] = ()
    """Features whose class scores it reads."""
    labelled: bool = False
    by_modality: bool = False
    """The visible and the infrared rows of a tensor are two arguments (fused features have only one row for both)."""
    distillation: bool = False
    """Ramped up over the first part of training."""

    @property
    def options(self) -> dict[str, Any]:
        """The loss's own options with their defaults."""
        parameters = inspect.signature(self.loss).parameters.values()
        return {each.name: each.default for each in parameters if each.default is not each.empty}

    def __call__(self, embeddings: Embeddings, labels: Tensor, options: Mapping[str, Any]) -> Tensor:
        """Value of the term, a scalar. `labels` are those of all 2n rows; `options` keyword arguments of `loss`."""
        inputs = [getattr(embeddings, name) for name in self.features]
        inputs += [embeddings.logits[name] for name in self.logits]
        if self.by_modality:
            inputs = [part for each in inputs for part in (_halves(each) if len(each) == len(labels) else (each,))]
        if self.labelled:
            inputs.append(labels[: len(inputs[0])])
        return self.loss(*inputs, **options)


TERMS: dict[str, Term] = {
    "id": Term("22", "cross-entropy of CLS_B(Z)", identity, logits=("comprehensive",), labelled=True),
    "tri": Term("22", "batch-hard triplet of Z before the BN-neck", triplet, ("comprehensive_pooled",), labelled=True),
    "okl": Term(
        "21",
        "CLS_B(Z) of each modality learns from the other's",
        mutual_distillation,
        logits=("comprehensive",),
        by_modality=True,
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
        by_modality=True,
        distillation=True,
    ),
    "id_fused": Term("19", "cross-entropy of CLS_B(Z_F^B)", identity, logits=("fused",), labelled=True),
    "fbkl": Term(
        "17",
        "CLS_B(Z^B) of each modality learns from CLS_B(Z_F^B)",
        fused_distillation,
        logits=("base", "fused"),
        by_modality=True,
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
        by_modality=True,
        distillation=True,
    ),
    "orth": Term("10, 20", "P is an orthogonal projector", orthogonality, ("projection",)),
    "skd": Term(
        "2",
        "base features correlate across the modalities, detail features do not",
        specific_shared,
        ("base", "detail"),
        by_modality=True,
        distillation=True,
    ),
}
"""Every term of the loss by its name in total, log, CSV column and table header, in the order of the paper's owners."""


class Losses(NamedTuple):
    """What one batch costs."""

    total: Tensor
    """Sum of weight x ramp x value; carries the gradient."""
    values: dict[str, Tensor]
    """The terms themselves, neither weighted nor ramped, detached."""


class Objective:
    """The weighted sum of the terms that are on. A term of weight 0 is not computed, and what it needs may be absent.

    `weights` maps names of `TERMS` to weights >= 0 [paper: all 1]; `options` maps them to keyword arguments of their
    loss. The weight of a distillation term grows linearly over the first `ramp` of training, a fraction in 0..1 [ours:
    at first these terms pull every prediction to uniform]; 0 means full from the start [paper].

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

    def __call__(self, embeddings: Embeddings, labels: Int[Tensor, " rows"], progress: float) -> Losses:
        """Losses of one batch of 2n rows at `progress`, the fraction of training done, in 0..1.

        The two halves of `labels` are the same (`require_pairs`).

        Raises:
            InputError: a tensor is missing or misshapen, `progress` is outside 0..1.
        """
        if not 0 <= progress <= 1:
            raise InputError(f"progress is {progress}; it must be the fraction of training done, in 0..1")
        self._check(embeddings, len(labels))
        computed = {name: TERMS[name](embeddings, labels, self._options[name]) for name in self.terms}
        weighted = [self.weight(name, progress) * value for name, value in computed.items()]
        return Losses(torch.stack(weighted).sum(), {name: value.detach() for name, value in computed.items()})

    def weight(self, name: str, progress: float) -> float:
        """Weight x ramp of an active term at `progress`."""
        ramped = TERMS[name].distillation and progress < self._ramp
        return self._weights[name] * (progress / self._ramp if ramped else 1.0)

    def _check(self, embeddings: Embeddings, rows: int) -> None:
        _check_shapes("feature", {name: getattr(embeddings, name) for name in sorted(self.features)}, rows)
        _check_shapes("logits", {name: embeddings.logits.get(name) for name in sorted(self.logits)}, rows)


def require_pairs(labels: Int[Tensor, " rows"]) -> None:
    """To be asked where the labels are on the host: looking at them on a device would make the host wait.

    Raises:
        InputError: no rows, an odd number, or an infrared half that does not repeat the visible half.
    """
    if len(labels) == 0 or len(labels) % 2 or not torch.equal(*_halves(labels)):
        raise InputError(
            f"labels of {len(labels)} rows: the infrared half must repeat the visible half row by row; "
            "draw batches with the identity sampler"
        )


@torch.no_grad()
def correlations(embeddings: Embeddings, labels: Int[Tensor, " rows"]) -> dict[str, Float[Tensor, ""]]:
    """What to watch beside the terms, as far as the network provides it; none of it has a gradient.

    - `corr_base`, `corr_detail`: correlation in -1..1 of Z^B and of Z^D between the modalities, which `skd` steers.
    - `corr_detail_centred`: the same of Z^D less each modality's mean over the batch. Where it stays high while
      `corr_detail` falls, a constant offset between the modalities hides identity that they still share.
    - `attention_own`: mean over rows of the attention mass, 0..1, on rows of the same identity in the other modality.
    """
    watched: dict[str, Tensor] = {}
    if embeddings.base is not None:
        watched["corr_base"] = correlation(*_halves(embeddings.base))
    if embeddings.detail is not None:
        visible, infrared = (widen(half) for half in _halves(embeddings.detail))
        watched["corr_detail"] = correlation(visible, infrared)
        watched["corr_detail_centred"] = correlation(visible - visible.mean(dim=0), infrared - infrared.mean(dim=0))
    if embeddings.attention is not None:
        visible_labels, infrared_labels = _halves(labels)
        own = torch.cat([visible_labels[:, None] == infrared_labels, infrared_labels[:, None] == visible_labels])
        watched["attention_own"] = (widen(embeddings.attention) * own).sum(dim=1).mean()
    return watched


def _halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Visible rows and infrared rows."""
    visible, infrared = tensor.chunk(2)
    return visible, infrared


def _check_shapes(what: str, tensors: Mapping[str, Tensor | None], rows: int) -> None:
    widths: dict[str, int] = {}
    for name, tensor in tensors.items():
        if tensor is None:
            raise InputError(f"{what} {name!r}: a loss term that is on needs it, the network did not build it")
        expected = {"fused": rows // 2, "projection": tensor.shape[-1]}.get(name, rows)
        if tensor.ndim != 2 or len(tensor) != expected:
            raise InputError(f"{what} {name!r} of shape {tuple(tensor.shape)}: {rows} labels need {expected} rows")
        widths[name] = tensor.shape[1]
    if len(set(widths.values())) > 1:
        raise InputError(f"{what} of different widths: {widths}; all need the same")


def _known(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise InputError(f"unknown {what}: {name!r}; known: {', '.join(known) or 'none'}")
