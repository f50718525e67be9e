"""Pretrained weights of a torchvision ResNet, by name or from a file. Weights that cannot be had are an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import get_model_weights
from torchvision.models.resnet import ResNet

from bdlf.system.errors import InputError

IMAGENET = ("resnet50", "resnet18")
"""Backbones for which torchvision publishes IMAGENET1K_V1 [lineage; the paper says only "ImageNet"]."""


def imagenet_file(name: str) -> Path:
    """The file of torchvision's IMAGENET1K_V1 weights of the backbone `name`.

    It is downloaded into PyTorch's cache folder if it is not there.

    Raises:
        InputError: there are no such weights for `name`, or the download failed. The message says how to get them by
            hand.
    """
    if name not in IMAGENET:
        raise InputError(
            f"backbone.weights=imagenet: {name} has no ImageNet weights ({' and '.join(IMAGENET)} have); "
            "use backbone.weights=none or backbone.weights=FILE"
        )
    url = str(get_model_weights(name).IMAGENET1K_V1.url)  # type: ignore[attr-defined]
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        published_hash = file.stem.rpartition("-")[2]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=published_hash, progress=False)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"backbone.weights=imagenet: cannot download {url} ({_one_line(error)}); download {file.name} on "
                "another machine, then set backbone.weights=FILE to its place here"
            ) from error
    return file


def load_weights(net: ResNet, name: str, file: str | Path) -> None:
    """Copy the weights in `file` into `net`, a ResNet without `fc`.

    The file is a `torch.save` of a state dict with torchvision's names, alone or as `{"state_dict": ...}`. Its tensors
    `fc.*` are left out. No code in the file is ever run, because only tensors are read.

    Raises:
        InputError: the file does not exist or cannot be read, or its names or shapes do not fit the backbone `name`.
    """
    state = _read(Path(file))
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    own = net.state_dict()
    # Files from before PyTorch 0.4.1 have no counters of BatchNorm. No result depends on these counters.
    state = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")} | state
    wrong = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape),
    }
    if any(wrong.values()):
        listed = "; ".join(f"{len(keys)} {fault}, first {keys[0]}" for fault, keys in wrong.items() if keys)
        raise InputError(f"backbone.weights={file} does not fit {name}: {listed}; give a file of torchvision's {name}")
    net.load_state_dict(state)


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError(
            f"backbone.weights={file} is not a file; give imagenet, none, or the path of a file of weights"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in the unpickler
        raise InputError(
            f"backbone.weights={file} cannot be read: cut short, not written by torch.save, or with code in it, which "
            "is never run; write it with torch.save(model.state_dict(), FILE)"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            f"backbone.weights={file} holds no state dict; write it with torch.save(model.state_dict(), FILE)"
        )
    return {str(key): value for key, value in state.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
