"""Repeated measurements of one thing: time and peak memory."""

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
    """One line of the table."""

    suite: str
    what: str
    milliseconds: float
    """Median over the repeats."""
    spread: float
    """Largest less smallest repeat, in milliseconds."""
    items: int | None = None
    """Images (or queries) that one repeat works on."""
    gib: float | None = None
    """Peak memory: of the device, or of the whole process on a CPU; None where it cannot be known."""
    gflops: float | None = None
    """10^9 floating-point operations of one repeat."""
    note: str = ""

    @property
    def per_second(self) -> float | None:
        """Items a second."""
        return None if self.items is None else 1e3 * self.items / self.milliseconds


def measure(
    suite: str,
    what: str,
    work: Callable[[], object],
    *,
    repeats: int,
    device: torch.device,
    items: int | None = None,
    gflops: float | None = None,
) -> Measurement:
    """`work` once to warm up, then `repeats` times, each timed until the device is done."""
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
    return Measurement(suite, what, statistics.median(times), max(times) - min(times), items, gib, gflops)


def matrix_product_gflops(device: torch.device, precision: str, *, side: int = 2048, repeats: int = 5) -> float:
    """10^9 operations a second of a matrix product here, at best: what utilisation is a share of."""
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
    left = torch.rand(side, side, device=device).to(dtype)
    best = min(measure("", "", lambda: left @ left, repeats=1, device=device).milliseconds for _ in range(repeats))
    return 2 * side**3 / best / 1e6


def reset_peak(device: torch.device) -> bool:
    """Whether the peak is counted from here on."""
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
    """Since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
