"""How many floating-point operations a network takes."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from bdlf.networks.network import Network

_ROWS = 2  # rows of each block: BatchNorm in training mode takes no fewer


@torch.no_grad()
def gflops_per_image(model: Network, height: int, width: int, *, teacher: bool = False) -> tuple[float, float]:
    """The floating-point operations for each image, in 10^9: those of a training step, and those of inference.

    The images of a training step are those that the sampler draws, however many views the network has of each.
    Only convolutions and matrix products are counted; a multiplication and an addition count as two operations. A
    training step counts as three forward passes, because the backward pass takes about as much as two. With a
    `teacher`, the average of the weights that sees the batch too, it counts as four. The terms of the objective and the
    optimiser are not counted. Inference embeds each image once, without its mirror image.
    """
    shadow = copy.deepcopy(model)  # because a forward pass in training mode changes the BatchNorm statistics
    rows, drawn = _ROWS * len(model.views), _ROWS * len({view.modality for view in model.views})
    images = torch.zeros(rows, 3, height, width, device=next(model.parameters()).device)
    labels = torch.arange(_ROWS, device=images.device).repeat(len(model.views))
    with FlopCounterMode(display=False) as training:
        shadow.train()(images, labels)
    with FlopCounterMode(display=False) as inference:
        shadow.eval().embed(images, model.views[0].modality)
    passes = 4 if teacher else 3
    return passes * training.get_total_flops() / drawn / 1e9, inference.get_total_flops() / rows / 1e9
