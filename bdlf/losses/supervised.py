"""Terms that learn from the labels: cross-entropy of class scores, triplet loss of features (Eqs. 6, 19, 20, 22)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.losses.precision import full_precision
from bdlf.system.errors import InputError


@full_precision
def identity(logits: Float[Tensor, "n ids"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Cross-entropy of class scores with labels 0..ids-1, mean over rows: `id`, `id_detail`, `id_base`, `id_fused`."""
    return F.cross_entropy(logits, labels.long())


@full_precision
def triplet(features: Float[Tensor, "n c"], labels: Int[Tensor, " n"], margin: float = 0.3) -> Float[Tensor, ""]:
    """Batch-hard triplet loss of Hermans et al. [paper], `tri` of Eq. 22; hard margin 0.3 [lineage].

    Mean over rows of max(0, margin + d(row, farthest of its identity) - d(row, nearest of another)), d the Euclidean
    distance. A row is not its own positive. A row that lacks a positive (the only image of its identity) or a negative
    is left out of the mean. Coincident features have distance 0 with gradient 0.

    Raises:
        InputError: no row has both a positive and a negative. Not where the labels are on a device, which would be
            waited for: the mean over no row is NaN there.
    """
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    anchors = positive.any(dim=1) & ~same.all(dim=1)
    if labels.device.type == "cpu" and not anchors.any():
        raise InputError(
            "triplet loss: no row has both a positive and a negative; a batch needs two identities, one with two images"
        )
    # Choosing has no gradient. From differences, not from the Gram matrix, which cancels where features are close.
    with torch.no_grad():
        distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
        farthest = distances.masked_fill(~positive, -torch.inf).argmax(dim=1)
        nearest = distances.masked_fill(same, torch.inf).argmin(dim=1)
    to_positive = torch.linalg.vector_norm(features - features[farthest], dim=1)
    to_negative = torch.linalg.vector_norm(features - features[nearest], dim=1)
    hinge = F.relu(margin + to_positive - to_negative)
    return torch.where(anchors, hinge, 0.0).sum() / anchors.sum()
