"""BN-neck and classifiers, as the field has them since BagTricks [lineage]."""

from __future__ import annotations

from torch import nn


def bn_neck(width: int) -> nn.BatchNorm1d:
    """BatchNorm1d over (rows, width) whose shift is fixed at 0."""
    neck = nn.BatchNorm1d(width)
    neck.bias.requires_grad_(False)
    return neck


def classifier(width: int, identities: int) -> nn.Linear:
    """Linear map (rows, width) to (rows, identities) without bias, weights normal with std 0.001."""
    linear = nn.Linear(width, identities, bias=False)
    nn.init.normal_(linear.weight, std=0.001)
    return linear
