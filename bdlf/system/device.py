"""The device that a process computes on, and how PyTorch computes there."""

from __future__ import annotations

import os
import resource
import sys
from typing import Literal, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from bdlf.system.errors import InputError, check_choice
from bdlf.system.memory import keep_freed_memory
from bdlf.system.processes import default_threads

DEVICES = ("auto", "cpu", "cuda")
_THREADS = torch.get_num_threads()  # PyTorch's choice, before anybody changes it


def accelerator(devices: str) -> str:
    """`cpu` or `cuda`, for a value of `DEVICES`; `auto` takes a GPU where there is one.

    Raises:
        InputError: an unknown value, or `cuda` where PyTorch finds no GPU.
    """
    check_choice("devices", devices, DEVICES)
    if devices == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "devices=cuda, but PyTorch finds no CUDA GPU here; use devices=cpu, or install a CUDA build of torch"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if devices == "auto" else devices


def configure_process(*, devices: str = "auto", threads: int | None = None, deterministic: bool = False) -> None:
    """Set how this process computes: the number of CPU threads, determinism, full float32, what becomes of memory.

    `threads` of None is a number that suits the cores that this process may use. Nothing is seeded here: all random
    numbers come from generators of their own. Raises InputError as `accelerator` does.
    """
    torch.set_num_threads(threads or default_threads(_THREADS))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what determinism needs, before CUDA starts
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # 32-true means float32
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if accelerator(devices) == "cpu":
        keep_freed_memory()


def fabric_of(devices: str, precision: str) -> Fabric:
    """Fabric for one process on one device with the arithmetic `precision`, `32-true` or `bf16-mixed`.

    The run is one process, whatever SLURM, MPI or Kubernetes have set in the environment: Fabric does not look there.
    """
    return Fabric(
        accelerator=accelerator(devices),
        devices=1,
        precision=cast(Literal["32-true", "bf16-mixed"], precision),
        plugins=[LightningEnvironment()],
    )


def device_name(device: torch.device) -> str:
    """The name of the GPU, or `cpu` and the number of its threads, for the record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def peak_memory_gib(device: torch.device) -> float:
    """The most memory, in GiB, that the GPU's tensors have taken; on a CPU, that this process has taken."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
