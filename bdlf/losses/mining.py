"""Finds, for each row, the farthest row of its identity and the nearest row of another, among the rows of any block."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.system.errors import InputError


def hardest(
    anchor: Float[Tensor, "*sets n c"],
    positive: Float[Tensor, "*sets n c"],
    negative: Float[Tensor, "*sets n c"],
    labels: Int[Tensor, " n"],
) -> tuple[Float[Tensor, "*sets n"], Float[Tensor, "*sets n"]]:
    """Distances of each row of `anchor`: to its farthest row in `positive`, and to its nearest row in `negative`.

    Row i of all three has identity `labels[i]`. Positives have the identity of the anchor, negatives another one.
    Distances are Euclidean; a distance of 0 has gradient 0. If `positive` is `anchor`, a row is a positive of itself:
    this changes nothing where its identity has another row. Leading dimensions are sets of rows that do not mix.
    """
    return farthest_positive(anchor, positive, labels), nearest_negative(anchor, negative, labels)


def farthest_positive(
    anchor: Float[Tensor, "*sets n c"], positive: Float[Tensor, "*sets n c"], labels: Int[Tensor, " n"]
) -> Float[Tensor, "*sets n"]:
    """The distance of each row of `anchor` to the farthest row of its identity in `positive`."""
    with torch.no_grad():
        index = _distances(anchor, positive).masked_fill(labels[:, None] != labels, -torch.inf).argmax(dim=-1)
    distance: Tensor = torch.linalg.vector_norm(anchor - _rows(positive, index), dim=-1)
    return distance


def nearest_negative(
    anchor: Float[Tensor, "*sets n c"], negative: Float[Tensor, "*sets n c"], labels: Int[Tensor, " n"]
) -> Float[Tensor, "*sets n"]:
    """The distance of each row of `anchor` to the nearest row of another identity in `negative`; NaN without one."""
    same = labels[:, None] == labels
    with torch.no_grad():
        index = _distances(anchor, negative).masked_fill(same, torch.inf).argmin(dim=-1)
    distance: Tensor = torch.linalg.vector_norm(anchor - _rows(negative, index), dim=-1)
    return distance.masked_fill(same.all(dim=1), torch.nan)


def refuse_one_identity(labels: Int[Tensor, " n"], what: str) -> None:
    """Raises `InputError` if all `labels` are equal, which leaves `what` without negatives.

    Labels on a GPU are not checked: the check would wait for the GPU.
    """
    if labels.device.type == "cpu" and bool((labels == labels[:1]).all()):
        raise InputError(f"{what}: all rows have the same identity; a batch needs two identities")


def _distances(anchor: Tensor, others: Tensor) -> Tensor:
    # Not from the Gram matrix, in which distances lose all digits where features are close.
    return torch.cdist(anchor, others, compute_mode="donot_use_mm_for_euclid_dist")


def _rows(features: Float[Tensor, "*sets n c"], index: Int[Tensor, "*sets n"]) -> Float[Tensor, "*sets n c"]:
    """Row `index[..., i]` of each set of `features`."""
    flat = features.flatten(end_dim=-2)
    first = torch.arange(0, len(flat), features.shape[-2], device=index.device).view(*index.shape[:-1], 1)
    return flat[index + first]
