"""How much memory is left, and how this process treats memory that its objects no longer use."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
from pathlib import Path

from bdlf.system.errors import InputError

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Memory of freed tensors is kept for the next ones; True where this system's allocator can be told so (glibc).

    It gives large blocks back to the system as soon as they are freed, and takes fresh ones, page by page, for the next
    step: a third of the time of a step at the paper's size. The process then stays as large as it was at its peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))


def give_back_freed_memory() -> None:
    """The opposite, once: what is free goes to the system now, where this system's allocator can be told so (glibc)."""
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def available_memory() -> int:
    """Bytes of this machine that can be had without swapping (Linux; elsewhere all that it has).

    A limit set on the process from outside, as by a container, is not known here.
    """
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(option: str, purpose: str, need: int) -> None:
    """Raise InputError where `need` bytes are more than the machine has."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > has:
        raise InputError(
            f"{option}: {purpose} alone takes {need / 2**30:,.0f} GiB, this machine has {has / 2**30:,.0f}: lower it"
        )


def load(module: str) -> None:
    """Import `module` and all that it imports, before a command's own `import` lines need it.

    Modules live as long as the process. So Python's garbage collector is switched off while they are imported, and
    never looks at their objects afterwards. Together that saves a third of the start and end of a command.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(module)
    finally:
        gc.freeze()
        if collects:
            gc.enable()
