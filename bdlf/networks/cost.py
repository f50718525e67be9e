"""What a model costs."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from bdlf.networks.network import Network

_ROWS = 2  # of each block: the fewest that every module takes


@torch.no_grad()
def gflops_per_image(model: Network, height: int, width: int) -> tuple[float, float]:
    """10^9 floating-point operations for each image: of a training step, and of inference (one view).

    A multiplication and an addition are two; convolutions and matrix products alone are counted. Training is three
    times the network forward (the backward pass is two), without the objective's terms and the optimiser.
    """
    shadow = copy.deepcopy(model)  # a forward pass in training mode moves the BatchNorm statistics
    rows = _ROWS * len(model.views)
    images = torch.zeros(rows, 3, height, width, device=next(model.parameters()).device)
    labels = torch.arange(_ROWS, device=images.device).repeat(len(model.views))
    with FlopCounterMode(display=False) as training:
        shadow.train()(images, labels)
    with FlopCounterMode(display=False) as inference:
        shadow.eval().embed(images, model.views[0].modality)
    return 3 * training.get_total_flops() / rows / 1e9, inference.get_total_flops() / rows / 1e9
