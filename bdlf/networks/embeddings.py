"""What a network hands to the losses: tensors by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Embeddings:
    """Features of one batch of k blocks of n rows each, k = 2 for BDLF.

    Rows b n .. (b + 1) n - 1 belong to block b of `blocks`, and row i of every block shows the same identity. A feature
    that the configuration does not need is not built: it is `None`.
    """

    comprehensive_pooled: Tensor
    """(k n, C) pooled output of the backbone, before the BN-neck."""
    comprehensive: Tensor
    """(k n, C) Z of Eq. 1, after the BN-neck: what inference uses."""
    detail: Tensor | None = None
    """(k n, C) Z^D of Eq. 5."""
    detail_projected: Tensor | None = None
    """(k n, C) Z P of Eq. 9."""
    base: Tensor | None = None
    """(k n, C) Z^B = Z (I - P) of Eq. 9."""
    fused: Tensor | None = None
    """(n, C) Z_F^B of Eq. 16, one row for the visible and the infrared image together."""
    projection: Tensor | None = None
    """(C, C) P of Eq. 9."""
    attention: Tensor | None = None
    """(2n, n) softmax weights of Eq. 4: row i of the visible block over the infrared rows, and the reverse."""
    logits: dict[str, Tensor] = field(default_factory=dict)
    """Class scores (rows, identities) by the name of the feature above that was classified."""
    blocks: tuple[str, ...] = ("vis", "ir")
    """The names of the k blocks, in the order of the rows."""

    @property
    def rows_of_a_block(self) -> int:
        """N, the number of rows of each block."""
        return len(self.comprehensive_pooled) // len(self.blocks)

    def block(self, tensor: Tensor, name: str) -> Tensor:
        """The rows of the block `name` in `tensor`, which has the rows of all blocks."""
        return tensor.chunk(len(self.blocks))[self.blocks.index(name)]
