"""What all networks do alike: they check what `embed` is asked for, and name the parameters of their heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from bdlf.datasets.description import MODALITIES
from bdlf.system.errors import check_choice


def check_embed(network: nn.Module, modality: str, feature: str, features: Sequence[str]) -> None:
    """Refuse what `network.embed(images, modality, feature)` cannot compute; `features` are those that it can return.

    Raises:
        InputError: an unknown `modality` or `feature`.
        RuntimeError: the network is in training mode, where rows depend on the batch and change the statistics.
    """
    check_choice("modality", modality, MODALITIES)
    check_choice("feature", feature, features)
    if network.training:
        raise RuntimeError("embed() is inference: call eval() on the model first")


def groups_of(backbone: nn.Module, heads: Iterable[nn.Module | None]) -> dict[str, list[nn.Parameter]]:
    """The parameter groups of a network without projections: all of `backbone`, and what the `heads` learn."""
    learnt = [one for head in heads if head is not None for one in head.parameters() if one.requires_grad]
    return {"backbone": list(backbone.parameters()), "heads": learnt, "projection": []}
