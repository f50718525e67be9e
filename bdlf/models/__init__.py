"""The network of BDLF: backbone, detail and base branch, and their assembly into `Embeddings`."""

from __future__ import annotations

from bdlf.models.backbone import Backbone
from bdlf.models.bdlf import BDLF, EMBEDDED
from bdlf.models.beg import BegOptions, Fusion, Projection
from bdlf.models.cost import gflops_per_image
from bdlf.models.dfe import (
    CrossAttention,
    DetailExtractor,
    DetailOptions,
    InvertedResidual,
    InvertibleBlock,
    InvertibleChain,
)
from bdlf.models.embeddings import Embeddings

__all__ = [
    "BDLF",
    "EMBEDDED",
    "Backbone",
    "BegOptions",
    "CrossAttention",
    "DetailExtractor",
    "DetailOptions",
    "Embeddings",
    "Fusion",
    "InvertedResidual",
    "InvertibleBlock",
    "InvertibleChain",
    "Projection",
    "gflops_per_image",
]
