"""Protocols (what is query, what is gallery, which trials), feature extraction, and the figures."""

from bdlf.evaluation.extraction import extract
from bdlf.evaluation.metrics import RetrievalMetrics, retrieval_metrics
from bdlf.evaluation.protocols import Setting, settings
from bdlf.evaluation.score import Scores, score

__all__ = ["RetrievalMetrics", "Scores", "Setting", "extract", "retrieval_metrics", "score", "settings"]
