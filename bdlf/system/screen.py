"""Standard output and standard error that never end a command: a reader may go away, an encoding may lack a sign."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

READABLE = "bdlf.readable"
"""The name of an error handler for `str.encode`: what an encoding lacks is written with signs that it has."""
_IN_ASCII = {
    "±": "+-",
    "✓": "x",
    "×": "x",
    "·": ".",
    "…": "...",
    "–": "-",
    "—": "--",
    "−": "-",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "µ": "u",
}
_READER_IS_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)


class _Lasting(io.FileIO):
    """A file that can always be written. After the first error, what is written goes to the null device."""

    lost: OSError | None = None
    """The first error."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            while (written := super().write(data)) is None:  # another program made the terminal non-blocking
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = self.lost or error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != self.fileno():
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            return memoryview(data).nbytes


def keep_going() -> None:
    """Make standard output and standard error of this process last as long as the process; twice is once.

    - A stream whose reader has gone (`| head`, a closed terminal) goes to the null device from there on.
    - A stream that was closed from the start (`>&-`) goes there at once, and no file that is opened later gets its
      number.
    - A sign that the encoding of the stream lacks is replaced by signs that can be read.

    Streams that something else has put in the place of the interpreter's own (a notebook, a test) are left alone.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = sys.__stdout__ = _lasting(sys.stdout, 1)  # type: ignore[misc, assignment]
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = sys.__stderr__ = _lasting(sys.stderr, 2)  # type: ignore[misc, assignment]


def unwritten() -> str:
    """Why standard output lost something that a reader still waits for, like a full disk; else ''."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _Lasting):
        return ""
    sys.stdout.flush()
    return "" if raw.lost is None or raw.lost.errno in _READER_IS_GONE else str(raw.lost.strerror)


def encodable(text: str, encoding: str) -> str:
    """`text` as a stream of that encoding shows it."""
    return text.encode(encoding, READABLE).decode(encoding)


def _lasting(stream: TextIO | None, number: int) -> TextIO:
    if isinstance(getattr(getattr(stream, "buffer", None), "raw", None), _Lasting):
        assert stream is not None
        return stream
    if stream is not None:
        stream.flush()
    raw = _Lasting(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors=READABLE,
        line_buffering=True,  # through a pipe too: `| tee` shows each line when it is printed
    )


def _readable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    signs = (_IN_ASCII.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking)
    return "".join(signs), error.end


codecs.register_error(READABLE, _readable)
