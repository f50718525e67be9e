"""Looks inside trained networks: their features, what linear probes find in them, and figures."""

from __future__ import annotations

from bdlf.inside.attention import attention_figure, attention_numbers, shown_images
from bdlf.inside.batch import batch_figure
from bdlf.inside.controls import with_controls
from bdlf.inside.distances import distances_figure, distances_numbers
from bdlf.inside.embedding import embedding_figure
from bdlf.inside.features import InsideFeatures, feature_names, features_of_file, inside_features
from bdlf.inside.heat import attention_maps
from bdlf.inside.probes import probe
from bdlf.inside.ranking import rank, ranking_figure
from bdlf.inside.terms import terms_figure

__all__ = [
    "InsideFeatures",
    "attention_figure",
    "attention_maps",
    "attention_numbers",
    "batch_figure",
    "distances_figure",
    "distances_numbers",
    "embedding_figure",
    "feature_names",
    "features_of_file",
    "inside_features",
    "probe",
    "rank",
    "ranking_figure",
    "shown_images",
    "terms_figure",
    "with_controls",
]
