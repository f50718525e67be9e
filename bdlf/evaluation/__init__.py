"""Protocols (what is query, what is gallery, which trials), feature extraction, and the figures."""

from bdlf.evaluation.extraction import extract
from bdlf.evaluation.metrics import RetrievalMetrics, retrieval_metrics
from bdlf.evaluation.protocols import Choice, Setting, choices, settings
from bdlf.evaluation.score import Scores, score

__all__ = [
    "Choice", "RetrievalMetrics", "Scores", "Setting", "choices", "extract", "retrieval_metrics", "score", "settings"
]  # fmt: skip
