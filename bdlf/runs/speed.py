"""How long a run will take, before it is started."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

from bdlf.runs.record import read_result
from bdlf.system.errors import InputError

_SIDE = 1024  # of the matrices of the measurement
_SHARE = 0.4  # of the matrix product's rate that training reaches, where no run says


def seconds_of(gflops: float, runs: Path, device: torch.device, device_name: str) -> tuple[float, str]:
    """Seconds that training on 10^9 x `gflops` operations takes here, and how that is known.

    From the finished runs in `runs` (`<label>-<hash>/seed<k>`) on the same device; where there is none, from a matrix
    product measured now, which is good to a factor of about three.
    """
    rates = []
    for path in runs.glob("*/seed*/result.json"):
        try:
            result = read_result(path)
            if result["device"] == device_name:
                rates.append(result["images_per_second"] * result["train_gflops"])
        except (InputError, KeyError):
            continue
    if rates:
        return gflops / statistics.median(rates), f"at the speed of {len(rates)} finished runs here"
    rate = _SHARE * _matrix_product(device)
    return gflops / rate, f"within a factor of three: {_SHARE:g} of this device's matrix product, {rate:.0f} GFLOP/s"


def _matrix_product(device: torch.device) -> float:
    """10^9 operations a second of float32 matrix products, the best of three."""
    left = torch.rand(_SIDE, _SIDE, device=device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        (left @ left).sum().item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return 2 * _SIDE**3 / min(seconds) / 1e9
