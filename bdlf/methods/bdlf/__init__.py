"""The method of the paper: detail branch, base branch, and the network that joins them to a backbone."""

from __future__ import annotations

from bdlf.methods.bdlf.beg import Fusion, Projection
from bdlf.methods.bdlf.dfe import CrossAttention, DetailExtractor, InvertedResidual, InvertibleBlock, InvertibleChain
from bdlf.methods.bdlf.network import BDLF, EMBEDDED

__all__ = [
    "BDLF",
    "EMBEDDED",
    "CrossAttention",
    "DetailExtractor",
    "Fusion",
    "InvertedResidual",
    "InvertibleBlock",
    "InvertibleChain",
    "Projection",
]
