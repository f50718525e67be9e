"""Terms on the rows that the two branches of an expansion add to the original rows (DEEN)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.losses.mining import nearest_negative, refuse_one_identity
from bdlf.losses.precision import full_precision
from bdlf.system.errors import InputError


@full_precision
def centre_pair_mining(
    visible: Float[Tensor, "n c"],
    infrared: Float[Tensor, "n c"],
    visible_1: Float[Tensor, "n c"],
    infrared_1: Float[Tensor, "n c"],
    visible_2: Float[Tensor, "n c"],
    infrared_2: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    margin: float = 0.2,
    form: str = "released",
) -> Float[Tensor, ""]:
    """`cpm`, the centre-guided pair mining of DEEN: the sum over both branches of `branch_pair_mining`.

    `visible_1` and `infrared_1` are the rows of the first branch, `visible_2` and `infrared_2` those of the second.
    `labels` are those of one block; all blocks have the same. `margin`, `form` and the errors are those of
    `branch_pair_mining`.
    """
    first = branch_pair_mining(visible, infrared, visible_1, infrared_1, labels, margin, form)
    return first + branch_pair_mining(visible, infrared, visible_2, infrared_2, labels, margin, form)


@full_precision
def branch_pair_mining(
    visible: Float[Tensor, "n c"],
    infrared: Float[Tensor, "n c"],
    visible_branch: Float[Tensor, "n c"],
    infrared_branch: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    margin: float = 0.2,
    form: str = "released",
) -> Float[Tensor, ""]:
    """`cpm` of one branch: draws the centres of each branch to the other modality's, and identities apart.

    A centre is the mean over the images of an identity in one block. d is the Euclidean distance of centres, p and q
    are identities, V' and I' are the rows of the branch, and h(t) = max(0, t + `margin`). The value is the mean of the
    visible and the infrared side; each side is a mean over the identities. Below is the visible side; the infrared one
    has V and I exchanged.

    - `form="released"`: h(d(I^p, V'^p) - d(V^p, V'^p)) + h(d(I^p, V'^p) - min_q d(V'^p, V'^q)) / 2
      + h(d(I^p, V'^p) - min_q d(V^p, V^q)) / 2. Here d(V^p, V'^p) has no gradient.
    - `form="paper"`: h(d(I^p, V'^p) - d(V^p, V'^p) - min_q d(V^p, V^q)), the paper's Eqs. 3-5. Every distance has a
      gradient. The paper does not say which identity q it means, nor whether it sums or averages. We take the nearest
      q and the same means as in the other form [ours].

    Raises:
        InputError: an unknown form, or all rows have one identity. The identities are checked only for labels on the
            CPU, because the check would wait for a GPU. On a GPU the value is then NaN.
    """
    if form not in ("released", "paper"):
        raise InputError(f"unknown form {form!r} of the centre-guided pair mining; use 'released' or 'paper'")
    refuse_one_identity(labels, "centre-guided pair mining")
    # Row i of each tensor of centres is the centre of the identity of row i. An identity with m rows is so repeated m
    # times, and each of its rows weighs 1/m. The number of identities is a number on the device, not a shape.
    same = labels[:, None] == labels
    share = same.sum(dim=1, keepdim=True).to(visible.dtype).reciprocal()
    v, i, v_branch, i_branch = (
        (share * same) @ block for block in (visible, infrared, visible_branch, infrared_branch)
    )
    sides = _side(v, i, v_branch, labels, margin, form) + _side(i, v, i_branch, labels, margin, form)
    return (share[:, 0] * sides).sum() / share.sum() / 2


@full_precision
def branch_orthogonality(
    visible_1: Float[Tensor, "n c"],
    infrared_1: Float[Tensor, "n c"],
    visible_2: Float[Tensor, "n c"],
    infrared_2: Float[Tensor, "n c"],
) -> Float[Tensor, ""]:
    """`ort` of DEEN: the inner products of each row in the first and in the second branch, summed and divided by 6n.

    6n is the number of rows of all six blocks, the original ones included [lineage]. Features are not normalised. If
    they have no negative entry, as pooled outputs of a ReLU, the value is at least 0; otherwise it has no lower bound.
    """
    products = (visible_1 * visible_2).sum() + (infrared_1 * infrared_2).sum()
    return products / (6 * len(visible_1))


def _side(own: Tensor, other: Tensor, branch: Tensor, labels: Tensor, margin: float, form: str) -> Tensor:
    """One modality's side of `branch_pair_mining` for each row of centres: `own` and `branch` are of this modality."""
    to_other = torch.linalg.vector_norm(other - branch, dim=1)
    to_own = torch.linalg.vector_norm(own - branch, dim=1)
    apart = nearest_negative(own, own, labels)
    if form == "paper":
        return F.relu(to_other - to_own - apart + margin)
    branch_apart = nearest_negative(branch, branch, labels)
    away_from_own = F.relu(to_other - to_own.detach() + margin)
    return away_from_own + (F.relu(to_other - branch_apart + margin) + F.relu(to_other - apart + margin)) / 2
