"""Every term of the loss of every method: its function, and what it reads of the network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bdlf.losses import (
    branch_orthogonality,
    centre_pair_mining,
    colour_free,
    column_orthogonality,
    consistency,
    detail_correlation,
    distillation,
    dual_triplet,
    erased_distillation,
    feature_relation,
    fused_distillation,
    identity,
    middle_triplet,
    mutual_distillation,
    orthogonality,
    part_identity,
    related,
    specific_shared,
    squared_difference,
    triplet,
    weighted_triplet,
)
from bdlf.networks.embeddings import Embeddings


@dataclass(frozen=True)
class Term:
    """One term of the loss: its function, the function's arguments, and its equation in the paper."""

    equation: str
    """The number of the paper's equation, or several numbers: "11, 12"."""
    meaning: str
    """What the term does, in one line for a table."""
    loss: Callable[..., Tensor]
    """The function. Its arguments are `features`, `logits`, the labels if `labelled`, and then its options by name."""
    features: tuple[str, ...] = ()
    """The fields of `Embeddings` that the term reads; those of the teacher begin with `teacher.`."""
    logits: tuple[str, ...] = ()
    """The features whose class scores the term reads."""
    labelled: bool = False
    """Whether the term reads the labels."""
    blocks: tuple[str, ...] | None = None
    """The blocks that the function gets as separate arguments, in this order. None: one tensor has all blocks."""
    ramped: bool = False
    """Whether the weight of the term grows over the first part of training, as those of distillation terms do."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of the function with their defaults."""
        parameters = inspect.signature(self.loss).parameters.values()
        return {each.name: each.default for each in parameters if each.default is not each.empty}

    def __call__(self, embeddings: Embeddings, labels: Tensor, options: Mapping[str, Any]) -> Tensor:
        """The value of the term, a scalar.

        `labels` has a label for each row of each block, and all blocks have the same labels. `options` are keyword
        arguments of `loss`.
        """
        read = [(name, embeddings.feature(name)) for name in self.features]
        read += [(name, embeddings.scores(name)) for name in self.logits]
        inputs: list[Tensor] = []
        for name, tensor in read:
            assert tensor is not None  # the objective has checked it
            if self.blocks is None or name in (*ONE_ROW_FOR_ALL_BLOCKS, *MATRICES):
                inputs.append(tensor)
            else:
                inputs += [embeddings.block(tensor, block) for block in self.blocks]
        if self.labelled:
            inputs.append(labels[: len(inputs[0])])
        return self.loss(*inputs, **options)


ONE_ROW_FOR_ALL_BLOCKS = ("fused",)
"""Features that have n rows in all, because one row stands for the i-th rows of all blocks together."""

MATRICES = ("projection", "related_projection")
"""Features that are matrices of the network and have no rows of images."""

