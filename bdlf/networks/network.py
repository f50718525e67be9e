"""What every network of every method provides, and the views of the images that it is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from bdlf.networks.embeddings import Embeddings

MODALITIES = ("vis", "ir")
"""Visible and infrared, in the order in which the sampler draws them."""
RECOLOURINGS = ("none", "exchange")
"""How a view changes colours: not at all, or by channel exchange with the probability `augment.exchange`."""


@dataclass(frozen=True)
class View:
    """One block of a training batch: the sampled images of one modality, augmented on their own.

    A batch of k views has k blocks of n rows. Row i of every block shows the same identity.
    """

    name: str
    """Of the block in `Embeddings.blocks`, unique in a network."""
    modality: str
    """Whose sampled images the view shows: one of `MODALITIES`."""
    recolour: str = "none"
    """One of `RECOLOURINGS`."""


@runtime_checkable
class Network(Protocol):
    """A network of any method, which is also a `torch.nn.Module`. No class inherits from this one.

    - `views` names the blocks of the batches that the network is trained on, in order.
    - `rows(images)` computes what depends on one image at a time. It returns tensors of as many rows as there are
      images, by name, so that several processes can each compute their share.
    - `batch(rows, labels)` computes what depends on the whole batch from the result of `rows`.
    - Calling the network with images and labels is `batch(rows(images), labels)`.
    - `embed(images, modality, feature)` is inference: one vector for each image of one modality, not normalised.
    - `embedder` is the module of inference alone, without any weight that only training needs, for export.
    - `parameter_groups()` names the learnable parameters of `backbone`, `heads` and `projection`.
    """

    views: tuple[View, ...]

    @property
    def embedder(self) -> nn.Module: ...

    def rows(self, images: Tensor) -> dict[str, Tensor]: ...

    def batch(self, rows: Mapping[str, Tensor], labels: Tensor | None = None) -> Embeddings: ...

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Embeddings: ...

    def embed(self, images: Tensor, modality: str, feature: str = ...) -> Tensor: ...

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]: ...

    def train(self, mode: bool = ...) -> Any: ...

    def eval(self) -> Any: ...

    def to(self, *args: Any, **kwargs: Any) -> Any: ...

    def parameters(self, recurse: bool = ...) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def compile(self, *args: Any, **kwargs: Any) -> None: ...
