"""DEEN's diverse embedding expansion (DEE): two more versions of every map."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bdlf.networks.streams import stream
from bdlf.system.errors import InputError

BRANCHES = 2
"""Versions that the expansion adds. Table 6 of the paper counts the identity too and calls this three branches."""
DILATIONS = (1, 2, 3)
DROPOUT = 0.01
"""Share of the values that are set to 0 during training, in the maps as they came and in the added ones [lineage]."""


class DEE(nn.Module):
    """Expands maps (rows, C, h, w) to (3 rows, C, h, w): the maps as they came, then branch 1, then branch 2.

    A branch is the mean of three 3x3 convolutions C -> C/4 without bias at dilations 1, 2 and 3, a ReLU, and a 1x1
    convolution C/4 -> C with bias. The weights of all convolutions start Kaiming-normal by fan-in; the bias starts as
    PyTorch's default. In training mode a dropout of 0.01 acts on all rows. It draws from PyTorch's global generator.

    Names in the state dict: `branches.0.dilated.0.weight`, `branches.0.expand.weight`, `branches.0.expand.bias`.

    - `channels`: C, at least 4.
    - `seed`: the random weights of a branch depend on it and on the number of the branch alone.

    Raises:
        InputError: `channels` cannot be divided by 4.
    """

    def __init__(self, channels: int, *, seed: int = 0) -> None:
        super().__init__()
        if channels < 4 or channels % 4:
            raise InputError(f"the expansion needs a multiple of 4 channels, not {channels}; use another stage")
        self.branches = nn.ModuleList()
        for k in range(BRANCHES):
            with stream(seed, f"dee.{k}"):
                self.branches.append(Branch(channels))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, maps: Float[Tensor, "rows channels h w"]) -> Float[Tensor, "expanded channels h w"]:
        return cast(Tensor, self.dropout(torch.cat([maps, *(branch(maps) for branch in self.branches)])))


class Branch(nn.Module):
    """One branch of `DEE`: maps (rows, C, h, w) to maps of the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 4
        self.dilated = nn.ModuleList(
            nn.Conv2d(channels, narrow, 3, padding=dilation, dilation=dilation, bias=False) for dilation in DILATIONS
        )
        self.expand = nn.Conv2d(narrow, channels, 1)
        for convolution in (*self.dilated, self.expand):
            nn.init.kaiming_normal_(cast(nn.Conv2d, convolution).weight)

    def forward(self, maps: Float[Tensor, "rows channels h w"]) -> Float[Tensor, "rows channels h w"]:
        mean = torch.stack([convolution(maps) for convolution in self.dilated]).mean(0)
        return cast(Tensor, self.expand(mean.relu()))
