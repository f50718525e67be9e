"""The tensors that a network gives to the terms of the loss, by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Embeddings:
    """The features of one batch of k blocks of n rows each; BDLF has k = 2 blocks.

    Rows b n .. (b + 1) n - 1 belong to block b of `blocks`, and row i of every block shows the same identity. A feature
    that no term needs is not built and is None.
    """

    comprehensive_pooled: Tensor
    """(k n, C), the pooled output of the backbone, before the BN-neck."""
    comprehensive: Tensor
    """(k n, C), Z of Eq. 1, after the BN-neck. Inference compares these features."""
    detail: Tensor | None = None
    """(k n, C), Z^D of Eq. 5."""
    detail_projected: Tensor | None = None
    """(k n, C), Zbar^D = Z P of Eq. 9."""
    base: Tensor | None = None
    """(k n, C), Z^B = Z (I - P) of Eq. 9."""
    fused: Tensor | None = None
    """(n, C), Z_F^B of Eq. 16. A row stands for one visible and one infrared image together."""
    projection: Tensor | None = None
    """(C, C), P of Eq. 9."""
    attention: Tensor | None = None
    """(2n, n), the softmax weights of Eq. 4: of each visible row over the infrared rows, then the reverse."""
    logits: dict[str, Tensor] = field(default_factory=dict)
    """Class scores (rows, identities), by the name of the feature that was classified."""
    blocks: tuple[str, ...] = ("vis", "ir")
    """The names of the k blocks, in the order of the rows."""

    def block(self, tensor: Tensor, name: str) -> Tensor:
        """The rows of the block `name`, out of a `tensor` that has the rows of all blocks."""
        return tensor.chunk(len(self.blocks))[self.blocks.index(name)]
