"""One file from which training goes on bit for bit, with its checksum beside it.

A checkpoint is a plain `torch.save` of tensors, numbers, strings, lists and dicts, and is only ever read with
`weights_only=True`: a file from a stranger cannot run code.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch

from bdlf.errors import InputError
from bdlf.files import write_atomically, write_text

SCHEMA = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path`, atomically, with its sum in `<path>.sha256`.

    While the file is being replaced, the sums of the old and of the new one are both there: at no moment does a sound
    file lack its sum.
    """
    sums = _sums(path)

    def write(file: Any) -> None:
        torch.save({"schema": SCHEMA, **state}, file)
        file.flush()
        sums.append(_sha256(Path(file.name)))
        write_text(_sums_path(path), "\n".join(sums) + "\n")

    write_atomically(path, write)
    write_text(_sums_path(path), sums[-1] + "\n")


def load_checkpoint(path: Path, *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The state that was saved. Raises InputError where the file is damaged, foreign or of another schema."""
    remedy = "remove it to start the run again, or restore it from a copy"
    if not path.is_file():
        raise InputError(f"{path} does not exist: the run has not finished an epoch yet")
    sums = _sums(path)
    if sums and _sha256(path) not in sums:
        raise InputError(f"{path} is damaged (its checksum does not match {_sums_path(path).name}); {remedy}")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a readable checkpoint ({reason}); {remedy}") from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise InputError(f"{path} is not a checkpoint of this version of bdlf; {remedy}")
    return state


def _sums_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _sums(path: Path) -> list[str]:
    return _sums_path(path).read_text().split() if _sums_path(path).is_file() else []


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
