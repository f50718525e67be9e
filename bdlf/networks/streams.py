"""Streams of random numbers with names, so that the initial weights of a part do not depend on the other parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def stream(seed: int, name: str) -> Iterator[None]:
    """Within the block, PyTorch's CPU generator gives random numbers that depend on `seed` and `name` alone.

    Afterwards the generator has the state that it had before. A module that has several parts builds each part in a
    stream with a name of its own. So two networks of one seed have the same initial weights in all parts that they
    share, and an ablation compares nothing but the parts that differ. Parts are built on the CPU; the generators of
    other devices are neither read nor changed.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed is not used, because it would seed every GPU too.
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big"))
        yield
