"""DEEN: multistage feature aggregation and the diverse embedding expansion (Zhang and Wang, CVPR 2023)."""

from __future__ import annotations

from bdlf.methods.deen.dee import DEE
from bdlf.methods.deen.mfa import CNL, MFA, PNL
from bdlf.methods.deen.network import DEEN, EMBEDDED

__all__ = ["CNL", "DEE", "DEEN", "EMBEDDED", "MFA", "PNL"]
