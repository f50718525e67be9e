"""Terms that separate what features share with the shape of the body from the rest (SGIEL)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.losses.correlation import NORM_FLOOR
from bdlf.losses.distillation import distillation, mutual_distillation
from bdlf.losses.precision import full_precision


@full_precision
def related(
    features: Float[Tensor, "n c"],
    shape: Float[Tensor, "n c"],
    logits: Float[Tensor, "n ids"],
    shape_logits: Float[Tensor, "n ids"],
) -> Float[Tensor, ""]:
    """`related` of SGIEL: the mean over rows and channels of (features - shape)^2, plus ce(logits, shape_logits).

    `features` are f P, the part of the features that is related to the shape of the body, and `logits` are their class
    scores. `shape` and `shape_logits` are the teacher's features and class scores of the body-shape maps; they get no
    gradient. ce is `bdlf.losses.distillation`.
    """
    return F.mse_loss(features, shape.detach()) + distillation(logits, shape_logits)


@full_precision
def erased_distillation(
    shape_visible: Float[Tensor, "n c"],
    shape_infrared: Float[Tensor, "n c"],
    visible: Float[Tensor, "n ids"],
    infrared: Float[Tensor, "n ids"],
    labels: Int[Tensor, " n"],
) -> Float[Tensor, ""]:
    """`kl_erased` of SGIEL: class scores without the body shape learn from those of the other modality, twice.

    `visible` and `infrared` are the class scores of the shape-erased features. First, row k of each modality learns
    from row k of the other, as in `bdlf.losses.mutual_distillation`. Second, each row learns from the row of its
    identity in the other modality whose body shape is least similar: the cosine of `shape_visible` and `shape_infrared`
    is lowest. Both directions of both are summed. The body shapes, and the scores that are learnt from, get no
    gradient. `labels` are those of one block; both blocks have the same.
    """
    with torch.no_grad():
        cosines = (
            F.normalize(shape_visible, dim=1, eps=NORM_FLOOR) @ F.normalize(shape_infrared, dim=1, eps=NORM_FLOOR).T
        )
        cosines = cosines.masked_fill(labels[:, None] != labels, torch.inf)
        least_infrared, least_visible = cosines.argmin(dim=1), cosines.argmin(dim=0)
    across_shapes = distillation(visible, infrared[least_infrared]) + distillation(infrared, visible[least_visible])
    return mutual_distillation(visible, infrared) + across_shapes


@full_precision
def column_orthogonality(projection: Float[Tensor, "c d"]) -> Float[Tensor, ""]:
    """`ortho` of SGIEL: sum_ij |U^T U - 1|_ij / d, where U is `projection` with its d columns scaled to unit length.

    The value is the mean over columns of the sum of absolute cosines with the other columns; it is 0 exactly where the
    columns are orthogonal, whatever their lengths.
    """
    columns = F.normalize(projection, dim=0, eps=NORM_FLOOR)
    identity = torch.eye(columns.shape[1], dtype=columns.dtype, device=columns.device)
    return (columns.T @ columns - identity).abs().sum() / len(identity)
