"""The loss: which terms are on, and their weighted sum (Eq. 22)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.active import ATTENTION_OWN, CORR_BASE, CORR_DETAIL, CORR_DETAIL_CENTRED
from bdlf.losses import correlation
from bdlf.losses.precision import widen
from bdlf.networks.embeddings import TEACHER, Embeddings
from bdlf.system.errors import InputError
from bdlf.terms import MATRICES, ONE_ROW_FOR_ALL_BLOCKS, TERMS


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
    - `balance` names two groups of terms, as SGIEL has them. In each step the weights of a group are multiplied by 2 g
      / (g1 + g2), where g is the mean over rows of the norm of the gradient of its weighted terms, without the ramp,
      with respect to the pooled features. So the group with the larger gradient gets the larger weight. The factors
      have no gradient. They are 1 where a group has no term that is on.

    `terms` has the names of the terms that are on, in the order of `TERMS`. `features` and `logits` say what the
    network has to provide; it is built from them. `blocks` are those that some term reads one by one. `teacher` says
    whether a term reads what the average of the weights makes of the batch.

    Raises:
        InputError: an unknown term or option, a weight below 0 or not finite, a ramp outside 0..1, or every weight 0.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        ramp: float = 0.3,
        balance: Sequence[Sequence[str]] = (),
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
            raise InputError(f"loss.ramp is {ramp}; it must be a fraction of training in 0..1")
        self.terms = tuple(name for name in TERMS if weights.get(name, 0) != 0)
        if not self.terms:
            raise InputError(f"no loss term is on; give at least one of {', '.join(TERMS)} a weight above 0")
        self._features = frozenset(feature for name in self.terms for feature in TERMS[name].features)
        self._logits = frozenset(feature for name in self.terms for feature in TERMS[name].logits)
        self.features = frozenset(name.removeprefix(TEACHER) for name in self._features)
        self.logits = frozenset(name.removeprefix(TEACHER) for name in self._logits)
        self.blocks = frozenset(block for name in self.terms for block in TERMS[name].blocks or ())
        self.teacher = any(name.startswith(TEACHER) for name in self._features | self._logits)
        self._weights = {name: float(weights[name]) for name in self.terms}
        self._options = {name: dict(options.get(name, {})) for name in self.terms}
        self._ramp = ramp
        groups = [[name for name in group if name in self.terms] for group in balance]
        self._balance = groups if all(groups) else []

    def __call__(self, embeddings: Embeddings, labels: Int[Tensor, " rows"], progress: float) -> Losses:
        """The losses of one batch at `progress`, the fraction of training that is done, in 0..1.

        `labels` are those that the network was given: the same n labels for each block of images.

        Raises:
            InputError: a tensor is missing or has another shape than it should, or `progress` is outside 0..1.
        """
        if not 0 <= progress <= 1:
            raise InputError(f"progress is {progress}; it must be the fraction of training done, in 0..1")
        labels = embeddings.row_labels(labels)
        self._check(embeddings, len(labels))
        computed = {name: self.value(name, embeddings, labels) for name in self.terms}
        factors = self._balanced(computed, embeddings.comprehensive_pooled) if self._balance else {}
        weighted = [self.weight(name, progress) * factors.get(name, 1.0) * value for name, value in computed.items()]
        return Losses(torch.stack(weighted).sum(), {name: value.detach() for name, value in computed.items()})

    def value(self, name: str, embeddings: Embeddings, labels: Int[Tensor, " rows"]) -> Float[Tensor, ""]:
        """The value of a term that is on. `labels` has a label for each row of `embeddings`."""
        return TERMS[name](embeddings, labels, self._options[name])

    def weight(self, name: str, progress: float) -> float:
        """The weight at `progress` of a term that is on, with its ramp."""
        ramped = TERMS[name].ramped and progress < self._ramp
        return self._weights[name] * (progress / self._ramp if ramped else 1.0)

    def _balanced(self, values: Mapping[str, Tensor], pooled: Tensor) -> dict[str, Tensor]:
        """The factor of each term in `balance`, a scalar on the device without gradient."""
        norms = []
        for group in self._balance:
            loss = torch.stack([self._weights[name] * values[name] for name in group]).sum()
            (gradient,) = torch.autograd.grad(loss, pooled, retain_graph=True)
            norms.append(gradient.norm(dim=1).mean())
        total = torch.stack(norms).sum().clamp(min=torch.finfo(norms[0].dtype).tiny)
        return {
            name: len(norms) * norm / total for group, norm in zip(self._balance, norms, strict=True) for name in group
        }

    def _check(self, embeddings: Embeddings, rows: int) -> None:
        blocks = len(embeddings.blocks)
        features = {name: embeddings.feature(name) for name in sorted(self._features)}
        logits = {name: embeddings.scores(name) for name in sorted(self._logits)}
        for what, tensors in (("feature", features), ("logits", logits)):
            _check_rows(what, tensors, rows, blocks)
        for name in self.terms:
            _check_widths("feature", {one: features[one] for one in TERMS[name].features})
            _check_widths("logits", {one: logits[one] for one in TERMS[name].logits})


def try_once(objective: Objective) -> None:
    """Evaluate every term on random numbers, so that an unknown form is refused before the first training step."""
    random = torch.Generator().manual_seed(0)
    n, width, identities = 4, 4, 3
    blocks = tuple(dict.fromkeys(["vis", "ir", *sorted(objective.blocks)]))
    labels = torch.tensor([0, 0, 1, 1]).repeat(len(blocks))

    def drawn(name: str, columns: int) -> Tensor:
        rows = n if name in ONE_ROW_FOR_ALL_BLOCKS else width if name in MATRICES else n * len(blocks)
        middle = (2,) if name.startswith("parts") else ()
        return torch.randn(rows, *middle, columns, generator=random)

    def embeddings() -> Embeddings:
        others = ("attention", "logits", "blocks", "teacher")
        features: dict[str, Any] = {
            field.name: drawn(field.name, width) for field in fields(Embeddings) if field.name not in others
        }
        features["logits"] = {name: drawn(name, identities) for name in objective.logits}
        return Embeddings(**features, blocks=blocks)

    values = embeddings()
    values.teacher = embeddings()
    for name in objective.terms:
        objective.value(name, values, labels)


@torch.no_grad()
def correlations(embeddings: Embeddings, labels: Int[Tensor, " rows"]) -> dict[str, Float[Tensor, ""]]:
    """The quantities that are logged beside the terms, if the network built the features for them. No gradients.

    All of them compare the blocks `vis` and `ir`. `labels` are those that the network was given.

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
        visible_labels, infrared_labels = _modalities(embeddings, embeddings.row_labels(labels))
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
        if name in MATRICES:
            expected = tensor.shape[-1] if name == "projection" else len(tensor)  # `projection` is square
        if tensor.ndim != (3 if name.startswith("parts") else 2) or len(tensor) != expected:
            raise InputError(f"{what} {name!r} of shape {tuple(tensor.shape)}: {rows} labels need {expected} rows")


def _check_widths(what: str, tensors: Mapping[str, Tensor | None]) -> None:
    """Require one width of all features that a term reads together."""
    widths = {name: tensor.shape[-1] for name, tensor in tensors.items() if tensor is not None}
    if len(set(widths.values())) > 1:
        raise InputError(f"{what} of different widths: {widths}; all need the same")


def _known(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise InputError(f"unknown {what}: {name!r}; known: {', '.join(known) or 'none'}")
