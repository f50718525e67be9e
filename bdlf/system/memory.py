"""How much memory the machine has, and what the memory allocator does with memory that has been freed."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
from pathlib import Path

from bdlf.system.errors import InputError

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell the C library's allocator to keep the memory of freed tensors for later tensors. Returns whether it can.

    By default glibc returns large blocks to the system as soon as they are freed and requests new ones, page by page,
    in the next training step. That takes a third of the time of a step at the paper's size. The price of keeping the
    memory: the process stays as large as it was at its peak. Other C libraries than glibc return False.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))


def give_back_freed_memory() -> None:
    """Return memory that `keep_freed_memory` has kept to the system, once. Without glibc this does nothing."""
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def available_memory() -> int:
    """Bytes of memory that are available without swapping. Elsewhere than on Linux: all memory of the machine.

    The memory limit of a container is not taken into account.
    """
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(option: str, purpose: str, need: int) -> None:
    """Raise `InputError` where the machine has less than `need` bytes of memory.

    The message says that `purpose` takes this much and that the value of `option` has to be lowered.
    """
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > has:
        raise InputError(
            f"{option}: {purpose} alone takes {need / 2**30:,.0f} GiB, this machine has {has / 2**30:,.0f}: lower it"
        )


def load(module: str) -> None:
    """Import `module` and everything that it imports, faster than the `import` statement does.

    Modules live as long as the process. The garbage collector therefore need not look at their objects: it is switched
    off during the import and ignores these objects afterwards. This saves a third of the time that a command takes to
    start and to end.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(module)
    finally:
        gc.freeze()
        if collects:
            gc.enable()
