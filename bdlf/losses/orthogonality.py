"""The term that keeps P an orthogonal projector (Eqs. 10 and 20)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bdlf.losses.precision import full_precision


@full_precision
def orthogonality(projection: Float[Tensor, "c c"]) -> Float[Tensor, ""]:
    """sum_ij((PP - P)^2) / C + sum_ij((P^T - P)^2) / C: `orth` (Eq. 20), from the constraints of Eq. 10 [ours].

    C is the number of rows of P. The value is 0 exactly where P is symmetric and idempotent. It is a polynomial of
    degree 4 in P.
    """
    idempotence = torch.addmm(projection, projection, projection, beta=-1)
    symmetry = projection - projection.T
    return (idempotence.square().sum() + symmetry.square().sum()) / len(projection)
