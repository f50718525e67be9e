"""Terms that draw row k of one block to row k of another (LUPI and MMN)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bdlf.losses.precision import full_precision


@full_precision
def colour_free(
    visible: Float[Tensor, "n c"], intermediate: Float[Tensor, "n c"], factor: float = 10.0
) -> Float[Tensor, ""]:
    """`colour_free` of LUPI: `factor` times the mean over rows and channels of (V_k - Z_k)^2.

    Row k of both blocks is the same photograph, cropped and flipped differently. Both get gradients. The `factor` of 10
    is the released code's.
    """
    return factor * F.mse_loss(visible, intermediate)


@full_precision
def consistency(
    visible_middle: Float[Tensor, "n *parts c"], infrared_middle: Float[Tensor, "n *parts c"]
) -> Float[Tensor, ""]:
    """`dcl` of MMN: the mean over rows (and parts) of the Euclidean distance of e(VM_k) and e(IM_k).

    The arguments are already mapped: e, which ends in unit length, is a part of the network. So the value lies in 0..2.
    Row k of both blocks has the same identity. Both get gradients; where the rows are equal, the gradient is 0.
    """
    distances: Tensor = torch.linalg.vector_norm(visible_middle - infrared_middle, dim=-1)
    return distances.mean()
