"""How readers report what is wrong with a dataset. Training stops at the first problem; `bdlf.check` collects all."""

from __future__ import annotations

from typing import NamedTuple

from bdlf.system.errors import InputError
from bdlf.system.wording import printable


class Finding(NamedTuple):
    """One thing that is wrong with a dataset."""

    kind: str
    """Names the kind of problem; the same text for every problem of this kind."""
    where: str
    """A path relative to the dataset's root, perhaps with a line number; or an identity; or a row of the counts."""
    message: str
    """One line that says what is wrong, and the remedy."""


class Problems:
    """Receives what the readers find wrong. This class is strict: it raises the first problem as an `InputError`."""

    def report(self, kind: str, where: str, message: str, *, strict: str | None = None) -> None:
        """Reports a problem that makes the listing unreliable. `strict`: the message to raise, if not `message`."""
        raise InputError(strict or message)

    def suspect(self, kind: str, where: str, message: str) -> None:
        """Reports a difference from the published dataset that does not stop training. It is ignored here."""


class Collected(Problems):
    """Collects all problems, each kind and place once, so that readers go on with what can be read."""

    def __init__(self) -> None:
        self._findings: dict[tuple[str, str], Finding] = {}
        self.stopping = False
        """Whether a problem was reported at which training would stop."""

    @property
    def findings(self) -> list[Finding]:
        """In the order in which they were found."""
        return list(self._findings.values())

    def report(self, kind: str, where: str, message: str, *, strict: str | None = None) -> None:
        """As `Problems.report`, but the problem is kept and not raised."""
        self.stopping = True
        self.suspect(kind, where, message)

    def suspect(self, kind: str, where: str, message: str) -> None:
        """As `Problems.suspect`, but the difference is kept."""
        where, message = printable(where), printable(message)
        self._findings.setdefault((kind, where), Finding(kind, where, message))


STRICT = Problems()
