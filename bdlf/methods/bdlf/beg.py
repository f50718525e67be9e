"""Base Embedding Generation: the projection P (Eqs. 9, 10) and the cross-modality fusion (Eq. 16)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from bdlf.networks.streams import stream
from bdlf.system.errors import InputError, check_choice


class Projection(nn.Module):
    """P of Eq. 9, (C, C), which splits Z into Zbar^D = Z P and Z^B = Z - Z P.

    - `form="free"` [paper]: P is a learnable matrix, and only the term `orth` pulls it towards a projector (Eq. 10).
    - `form="orthogonal"` [ours]: P = U U^T, where U, (C, C/2), has orthonormal columns, so P is an orthogonal projector
      at every step. P starts at a random projector, and weight decay pulls it back to that one.
    - `init` [ours] says where a free P starts. `projector`: at a random orthogonal projector of rank C/2, where `orth`
      is 0. `kaiming`: at uniform random values with linear gain, where `orth` is 4.

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
            # Householder, torch's default for tall matrices, stores a diagonal of +-1 and truncates it to integers.
            # Weight decay or averaging moves the diagonal a rounding error below 1, and the columns would become 0.
            orthogonal(self, "U", orthogonal_map="cayley")

    def forward(self) -> Float[Tensor, "wide wide"]:
        """P, (C, C). The caller switches autocast off, as `BDLF` does, because in half precision P is no projector."""
        if self.form == "free":
            return self.P.clone()  # a copy, because Fabric leaves a hook on every tensor that a module returns
        U = self.U  # the parametrization computes U at each access
        return U @ U.T


class Fusion(nn.Module):
    """Cross-modality fusion of the base features (Eq. 16): Z^B, (2n, C), to Z_F^B, (n, C).

    The channel step is printed as a product of a C x C and an n x C matrix, which is not defined. We read it as [ours]

        Z_mid = (Z_I Pv) [(Z_V Pq)^T (Z_I Pk)]^T / C + Z_V
        Z_F = (1/n) [(Z_I Qq) (Z_mid Qk)^T] (Z_mid Qv) + Z_I

    - `scaled` [ours]: the weights of the batch step (the second line) are divided by sqrt(C) too, because they are sums
      over C channels. `False`: they are divided by n alone, as printed.
    - `zero_value` [ours]: Pv and Qv start at 0, so Z_F starts at Z_I. `False`: they start like the other matrices, at
      normal values with std 1/sqrt(C).
    - `seed`: the initial values of a matrix depend on `seed` and on the name of the matrix alone.
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
        """Z_F^B, (n, C), of Z^B, (2n, C), whose visible rows stand first. The caller switches autocast off."""
        visible, infrared = base.chunk(2)
        n, width = visible.shape
        # In this order of the products, the channel step makes n x n matrices instead of C x C ones.
        middle = (infrared @ self.Pv) @ (infrared @ self.Pk).T @ (visible @ self.Pq) / width + visible
        weights = (infrared @ self.Qq) @ (middle @ self.Qk).T / n
        if self.scaled:
            weights = weights / width**0.5
        return weights @ (middle @ self.Qv) + infrared
