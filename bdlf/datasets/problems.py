"""What is wrong with a dataset on disk: the first problem stops whoever trains; the check collects all of them."""

from __future__ import annotations

from typing import NamedTuple

from bdlf.system.errors import InputError
from bdlf.system.wording import printable


class Finding(NamedTuple):
    """One thing that is wrong."""

    kind: str
    """The same words for everything that is wrong in the same way."""
    where: str
    """A path relative to the dataset's root, perhaps with a line; or an identity, or a row of the counts."""
    message: str
    """A line that says it in full, and the remedy."""


class Problems:
    """Whom the readers of the datasets tell what is wrong. This one, the strict one, raises the first `InputError`."""

    def report(self, kind: str, where: str, message: str, *, strict: str | None = None) -> None:
        """Something without which the listing cannot be trusted. `strict` is what is raised where it differs."""
        raise InputError(strict or message)

    def suspect(self, kind: str, where: str, message: str) -> None:
        """Something that the published dataset does not have but that stops nobody: only collected."""


class Collected(Problems):
    """Remembers what it is told, each kind and place once; readers go on with what is readable."""

    def __init__(self) -> None:
        self._findings: dict[tuple[str, str], Finding] = {}
        self.stopping = False
        """Whether something was reported that stops whoever trains."""

    @property
    def findings(self) -> list[Finding]:
        """In the order in which they were found."""
        return list(self._findings.values())

    def report(self, kind: str, where: str, message: str, *, strict: str | None = None) -> None:
        """As of `Problems`; kept, not raised."""
        self.stopping = True
        self.suspect(kind, where, message)

    def suspect(self, kind: str, where: str, message: str) -> None:
        """As of `Problems`; kept too."""
        where, message = printable(where), printable(message)
        self._findings.setdefault((kind, where), Finding(kind, where, message))


STRICT = Problems()
