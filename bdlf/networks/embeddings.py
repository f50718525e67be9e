"""The tensors that a network gives to the terms of the loss, by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Int
from torch import Tensor

from bdlf.system.errors import InputError

TEACHER = "teacher."
"""What the name of a feature begins with if a term reads it of the teacher: `teacher.shape`."""


@dataclass
class Embeddings:
    """The features of one batch of k blocks of n rows each; BDLF has k = 2 blocks.

    Rows b n .. (b + 1) n - 1 belong to block b of `blocks`, and row i of every block shows the same identity. A feature
    that no term needs is not built and is None. The blocks are those that come out of the network: DEEN gets two blocks
    of images and makes six of them.
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
    parts: Tensor | None = None
    """(k n, parts, C), the pooled horizontal stripes of MMN, before their BN-necks."""
    parts_mapped: Tensor | None = None
    """(k n, parts, D), e(x) of MMN's stripes, of unit length. Only rows of middle images have it, the others are 0."""
    shape: Tensor | None = None
    """(k n, D), the body-shape features of SGIEL, one of each image's silhouette."""
    related: Tensor | None = None
    """(k n, D), the part of Z that is related to the body shape in SGIEL."""
    related_projection: Tensor | None = None
    """(C, D), P of SGIEL, whose columns span what is related to the body shape."""
    logits: dict[str, Tensor] = field(default_factory=dict)
    """Class scores (rows, identities), by the name of the feature that was classified. MMN's parts have their own:
    (rows, parts, identities)."""
    blocks: tuple[str, ...] = ("vis", "ir")
    """The names of the k blocks, in the order of the rows."""
    teacher: Embeddings | None = field(default=None, init=False)
    """What the average of the weights makes of the same batch, without gradients, if a term reads it. The training step
    sets it."""

    def feature(self, name: str) -> Tensor | None:
        """The feature `name`. With `teacher.` in front it is the teacher's."""
        if name.startswith(TEACHER):
            return None if self.teacher is None else self.teacher.feature(name.removeprefix(TEACHER))
        found: Tensor | None = getattr(self, name)
        return found

    def scores(self, name: str) -> Tensor | None:
        """The class scores of the feature `name`. With `teacher.` in front they are the teacher's."""
        if name.startswith(TEACHER):
            return None if self.teacher is None else self.teacher.scores(name.removeprefix(TEACHER))
        return self.logits.get(name)

    def row_labels(self, labels: Int[Tensor, " given"]) -> Int[Tensor, " rows"]:
        """The label of each of the k n rows.

        `labels` are those that the network was given: of any number of blocks, all of which have the same n labels.
        Raises InputError if they are not whole blocks of n.
        """
        blocks, rows = len(self.blocks), len(self.comprehensive_pooled)
        n = rows // blocks
        if not n or rows % blocks or not len(labels) or len(labels) % n:
            raise InputError(f"{len(labels)} labels for {rows} rows in {blocks} blocks: each block needs its labels")
        return labels if len(labels) == rows else labels[:n].repeat(blocks)

    def block(self, tensor: Tensor, name: str) -> Tensor:
        """The rows of the block `name`, out of a `tensor` that has the rows of all blocks."""
        return tensor.chunk(len(self.blocks))[self.blocks.index(name)]