TERMS: dict[str, Term] = {
    "id": Term("22", "cross-entropy of CLS_B(Z)", identity, logits=("comprehensive",), labelled=True),
    "tri": Term("22", "batch-hard triplet of Z before the BN-neck", triplet, ("comprehensive_pooled",), labelled=True),
    "okl": Term(
        "21",
        "CLS_B(Z) of each modality learns from the other's",
        mutual_distillation,
        logits=("comprehensive",),
        blocks=("vis", "ir"),
        ramped=True,
    ),
    "id_detail": Term("6", "cross-entropy of CLS_D(Z^D)", identity, logits=("detail",), labelled=True),
    "odkl": Term(
        "7",
        "CLS_D(Z^D) learns from CLS_B(Z)",
        distillation,
        logits=("detail", "comprehensive"),
        ramped=True,
    ),
    "id_base": Term("20", "cross-entropy of CLS_B(Z^B)", identity, logits=("base",), labelled=True),
    "bkl": Term(
        "18",
        "CLS_B(Z^B) of each modality learns from the other's",
        mutual_distillation,
        logits=("base",),
        blocks=("vis", "ir"),
        ramped=True,
    ),
    "id_fused": Term("19", "cross-entropy of CLS_B(Z_F^B)", identity, logits=("fused",), labelled=True),
    "fbkl": Term(
        "17",
        "CLS_B(Z^B) of each modality learns from CLS_B(Z_F^B)",
        fused_distillation,
        logits=("base", "fused"),
        blocks=("vis", "ir"),
        ramped=True,
    ),
    "fkl": Term(
        "11, 12",
        "similarities within the batch agree between Zbar^D and Z^D",
        feature_relation,
        ("detail_projected", "detail"),
        ramped=True,
    ),
    "dkl": Term(
        "13",
        "CLS_D(Zbar^D) learns from CLS_D(Z^D)",
        distillation,
        logits=("detail_projected", "detail"),
        ramped=True,
    ),
    "dcorr": Term(
        "14",
        "correlations across and within the modalities agree between Zbar^D and Z^D",
        detail_correlation,
        ("detail_projected", "detail"),
        blocks=("vis", "ir"),
        ramped=True,
    ),
    "orth": Term("10, 20", "P is an orthogonal projector", orthogonality, ("projection",)),
    "skd": Term(
        "2",
        "base features correlate across the modalities, detail features do not",
        specific_shared,
        ("base", "detail"),
        blocks=("vis", "ir"),
        ramped=True,
    ),
    "wrt": Term(
        "AGW",
        "every row is nearer to its identity than to others, by weighted distances",
        weighted_triplet,
        ("comprehensive_pooled",),
        labelled=True,
    ),
    "sqd": Term(
        "CAJ",
        "the same by squared differences of the weighted distances",
        squared_difference,
        ("comprehensive_pooled",),
        labelled=True,
    ),
    "tri_dual": Term(
        "LUPI",
        "batch-hard triplets whose positives and negatives are of different blocks",
        dual_triplet,
        ("comprehensive_pooled",),
        labelled=True,
        blocks=("vis", "ir", "intermediate"),
    ),
    "colour_free": Term(
        "LUPI",
        "a visible image and its intermediate one have the same feature",
        colour_free,
        ("comprehensive_pooled",),
        blocks=("vis", "intermediate"),
    ),
    "cpm": Term(
        "DEEN",
        "centres of each expanded branch are nearer to the other modality's than to their own",
        centre_pair_mining,
        ("comprehensive_pooled",),
        labelled=True,
        blocks=("vis", "ir", "vis_1", "ir_1", "vis_2", "ir_2"),
    ),
    "ort": Term(
        "DEEN",
        "the two expanded branches of an image are orthogonal",
        branch_orthogonality,
        ("comprehensive_pooled",),
        blocks=("vis_1", "ir_1", "vis_2", "ir_2"),
    ),
    "id_parts": Term(
        "MMN", "cross-entropy of every part's classifier", part_identity, logits=("parts",), labelled=True
    ),
    "tri_middle": Term(
        "MMN",
        "batch-hard triplets of the parts, of four pairs of blocks with the middle images",
        middle_triplet,
        ("parts",),
        labelled=True,
        blocks=("vis", "vis_middle", "ir", "ir_middle"),
    ),
    "dcl": Term(
        "MMN",
        "the middle images of both modalities have the same mapped parts",
        consistency,
        ("parts_mapped",),
        blocks=("vis_middle", "ir_middle"),
    ),
    "id_shape": Term(
        "SGIEL", "cross-entropy of the body shape's classifier", identity, logits=("shape",), labelled=True
    ),
    "id_erased": Term(
        "SGIEL",
        "cross-entropy of Z without what is related to the body shape",
        identity,
        logits=("erased",),
        labelled=True,
    ),
    "kl_erased": Term(
        "SGIEL",
        "Z without the body shape learns from the other modality's, also across unlike shapes",
        erased_distillation,
        ("shape",),
        ("erased",),
        labelled=True,
        blocks=("vis", "ir"),
        ramped=True,
    ),
    "related": Term(
        "SGIEL",
        "what in Z is related to the body shape learns from the teacher's body shape",
        related,
        ("related", "teacher.shape"),
        ("related", "teacher.shape"),
        ramped=True,
    ),
    "ortho": Term(
        "SGIEL", "the columns of the shape projection are orthogonal", column_orthogonality, ("related_projection",)
    ),
}
"""Every term of the loss, by its name in logs, CSV columns and tables, and in the order in which tables list them."""
