"""Start-up: PyTorch and what it brings along."""

from __future__ import annotations

import gc
import importlib


def load(module: str) -> None:
    """Import `module` and all that it imports, as a command does before its own `import` lines find it there.

    Modules live as long as the process. So nothing looks for garbage among their objects: not while they come, nor at
    any later collection, nor at the end. Together that is a third of the start and end of a command.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(module)
    finally:
        gc.freeze()
        if collects:
            gc.enable()
