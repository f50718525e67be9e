"""BDLF, the method of the paper: its detail branch, its base branch, and the network that joins both to a backbone."""

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
