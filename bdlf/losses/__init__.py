"""Every term of the loss as a pure function of tensors; `bdlf.terms.TERMS` assigns these functions to the terms."""

from bdlf.losses.block_triplets import dual_triplet, middle_triplet
from bdlf.losses.body_shape import column_orthogonality, erased_distillation, related
from bdlf.losses.branches import branch_orthogonality, centre_pair_mining
from bdlf.losses.correlation import (
    correlation,
    detail_correlation,
    specific_shared,
    specific_shared_from_correlations,
)
from bdlf.losses.distillation import distillation, feature_relation, fused_distillation, mutual_distillation
from bdlf.losses.orthogonality import orthogonality
from bdlf.losses.paired_rows import colour_free, consistency
from bdlf.losses.supervised import identity, part_identity, triplet
from bdlf.losses.weighted_triplets import squared_difference, weighted_triplet

__all__ = [
    "branch_orthogonality",
    "centre_pair_mining",
    "colour_free",
    "column_orthogonality",
    "consistency",
    "correlation",
    "detail_correlation",
    "distillation",
    "dual_triplet",
    "erased_distillation",
    "feature_relation",
    "fused_distillation",
    "identity",
    "middle_triplet",
    "mutual_distillation",
    "orthogonality",
    "part_identity",
    "related",
    "specific_shared",
    "specific_shared_from_correlations",
    "squared_difference",
    "triplet",
    "weighted_triplet",
]
