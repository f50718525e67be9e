"""Base Embedding Generation: the projection P (Eqs. 9, 10) and the cross-modality fusion (Eq. 16)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from bdlf.networks.streams import stream
from bdlf.system.errors import InputError, check_choice


class Projection(nn.Module):
    """P of Eq. 9, C x C: Zbar^D = Z P and Z^B = Z - Z P.

    - `form="free"` [paper]: a learnable matrix; only the `orth` term pulls it to Eq. 10. Its `init` [ours] is a random
      orthogonal `projector` of rank C/2, where that term is 0, or `kaiming` (uniform, linear gain), where it is 4.
    - `form="orthogonal"` [ours]: P = U U^T with orthonormal columns U, C x C/2, a projector at every step. It starts at
      a random one; weight decay pulls it back there.

    Raises:
        InputError: an unknown option, or `orthogonal` with `kaiming`.
    """

    def __init__(self, width: int, *, form: str = "free", init: str = "projector") -> None:
        super().__init__()
        check_choice("beg.projection", form, ("free", "orthogonal"))
        check_choice("beg.init", init, ("projector", "kaiming"))
        self.form = form
        if init == "kaiming":
            if form == "orthogonal":
                raise InputError("beg.projection=orthogonal starts at a projector; use beg.init=projector with it")
            self.P = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(width, width), nonlinearity="linear"))
            return
        U = nn.init.orthogonal_(torch.empty(width, width // 2))
        if form == "free":
            self.P = nn.Parameter(U @ U.T)
        else:
            self.U = nn.Parameter(U)
            # Not torch's default for tall matrices, Householder: it truncates a diagonal of +-1 to integers, so that
            # weight decay or an average of weights, one rounding below 1, makes the columns 0.
            orthogonal(self, "U", orthogonal_map="cayley")

    def forward(self) -> Float[Tensor, "wide wide"]:
        """P. Call with autocast off, as `BDLF` does: in half precision it is no projector."""
        if self.form == "free":
            return self.P.clone()  # not the leaf itself: Fabric leaves a hook on every output
        U = self.U  # computed by the parametrization at each access
        return U @ U.T


class Fusion(nn.Module):
    """Cross-modality fusion of the base features, Eq. 16: (2n, C) to Z_F^B, (n, C).

    The printed channel step, (C x C)(n x C), does not conform; we read it as [ours]

        Z_mid = (Z_I Pv) [(Z_V Pq)^T (Z_I Pk)]^T / C + Z_V
        Z_F = (1/n) [(Z_I Qq) (Z_mid Qk)^T] (Z_mid Qv) + Z_I

    - `scaled` [ours]: the batch step, whose products run over C channels but are divided only by n, is also divided by
      sqrt(C). `False`: as printed.
    - `zero_value` [ours]: Pv and Qv start at 0, so that Z_F starts at Z_I. `False`: normal, std 1/sqrt(C), as the
      others always do.
    - `seed`: the random values of a matrix depend on it and on the name of the matrix alone.
    """

    def __init__(self, width: int, *, scaled: bool = True, zero_value: bool = True, seed: int = 0) -> None:
        super().__init__()
        self.scaled = scaled

        def matrix(name: str, zero: bool = False) -> nn.Parameter:
            with stream(seed, f"fusion.{name}"):
                return nn.Parameter(torch.zeros(width, width) if zero else torch.randn(width, width) / width**0.5)

        self.Pq, self.Pk, self.Pv = matrix("Pq"), matrix("Pk"), matrix("Pv", zero_value)
        self.Qq, self.Qk, self.Qv = matrix("Qq"), matrix("Qk"), matrix("Qv", zero_value)

    def forward(self, base: Float[Tensor, "rows wide"]) -> Float[Tensor, "half wide"]:
        """Z_F^B, (n, C), of Z^B, (2n, C), visible rows first. Call with autocast off, as `BDLF` does."""
        visible, infrared = base.chunk(2)
        n, width = visible.shape
        # Multiplied from the left, the channel step makes n x n rather than C x C matrices.
        middle = (infrared @ self.Pv) @ (infrared @ self.Pk).T @ (visible @ self.Pq) / width + visible
        weights = (infrared @ self.Qq) @ (middle @ self.Qk).T / n
        if self.scaled:
            weights = weights / width**0.5
        return weights @ (middle @ self.Qv) + infrared
