"""The interface that the networks of all methods have, and the views of the images that train them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from bdlf.networks.embeddings import Embeddings


@dataclass(frozen=True)
class View:
    """One block of a training batch: the sampled images of one modality, augmented on their own.

    A batch of k views has k blocks of n rows. Row i of every block shows the same identity.
    """

    name: str
    """The name of the block in `Embeddings.blocks`. No two views of a network share one."""
    modality: str
    """The modality whose images the view shows: `vis` or `ir`."""
    recolour: str = "none"
    """How the view changes colours: one of `bdlf.data.augment.RECOLOURINGS`."""
    silhouette: bool = False
    """Whether the view shows the body-shape map of the image instead of the image."""


@runtime_checkable
class Network(Protocol):
    """A network of any method, which is also a `torch.nn.Module`. No class inherits from this one.

    - `views` names the blocks of the batches that the network is trained on, in order.
    - `rows(images)` computes everything that depends on one image alone. It returns tensors by name, each with a row
      for every image, so that several processes can each compute the rows of their own images. The images are one block
      for each view, all equally long; a process's own images must be equal parts of every block.
    - `batch(rows, labels)` computes everything that depends on the whole batch, from what `rows` returned.
    - Calling the network with images and labels is `batch(rows(images), labels)`.
    - `embed(images, modality, feature)` is inference: one vector for each image of one modality, not normalised.
    - `embedder` is the module of inference, for export. It has no weight that only training needs.
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
