"""Terms in which one prediction, or one Gram matrix, is drawn towards another (Eqs. 7, 11-13, 17, 18, 21)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bdlf.losses.correlation import NORM_FLOOR
from bdlf.losses.precision import full_precision
from bdlf.system.errors import InputError


@full_precision
def distillation(student: Float[Tensor, "n ids"], target: Float[Tensor, "n ids"]) -> Float[Tensor, ""]:
    """ce(student, target) of logits: `odkl` (Eq. 7) and `dkl` (Eq. 13).

    The mean over rows of -sum softmax(target) log softmax(student). `target` gets no gradient [lineage, SGIEL].
    """
    return F.cross_entropy(student, target.detach().softmax(dim=1))


def mutual_distillation(
    first: Float[Tensor, "n ids"], second: Float[Tensor, "n ids"], reduction: str = "sum"
) -> Float[Tensor, ""]:
    """ce(first, second) + ce(second, first) of two sets of logits: `okl` (Eq. 21) and `bkl` (Eq. 18).

    Both directions count [lineage]. `reduction` says how they are combined: "sum" [ours] or "mean". Raises `InputError`
    for another reduction.
    """
    return _reduced(distillation(first, second), distillation(second, first), reduction)


def fused_distillation(
    visible: Float[Tensor, "n ids"],
    infrared: Float[Tensor, "n ids"],
    fused: Float[Tensor, "n ids"],
    reduction: str = "sum",
) -> Float[Tensor, ""]:
    """ce(visible, fused) + ce(infrared, fused) of logits: `fbkl` (Eq. 17).

    `reduction` says how the two are combined: "sum" [ours] or "mean". Raises `InputError` for another reduction.
    """
    return _reduced(distillation(visible, fused), distillation(infrared, fused), reduction)


@full_precision
def feature_relation(
    projected: Float[Tensor, "b c"],
    detail: Float[Tensor, "b d"],
    form: str = "normalized",
    detach: bool = True,
) -> Float[Tensor, ""]:
    """`fkl` (Eqs. 11, 12): mean of softmax(G(projected) - G(detail))^2, with G the Gram matrix and softmax over rows.

    The mean is over all b x b elements, for the b images of the whole batch.

    - `form="raw"` [paper]: the value lies between 1/b^2, where every row is uniform, and 1/b, where every row is
      one-hot. A one-hot row has no gradient, and with wide BatchNorm features most rows are one-hot.
    - `form="normalized"` [ours]: features are scaled to unit length first, and the value is multiplied by b^2, so that
      the minimum is 1. Independent random features of width 2048 give 1.001, where the gradient is small.
    - `detach`: give `detail` no gradient [ours: the paper writes Zbar^D -> Z^D].

    Raises `InputError` for another form.
    """
    if form not in ("normalized", "raw"):
        raise InputError(f"unknown form {form!r} of the feature relation; use 'normalized' or 'raw'")
    if detach:
        detail = detail.detach()
    if form == "normalized":
        projected = F.normalize(projected, dim=1, eps=NORM_FLOOR)
        detail = F.normalize(detail, dim=1, eps=NORM_FLOOR)
    relation = (projected @ projected.T - detail @ detail.T).softmax(dim=1)
    mean = relation.square().mean()
    return mean * len(relation) ** 2 if form == "normalized" else mean


def _reduced(one: Tensor, other: Tensor, reduction: str) -> Tensor:
    if reduction == "sum":
        return one + other
    if reduction == "mean":
        return (one + other) / 2
    raise InputError(f"unknown reduction {reduction!r} of two distillation directions; use 'sum' or 'mean'")
