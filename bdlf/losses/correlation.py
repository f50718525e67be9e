"""Correlation between paired rows, and the terms that steer it (Eqs. 2 and 14)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bdlf.losses.precision import full_precision
from bdlf.system.errors import InputError

NORM_FLOOR = 1e-6
"""Norms are clamped here before they divide: a constant row correlates 0 with everything."""

TANGENT_BELOW = 0.1
"""`skd` extends log by its tangent below this correlation (slope 10)."""

DETAIL_FLOOR = 0.01
"""`skd` rewards a falling correlation of details down to here: de-correlated is the goal, anti-correlated is not."""

OUTSIDE_CEILING = 1 - 1e-4
"""With gamma outside the root, the correlation of details stops here: the root's slope is infinite at 1."""


@full_precision
def correlation(x: Float[Tensor, "n c"], y: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Corr of Eqs. 2 and 14, in [-1, 1]: Pearson correlation of row k of x and row k of y over channels, mean over k.

    [ours: the paper gives only "Pearson"] A constant row counts as 0, not NaN.
    """
    return (_standardized(x) * _standardized(y)).sum(dim=1).mean().clamp(-1, 1)


@full_precision
def detail_correlation(
    projected_visible: Float[Tensor, "n c"],
    projected_infrared: Float[Tensor, "n c"],
    detail_visible: Float[Tensor, "n c"],
    detail_infrared: Float[Tensor, "n c"],
    gamma: float = 1.01,
    clamp: bool = False,
    detach: bool = True,
) -> Float[Tensor, ""]:
    """(corr(Zbar_V, Zbar_I) - corr(Z_V, Z_I))^2 / (corr(Zbar_V, Z_V)^2 + corr(Zbar_I, Z_I)^2 + gamma): `dcorr`, Eq. 14.

    Z is Z^D here. `gamma` is CDDFuse's constant [lineage]. As printed, -1 earns as much as +1 between Zbar^D and Z^D;
    `clamp` cuts these two correlations at 0 before they are squared [ours]. `detach` stops the gradient at Z^D
    [ours: the paper writes Zbar^D -> Z^D].
    """
    if detach:
        detail_visible, detail_infrared = detail_visible.detach(), detail_infrared.detach()
    across = correlation(projected_visible, projected_infrared) - correlation(detail_visible, detail_infrared)
    within_visible = correlation(projected_visible, detail_visible)
    within_infrared = correlation(projected_infrared, detail_infrared)
    if clamp:
        within_visible, within_infrared = within_visible.relu(), within_infrared.relu()
    return across.square() / (within_visible.square() + within_infrared.square() + gamma)


@full_precision
def specific_shared(
    base_visible: Float[Tensor, "n c"],
    base_infrared: Float[Tensor, "n c"],
    detail_visible: Float[Tensor, "n d"],
    detail_infrared: Float[Tensor, "n d"],
    form: str = "stable",
    delta: float = 0.01,
    gamma: float = 0.1,
) -> Float[Tensor, ""]:
    """Correlate base features across the modalities, de-correlate detail features: `skd` (Eq. 2). Nothing is detached.

    The forms, `delta` and `gamma` are those of `specific_shared_from_correlations`.
    """
    return specific_shared_from_correlations(
        correlation(base_visible, base_infrared), correlation(detail_visible, detail_infrared), form, delta, gamma
    )


@full_precision
def specific_shared_from_correlations(
    corr_base: Float[Tensor, "*shape"],
    corr_detail: Float[Tensor, "*shape"],
    form: str = "stable",
    delta: float = 0.01,
    gamma: float = 0.1,
) -> Float[Tensor, "*shape"]:
    """`skd` (Eq. 2) of corr(Z_V^B, Z_I^B) and corr(Z_V^D, Z_I^D), elementwise.

    - "stable" [ours]: -logext(corr_base) / cbrt(delta - log(clamp(corr_detail, 0.01, 1))). logext is log above 0.1 and
      its tangent below, so that a negative base correlation is still pulled up. For delta > 0 it is finite with finite
      gradients, >= 0, 0 at corr_base = 1, and falls as corr_base rises and as corr_detail falls.
    - "outside" [ours]: the printed gamma, subtracted outside the root:
      logext(corr_base) / (cbrt(log(clamp(corr_detail, 0.01, 1 - 1e-4))) - gamma).
    - "literal" [paper]: log(corr_base) / (cbrt(log(corr_detail)) + gamma) as printed. NaN where a correlation is
      negative, a pole at corr_detail = exp(-gamma^3), negative values beyond it.

    `delta` matters in "stable" only, `gamma` in the two others. Raises InputError on another form.
    """
    if form == "stable":
        return -_extended_log(corr_base) / (delta - corr_detail.clamp(DETAIL_FLOOR, 1).log()).pow(1 / 3)
    if form == "outside":
        depth = -corr_detail.clamp(DETAIL_FLOOR, OUTSIDE_CEILING).log()
        return -_extended_log(corr_base) / (depth.pow(1 / 3) + gamma)
    if form == "literal":
        log_detail = corr_detail.log()
        cube_root = log_detail.sign() * log_detail.abs().pow(1 / 3)  # pow alone is NaN for the log, which is <= 0
        return corr_base.log() / (cube_root + gamma)
    raise InputError(f"unknown form {form!r} of the specific-shared term; use 'stable', 'outside' or 'literal'")


def _standardized(x: Tensor) -> Tensor:
    """Rows of mean 0 and norm 1; constant rows become 0.

    Centred twice, because the rounding that the first pass leaves in a constant row exceeds the floor, and is constant.
    """
    x = x - x.mean(dim=1, keepdim=True)
    x = x - x.mean(dim=1, keepdim=True)
    return F.normalize(x, dim=1, eps=NORM_FLOOR)


def _extended_log(x: Tensor) -> Tensor:
    above = x > TANGENT_BELOW
    tangent = math.log(TANGENT_BELOW) + (x - TANGENT_BELOW) / TANGENT_BELOW
    return torch.where(above, torch.where(above, x, TANGENT_BELOW).log(), tangent)  # inner where: no 0 * inf backward
