"""Every term of the loss as a pure function of tensors; `bdlf.objective.TERMS` assigns these functions to the terms."""

from bdlf.losses.correlation import (
    correlation,
    detail_correlation,
    specific_shared,
    specific_shared_from_correlations,
)
from bdlf.losses.distillation import distillation, feature_relation, fused_distillation, mutual_distillation
from bdlf.losses.orthogonality import orthogonality
from bdlf.losses.supervised import identity, triplet

__all__ = [
    "correlation",
    "detail_correlation",
    "distillation",
    "feature_relation",
    "fused_distillation",
    "identity",
    "mutual_distillation",
    "orthogonality",
    "specific_shared",
    "specific_shared_from_correlations",
    "triplet",
]
