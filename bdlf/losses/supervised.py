"""Terms that use the labels: cross-entropy of logits and triplet loss of features (Eqs. 6, 19, 20, 22)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.losses.precision import full_precision
from bdlf.system.errors import InputError


@full_precision
def identity(logits: Float[Tensor, "n ids"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Cross-entropy of logits with labels 0 .. ids-1, mean over rows: `id`, `id_detail`, `id_base`, `id_fused`."""
    return F.cross_entropy(logits, labels.long())


@full_precision
def part_identity(logits: Float[Tensor, "n parts ids"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """`id_parts` of MMN: the mean over the parts of `identity`. Each part of a row has class scores of its own."""
    parts = logits.shape[1]
    return F.cross_entropy(logits.flatten(0, 1), labels.long().repeat_interleave(parts))


@full_precision
def triplet(features: Float[Tensor, "n c"], labels: Int[Tensor, " n"], margin: float = 0.3) -> Float[Tensor, ""]:
    """`tri` of Eq. 22: the batch-hard triplet loss of Hermans et al. [paper] with a hard margin of 0.3 [lineage].

    The mean over rows of max(0, margin + d(row, farthest of its identity) - d(row, nearest of another)), where d is the
    Euclidean distance. A row is not its own positive. Rows that lack a positive (the only image of its identity) or a
    negative are left out of the mean. Identical features have distance 0 with gradient 0.

    Raises:
        InputError: no row has both a positive and a negative. This is checked only for labels on the CPU, because the
            check would wait for a GPU. On a GPU the mean over no row is NaN.
    """
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    anchors = positive.any(dim=1) & ~same.all(dim=1)
    if labels.device.type == "cpu" and not anchors.any():
        raise InputError(
            "triplet loss: no row has both a positive and a negative; a batch needs two identities, one with two images"
        )
    # The choice of rows has no gradient. Distances are computed from differences: computed from the Gram matrix, they
    # lose all digits where features are close.
    with torch.no_grad():
        distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
        farthest = distances.masked_fill(~positive, -torch.inf).argmax(dim=1)
        nearest = distances.masked_fill(same, torch.inf).argmin(dim=1)
    to_positive = torch.linalg.vector_norm(features - features[farthest], dim=1)
    to_negative = torch.linalg.vector_norm(features - features[nearest], dim=1)
    hinge = F.relu(margin + to_positive - to_negative)
    return torch.where(anchors, hinge, 0.0).sum() / anchors.sum()
