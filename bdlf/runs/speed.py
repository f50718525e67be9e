"""Estimates how long a run will take before it is started."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

from bdlf.runs.record import read_result
from bdlf.system.errors import InputError

_SIDE = 1024  # rows and columns of the matrices whose product is timed
_SHARE = 0.4  # training is assumed to reach this share of the matrix product's rate if no finished run says otherwise


def seconds_of(gflops: float, runs: Path, device: torch.device, device_name: str) -> tuple[float, str]:
    """Seconds that training takes here for 10^9 x `gflops` operations, and in words how that is known.

    The estimate uses the median speed of the finished runs below `runs` (`<label>-<hash>/seed<k>`) that trained on a
    device of the same name. If there is none, it uses a matrix product that is timed now, and may then be wrong by a
    factor of about three.
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
    """10^9 operations per second of a product of float32 matrices; the fastest of three products counts."""
    left = torch.rand(_SIDE, _SIDE, device=device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        (left @ left).sum().item()  # reading the value waits until the device is done
        seconds.append(time.perf_counter() - started)
    return 2 * _SIDE**3 / min(seconds) / 1e9
