"""Triplet losses in which every row counts, weighted by its distance (AGW and CAJ)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bdlf.losses.mining import refuse_one_identity
from bdlf.losses.precision import full_precision
from bdlf.system.errors import InputError

DISTANCE_FLOOR = 1e-6
"""Distances below this are replaced by it and get no gradient [lineage]; so is the distance of a row to itself."""

RELEASED_DENOMINATOR = 1e-6
"""What the released code adds to the sum that divides its weights."""


@full_precision
def weighted_triplet(
    features: Float[Tensor, "n c"], labels: Int[Tensor, " n"], form: str = "softmax"
) -> Float[Tensor, ""]:
    """`wrt`, the weighted regularised triplet loss of AGW: the mean over rows of log(1 + exp(a - b)).

    `features` are the rows of all blocks. a and b are the weighted distances of a row to its identity and to the other
    identities; `weighted_distances` computes them and explains `form`.

    Raises:
        InputError: an unknown form, or all rows have one identity. The identities are checked only for labels on the
            CPU, because the check would wait for a GPU. On a GPU the value is then NaN.
    """
    to_positives, to_negatives = weighted_distances(features, labels, form)
    return F.softplus(to_positives - to_negatives).mean()


@full_precision
def squared_difference(
    features: Float[Tensor, "n c"], labels: Int[Tensor, " n"], form: str = "softmax", cut: float = 88.0
) -> Float[Tensor, ""]:
    """`sqd`, the enhanced squared difference of CAJ: the mean over rows of log(1 + exp(s min((a - b)^2, cut))).

    s is 1 where a > b and -1 elsewhere. `features`, a, b, `form` and the errors are those of `weighted_triplet`.

    - `cut`: largest squared difference [lineage: 88, above which exp overflows in float32]. A row beyond it has no
      gradient. Here the logarithm does not overflow, so `cut=math.inf` is possible.
    """
    to_positives, to_negatives = weighted_distances(features, labels, form)
    difference = to_positives - to_negatives
    squared = difference.square().clamp(max=cut)
    return F.softplus(torch.where(difference > 0, squared, -squared)).mean()


@full_precision
def weighted_distances(
    features: Float[Tensor, "n c"], labels: Int[Tensor, " n"], form: str = "softmax"
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """For each row: its weighted distance a to the rows of its identity, and b to the rows of other identities.

    a_i = sum w_ij d_ij over the rows j of the identity of i, where d is the Euclidean distance of rows that are not
    normalised, and w is large for far rows. Row i is one of these rows itself, at distance 1e-6 [lineage]. b_i is the
    same sum over the rows of other identities, where w is large for near rows. The weights have gradients too.

    - `form="softmax"` [paper]: the weights are the softmax of d for a, and the softmax of -d for b.
    - `form="released"`: the public code subtracts no maximum from -d before it takes powers, and it adds 1e-6 to the
      sum that divides them. So the weights of b, and b itself, vanish where the nearest row of another identity is
      farther away than about 14. There `weighted_triplet` no longer pushes other identities away; in a band of
      distances it pulls them closer, because b grows as they approach. The mean of b shows whether a run is there.

    Raises `InputError` as `weighted_triplet` does.
    """
    if form not in ("softmax", "released"):
        raise InputError(f"unknown form {form!r} of the weighted triplet; use 'softmax' or 'released'")
    refuse_one_identity(labels, "weighted triplet loss")
    same = labels[:, None] == labels
    # From differences: computed from the Gram matrix, distances lose all digits where features are close.
    distances = torch.linalg.vector_norm(features[:, None] - features, dim=2).clamp(min=DISTANCE_FLOOR)
    weights = _softmax if form == "softmax" else _released_weights
    to_positives = (weights(distances, same) * distances).sum(dim=1)
    to_negatives = (weights(-distances, ~same) * distances).sum(dim=1)
    return to_positives, to_negatives.masked_fill(same.all(dim=1), torch.nan)


def _softmax(scores: Float[Tensor, "n n"], among: Bool[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Softmax of each row over the entries in `among`; the others are 0."""
    return scores.masked_fill(~among, -torch.inf).softmax(dim=1)


def _released_weights(scores: Float[Tensor, "n n"], among: Bool[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """As `_softmax`, with the released code's maximum, in which the other entries count as 0, and its denominator."""
    highest = scores.masked_fill(~among, 0).amax(dim=1, keepdim=True)
    powers = (scores - highest).masked_fill(~among, -torch.inf).exp()
    return powers / (powers.sum(dim=1, keepdim=True) + RELEASED_DENOMINATOR)
