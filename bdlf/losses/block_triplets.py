"""Batch-hard triplet losses between the rows of chosen blocks (LUPI and MMN)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.losses.mining import hardest, refuse_one_identity
from bdlf.losses.precision import full_precision


@full_precision
def dual_triplet(
    visible: Float[Tensor, "n c"],
    infrared: Float[Tensor, "n c"],
    intermediate: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    margin: float = 0.3,
) -> Float[Tensor, ""]:
    """`tri_dual` of LUPI: (T(V; I; Z) + T(I; Z; V) + T(Z; V; I)) / 3, with the intermediate domain Z.

    T(A; P; N) is the mean over the rows of A of max(0, margin + d(row, farthest of its identity in P) - d(row, nearest
    of another identity in N)), where d is the Euclidean distance. `labels` are those of one block; all blocks have the
    same.

    Raises:
        InputError: all rows have one identity. This is checked only for labels on the CPU, because the check would wait
            for a GPU. On a GPU the value is then NaN.
    """
    refuse_one_identity(labels, "dual triplet loss")
    cycle = (
        (visible, infrared, intermediate),
        (infrared, intermediate, visible),
        (intermediate, visible, infrared),
    )
    anchor, positive, negative = (torch.stack(blocks) for blocks in zip(*cycle, strict=True))
    to_positive, to_negative = hardest(anchor, positive, negative, labels)
    return F.relu(margin + to_positive - to_negative).mean()


@full_precision
def middle_triplet(
    visible: Float[Tensor, "n *parts c"],
    visible_middle: Float[Tensor, "n *parts c"],
    infrared: Float[Tensor, "n *parts c"],
    infrared_middle: Float[Tensor, "n *parts c"],
    labels: Int[Tensor, " n"],
    margin: float = 0.3,
) -> Float[Tensor, ""]:
    """`tri_middle` of MMN: the mean of four batch-hard triplet losses, each on the 2n rows of two blocks.

    The four pairs of blocks are (V, I), (V, IM), (VM, I) and (VM, IM), where VM and IM are the features of the middle
    images. Each loss is `bdlf.losses.triplet`. Features are (n, c) for one part, or (n, parts, c): then the value is
    the mean over the parts, whose rows do not mix. `labels` are those of one block; all blocks have the same.

    Raises:
        InputError: all rows have one identity. This is checked only for labels on the CPU, because the check would wait
            for a GPU. On a GPU the value is then NaN.
    """
    refuse_one_identity(labels, "middle triplet loss")
    pairs = [torch.cat([v, i]) for v in (visible, visible_middle) for i in (infrared, infrared_middle)]
    rows = torch.stack(pairs).movedim(1, -2)  # (4, *parts, 2n, c)
    to_positive, to_negative = hardest(rows, rows, rows, labels.repeat(2))
    return F.relu(margin + to_positive - to_negative).mean()
