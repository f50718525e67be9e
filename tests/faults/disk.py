"""Counts the calls with which a process writes below a folder. At each, it can be killed or the disk can be full."""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

NAMED = {name: getattr(os, name) for name in ("mkdir", "replace", "unlink")}
"""Calls whose first argument is a path."""
_truncate, _fsync, _pwrite, _open = os.truncate, os.fsync, os.pwrite, builtins.open


class Disk:
    """Counts the calls that change something below `root`, by what they are and whom they meet ("write last.pt").

    `fault` says what happens at one of them (`op` its name, `at` its number from 1):

    - `when` "before", "middle" (half of the bytes are written) or "after": SIGKILL; with `power` files also lose half
      of what was not flushed to the disk, as where the machine goes down;
    - `errno`: this one and all later ones fail with it, from the start where there is no `op`;
    - `room` (without `op`): writes fail with `errno` where all files together would hold more bytes.
    """

    def __init__(self, root: str, fault: dict[str, Any]) -> None:
        self.root, self.fault = os.path.realpath(root), fault
        self.counts: Counter[str] = Counter()
        self._unflushed: set[int] = set()  # inodes
        self._failing = "errno" in fault and not {"op", "room"} & set(fault)

    def install(self) -> None:
        """Replace the functions that write, for the rest of this process."""
        for name, call in NAMED.items():
            setattr(os, name, self._named(name, call))
        os.fsync, os.pwrite = self._flush, self._write_at
        builtins.open = io.open = self._opened

    def meet(self, call: str, path: Any, act: Callable[[], Any], half: Callable[[], Any] = lambda: None) -> Any:
        """Count a call and do it, with what the fault does to it."""
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if not path.startswith(self.root + os.sep):
            return act()
        name = f"{call} {plain(path)}"
        self.counts[name] += 1
        here = self.fault.get("op") == name and self.counts[name] == self.fault["at"]
        if here and "when" in self.fault:
            {"before": lambda: None, "middle": half, "after": act}[self.fault["when"]]()
            self._die()
        number = self.fault.get("errno")
        self._failing |= here
        if self._failing and (number == errno.EROFS or call in ("write", "mkdir")):
            raise OSError(number, os.strerror(number), path)
        return act()

    def room(self) -> int | None:
        """The number of free bytes; None: there is no limit."""
        if "room" not in self.fault:
            return None
        files = [file.stat().st_size for file in Path(self.root).rglob("*") if file.is_file()]
        return max(0, self.fault["room"] - sum(files))

    def wrote(self, descriptor: int) -> None:
        self._unflushed.add(os.fstat(descriptor).st_ino)

    def _die(self) -> NoReturn:
        if self.fault.get("power"):
            for file in Path(self.root).rglob("*"):
                if file.is_file() and file.stat().st_ino in self._unflushed:
                    _truncate(file, file.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def _named(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda path, *others, **options: self.meet(
            name, others[0] if name == "replace" else path, lambda: call(path, *others, **options)
        )

    def _flush(self, descriptor: int) -> None:
        def flush() -> None:
            _fsync(descriptor)
            self._unflushed.discard(os.fstat(descriptor).st_ino)

        self.meet("fsync", _name_of(descriptor), flush)

    def _write_at(self, descriptor: int, data: bytes, offset: int) -> int:
        self.wrote(descriptor)
        return int(self.meet("write", _name_of(descriptor), lambda: _pwrite(descriptor, data, offset)))

    def _opened(
        self, file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
        newline: Any = None, *others: Any, **options: Any,
    ) -> Any:  # fmt: skip
        if not set(mode) & set("wax") or isinstance(file, int) or not os.path.realpath(file).startswith(self.root):
            return _open(file, mode, buffering, encoding, errors, newline, *others, **options)
        raw = self.meet("open", file, lambda: _Raw(self, os.fspath(file), mode.replace("b", "").replace("t", "")))
        stream = io.BufferedWriter(raw)
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding, errors, newline)


class _Raw(io.FileIO):
    """An open file whose writes are counted one by one."""

    def __init__(self, disk: Disk, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self._disk = disk

    def write(self, data: Any) -> int:
        put, room = super().write, self._disk.room()
        self._disk.wrote(self.fileno())
        if room is not None and room < len(data):
            if not room:
                number = self._disk.fault["errno"]
                raise OSError(number, os.strerror(number))
            data = data[:room]  # as the kernel does: what there is room for, and an error the next time
        return int(self._disk.meet("write", self.name, lambda: put(data), lambda: put(data[: len(data) // 2])))


def plain(path: str) -> str:
    """A file's name without what differs from process to process."""
    name = re.sub(r"^\.(.+)\.(\d+|[0-9a-f]{32})\.(tmp|partial)$", r"\1", os.path.basename(path))
    name = re.sub(r"^\.[0-9a-f]{8}-(seed\d+\.lock)$", r".\1", name)
    return re.sub(r"synthetic-.*\.npy", "images.npy", name)


def _name_of(descriptor: int) -> str:
    """Of an open file; only Linux tells, elsewhere such calls go uncounted."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return os.devnull
