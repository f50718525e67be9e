"""Measures the time and the peak memory of a piece of work by repeating it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bdlf.system.memory import give_back_freed_memory


@dataclass(frozen=True)
class Measurement:
    """The time and memory that a piece of work takes: one line of the benchmark's table."""

    suite: str
    what: str
    milliseconds: float
    """The median over the repeats."""
    spread: float
    """The longest repeat minus the shortest, in milliseconds."""
    items: int | None = None
    """How many images (or queries) one repeat works on."""
    gib: float | None = None
    """The peak of the memory of a GPU, or of the whole process on a CPU; None if the system does not tell it."""
    gflops: float | None = None
    """10^9 floating-point operations in one repeat."""
    note: str = ""
    parameters: int | None = None
    """How many learnable values the network has, where the line is of a network."""

    @property
    def per_second(self) -> float | None:
        """Items per second; None where `items` is None."""
        return None if self.items is None else 1e3 * self.items / self.milliseconds


def measure(
    suite: str,
    what: str,
    work: Callable[[], object],
    *,
    repeats: int,
    device: torch.device,
    items: int | None = None,
) -> Measurement:
    """Call `work` once to warm up and then `repeats` times. Each call is timed until the device has finished it."""
    known = reset_peak(device)
    work()
    times = []
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - started))
    gib = peak_gib(device) if known else None
    return Measurement(suite, what, statistics.median(times), max(times) - min(times), items, gib)


def matrix_product_gflops(device: torch.device, precision: str, *, side: int = 2048, repeats: int = 5) -> float:
    """10^9 operations per second of a product of two `side` x `side` matrices; the fastest of `repeats` counts.

    The benchmark gives utilisation as a share of this rate. The matrices are bfloat16 if `precision` begins with bf16,
    else float32.
    """
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
    left = torch.rand(side, side, device=device).to(dtype)
    best = min(measure("", "", lambda: left @ left, repeats=1, device=device).milliseconds for _ in range(repeats))
    return 2 * side**3 / best / 1e6


def reset_peak(device: torch.device) -> bool:
    """Start counting the peak of memory anew. Returns False if the system cannot do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    give_back_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_gib(device: torch.device) -> float | None:
    """The peak of memory since `reset_peak`, in GiB; None if the system does not tell it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
