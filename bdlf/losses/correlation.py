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
"""Norms below this are replaced by it before a division, so that a constant row has correlation 0 with every row."""

TANGENT_BELOW = 0.1
"""Below this correlation, `skd` replaces log by its tangent at this point, whose slope is 10."""

DETAIL_FLOOR = 0.01
"""`skd` rewards no correlation of detail features below this: they shall be uncorrelated, not anti-correlated."""

OUTSIDE_CEILING = 1 - 1e-4
"""In the form "outside", the correlation of detail features is clamped to this, because the root's slope is infinite at
1."""


@full_precision
def correlation(x: Float[Tensor, "n c"], y: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """corr of Eqs. 2 and 14, in [-1, 1]: the Pearson correlation of row k of x and row k of y, averaged over k.

    Each correlation is taken over the c channels [ours: the paper says only "Pearson"]. A constant row has correlation
    0, not NaN.
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

    Z stands for Z^D (`detail_...`) and Zbar for Zbar^D = Z P (`projected_...`).

    - `gamma`: the constant of CDDFuse [lineage].
    - `clamp`: raise negative correlations in the denominator to 0 before they are squared [ours]. In the printed form a
      correlation of -1 between Zbar^D and Z^D lowers the loss as much as one of +1.
    - `detach`: give Z^D no gradient [ours: the paper writes Zbar^D -> Z^D].
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
    """`skd` (Eq. 2): correlates the base features of both modalities and de-correlates their detail features.

    All four features get gradients. `form`, `delta` and `gamma` are those of `specific_shared_from_correlations`.
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
    """`skd` (Eq. 2) of corr_base = corr(Z_V^B, Z_I^B) and corr_detail = corr(Z_V^D, Z_I^D), for each element.

    - "stable" [ours]: -logext(corr_base) / cbrt(delta - log(clamp(corr_detail, 0.01, 1))). logext is log above 0.1 and
      the tangent of log below, so that a negative base correlation still gets a gradient that raises it. For delta > 0
      the value is finite, has finite gradients, is >= 0, is 0 at corr_base = 1, and falls as corr_base rises and as
      corr_detail falls.
    - "outside" [ours]: logext(corr_base) / (cbrt(log(clamp(corr_detail, 0.01, 1 - 1e-4))) - gamma). Here the gamma of
      the paper is subtracted outside the root.
    - "literal" [paper]: log(corr_base) / (cbrt(log(corr_detail)) + gamma), as printed. It is NaN where a correlation is
      negative, has a pole at corr_detail = exp(-gamma^3), and is negative beyond the pole.

    Only "stable" uses `delta`; only the two other forms use `gamma`. Raises `InputError` for an unknown form.
    """
    if form == "stable":
        return -_extended_log(corr_base) / (delta - corr_detail.clamp(DETAIL_FLOOR, 1).log()).pow(1 / 3)
    if form == "outside":
        depth = -corr_detail.clamp(DETAIL_FLOOR, OUTSIDE_CEILING).log()
        return -_extended_log(corr_base) / (depth.pow(1 / 3) + gamma)
    if form == "literal":
        log_detail = corr_detail.log()
        cube_root = log_detail.sign() * log_detail.abs().pow(1 / 3)  # pow is NaN for negative bases, and log is <= 0
        return corr_base.log() / (cube_root + gamma)
    raise InputError(f"unknown form {form!r} of the specific-shared term; use 'stable', 'outside' or 'literal'")


def _standardized(x: Tensor) -> Tensor:
    """The rows of x shifted to mean 0 and scaled to norm 1; constant rows become 0.

    The mean is subtracted twice. After the first time, rounding may leave a constant row with a norm above NORM_FLOOR.
    What is left is the same in every channel, so the second subtraction removes it.
    """
    x = x - x.mean(dim=1, keepdim=True)
    x = x - x.mean(dim=1, keepdim=True)
    return F.normalize(x, dim=1, eps=NORM_FLOOR)


def _extended_log(x: Tensor) -> Tensor:
    above = x > TANGENT_BELOW
    tangent = math.log(TANGENT_BELOW) + (x - TANGENT_BELOW) / TANGENT_BELOW
    # The inner `where` keeps x <= 0 out of the log: its gradient would be infinite there, and 0 * inf is NaN.
    return torch.where(above, torch.where(above, x, TANGENT_BELOW).log(), tangent)
