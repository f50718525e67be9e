"""What the network hands to the losses: named tensors, nothing positional."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Embeddings:
    """Features of one batch: rows 0..n-1 are visible, rows n..2n-1 infrared, and row k and row n + k are one identity.

    `None` marks what the configuration does not need and therefore did not build.
    """

    comprehensive_pooled: Tensor
    """(2n, C) pooled output of the backbone, before the BN-neck."""
    comprehensive: Tensor
    """(2n, C) Z of Eq. 1, after the BN-neck: what inference uses."""
    detail: Tensor | None = None
    """(2n, C) Z^D of Eq. 5."""
    detail_projected: Tensor | None = None
    """(2n, C) Z P of Eq. 9."""
    base: Tensor | None = None
    """(2n, C) Z^B = Z (I - P) of Eq. 9."""
    fused: Tensor | None = None
    """(n, C) Z_F^B of Eq. 16."""
    projection: Tensor | None = None
    """(C, C) P of Eq. 9."""
    attention: Tensor | None = None
    """(2n, n) softmax weights of Eq. 4: row k of the visible half over the infrared rows, and the reverse."""
    logits: dict[str, Tensor] = field(default_factory=dict)
    """Class scores (rows, identities) by the name of the feature above that was classified."""
