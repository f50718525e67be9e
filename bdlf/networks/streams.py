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


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within the block, the CPU's generator and that of `device` start at `seed`; afterwards they are as before.

    A network that draws random numbers in a training step (dropout) therefore draws the same ones when the step is
    repeated, or when training goes on from a checkpoint. The host does not wait for the device.
    """
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
