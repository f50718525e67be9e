"""Evaluation: queries and galleries of each trial, features of the images, and the figures of retrieval."""

from bdlf.datasets.choices import Asked, Choice, choices
from bdlf.evaluation.extraction import extract
from bdlf.evaluation.metrics import RetrievalMetrics, ranked_gallery, retrieval_metrics
from bdlf.evaluation.protocols import Setting, settings
from bdlf.evaluation.score import Scores, score

__all__ = [
    "Asked",
    "Choice",
    "RetrievalMetrics",
    "Scores",
    "Setting",
    "choices",
    "extract",
    "ranked_gallery",
    "retrieval_metrics",
    "score",
    "settings",
]
