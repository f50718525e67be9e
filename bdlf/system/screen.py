"""Makes standard output and standard error safe: no command fails because a reader left or an encoding lacks a sign."""

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
"""The name of an error handler for `str.encode`. It replaces signs that an encoding lacks by readable ones."""
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
    """A file whose writes never fail. After the first error, everything goes to the null device."""

    lost: OSError | None = None
    """The first error, or None."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            while (written := super().write(data)) is None:  # None: the file is non-blocking and full, so wait
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
    """Make writing to standard output and standard error of this process always possible. Repeating it does nothing.

    - If the reader of a stream leaves (`| head`, a closed terminal), further output goes to the null device.
    - If a stream was closed from the start (`>&-`), its descriptor is opened on the null device, so that no file opened
      later gets that descriptor and receives the output.
    - A sign that the encoding of the stream lacks is replaced by readable signs that it has.

    Streams by which a notebook or a test has replaced the interpreter's own are not changed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the system assigns the lowest free number, which is this one
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = sys.__stdout__ = _lasting(sys.stdout, 1)  # type: ignore[misc, assignment]
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = sys.__stderr__ = _lasting(sys.stderr, 2)  # type: ignore[misc, assignment]


def unwritten() -> str:
    """The reason why standard output lost data, for example a full disk; '' where nothing was lost.

    A reader that has left on purpose (`| head`) is no reason.
    """
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _Lasting):
        return ""
    sys.stdout.flush()
    return "" if raw.lost is None or raw.lost.errno in _READER_IS_GONE else str(raw.lost.strerror)


def encodable(text: str, encoding: str) -> str:
    """`text` with the signs that `encoding` lacks replaced by readable ones: the text that such a stream shows."""
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
        line_buffering=True,  # so that a pipe (`| tee`) gets each line when it is printed
    )


def _readable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    signs = (_IN_ASCII.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking)
    return "".join(signs), error.end


codecs.register_error(READABLE, _readable)
