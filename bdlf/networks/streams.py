"""Random numbers by name, so that the initial weights of one part of a network do not depend on its other parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def stream(seed: int, name: str) -> Iterator[None]:
    """Within the block, PyTorch's CPU generator is a stream that depends on `seed` and `name` alone.

    Afterwards the generator is in the state that it had before. A module that is made of several parts builds each part
    in a stream of its own; the name of a part is unique within the network. So two networks of one seed start alike
    wherever they are alike, and an ablation compares what it means to compare. Parts are built on the CPU: the
    generators of other devices are neither read nor changed.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed every GPU too.
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big"))
        yield
