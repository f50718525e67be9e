"""Writes and reads checkpoints, from which training goes on bit for bit.

A run keeps the newest checkpoint and a few older ones. Their checksums stand in a file beside them. A checkpoint is a
`torch.save` of tensors, numbers, strings, lists and dicts. It is always read with `weights_only=True`, so that a file
from a stranger cannot run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

import torch

from bdlf.system.errors import InputError
from bdlf.system.files import write_atomically, write_text

SCHEMA = 2
log = logging.getLogger("bdlf")


def save_checkpoint(path: Path, state: dict[str, Any], *, keep: int = 1) -> None:
    """Write `state` to `path` atomically, and keep `keep` checkpoints in all.

    The older checkpoints are renamed to `<stem>-1.pt`, `<stem>-2.pt` and so on. `<path>.sha256` has the checksums of
    all of them. While files are being replaced, it has the checksums of both the old and the new files, so that a sound
    file always has one. Raises StorageError if the file cannot be written; the older checkpoints are sound then.
    """
    sums = _sums(path)

    def write(file: IO[bytes]) -> None:
        hashing = _Hashing(file)
        try:
            torch.save({"schema": SCHEMA, **state}, cast(IO[bytes], hashing))
        except RuntimeError as error:
            raise hashing.failure or error from error
        file.flush()
        os.fsync(file.fileno())  # from here on, only a renaming can fail
        sums.insert(0, hashing.digest.hexdigest())
        write_text(_sums_path(path), "\n".join(sums) + "\n")
        for generation in reversed(range(keep - 1)):
            with contextlib.suppress(FileNotFoundError):
                os.replace(_generation(path, generation), _generation(path, generation + 1))

    write_atomically(path, write)
    write_text(_sums_path(path), "\n".join(sums[:keep]) + "\n")


class _Hashing:
    """Passes what is written on to a file, and computes its checksum.

    `failure` is the error of the file, which PyTorch replaces by an error of its own.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._put, self.flush = file.write, file.flush
        self.digest = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self._put(data)
        except OSError as error:
            self.failure = error
            raise


def has_checkpoint(path: Path) -> bool:
    """Whether there is a checkpoint at `path`, or an older one beside it."""
    return path.is_file() or next(_older(path), None) is not None


def load_checkpoint(path: Path, *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The state in the checkpoint `path`.

    Raises InputError if the file is missing or damaged, is no checkpoint, or has another schema.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: the run has saved none yet")
    return _load(path, _sums(path), device)


def load_newest(path: Path, *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The state of the newest sound checkpoint among `path` and the older ones beside it.

    If newer ones are damaged, a warning names the first fault and the file that is used. Raises InputError about the
    newest checkpoint if none is sound.
    """
    files = [*([path] if path.is_file() else []), *_older(path)]
    sums, first = _sums(path), None
    for file in files:
        try:
            state = _load(file, sums, device)
        except InputError as error:
            first = first or error
            continue
        if first is not None:
            log.warning("%s; going on from %s", str(first).partition("; ")[0], file.name)
        return state
    raise first or InputError(f"{path} does not exist: the run has saved none yet")


def _load(path: Path, sums: list[str], device: str | torch.device) -> dict[str, Any]:
    remedy = "remove it to start the run again, or restore it from a copy"
    try:
        if sums and _sha256(path) not in sums:
            raise InputError(f"{path} is damaged (its checksum is not in {_sums_path(path).name}); {remedy}")
        state = torch.load(path, map_location=device, weights_only=True)
    except InputError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a readable checkpoint ({reason}); {remedy}") from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise InputError(f"{path} is not a checkpoint of this version of bdlf; {remedy}")
    return state


def _older(path: Path) -> Iterator[Path]:
    for generation in count(1):
        if not (file := _generation(path, generation)).is_file():
            return
        yield file


def _generation(path: Path, number: int) -> Path:
    return path.with_stem(f"{path.stem}-{number}") if number else path


def _sums_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _sums(path: Path) -> list[str]:
    try:
        return _sums_path(path).read_text().split()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"{_sums_path(path)} cannot be read ({error}); restore it, or remove it") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
