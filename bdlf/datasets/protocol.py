"""How a dataset is scored: what can be chosen, how galleries are drawn, and what a query does not see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from bdlf.datasets.galleries import Rows

BOTH_DIRECTIONS = ("ir_to_vis", "vis_to_ir")
"""A direction names the modality of the queries and that of the gallery."""


@dataclass(frozen=True)
class Rule:
    """Which gallery images a query does not see, and what CMC ranks."""

    name: str
    """`protocol` of `bdlf.evaluation.retrieval_metrics`."""
    ranks: str
    """`identities`: CMC ranks each identity at its best image. `images`: CMC ranks images."""
    hidden_cameras: tuple[tuple[int, int], ...] = ()
    """(query's camera, gallery image's camera): such images are hidden from the query, whatever their identity."""
    hides_own_camera: bool = False
    """Whether a query does not see the images of its own identity and its own camera number."""
    reason: str = ""
    """Why images are hidden, for a reader."""

    @property
    def needs_cameras(self) -> bool:
        """Whether the cameras of queries and gallery must be known."""
        return bool(self.hidden_cameras) or self.hides_own_camera

    @property
    def hides(self) -> str:
        """What a query does not see, as the continuation of 'a query ...'; empty: it sees everything."""
        words = [f"of camera {query} does not see images of camera {other}" for query, other in self.hidden_cameras]
        if self.hides_own_camera:
            words.append("does not see images of its own camera")
        return ", and one ".join(words)


class Candidates(NamedTuple):
    """What the galleries of one setting are drawn from."""

    images: pd.DataFrame
    """Rows of the listing: the images of the gallery's modality in the cameras that are searched."""
    pids: list[int]
    """All identities of the split, ascending, with and without images among the candidates."""
    cameras: tuple[int, ...]
    """The cameras that the mode searches; empty: every camera."""
    root: Path | None
    """The dataset's folder."""
    shots: int | None
    """How many images of each identity and camera are drawn, where that can be chosen."""


@dataclass(frozen=True)
class Gallery:
    """One way to draw the gallery."""

    draw: Callable[[Candidates], Sequence[Rows]]
    """The rows of the listing that make up the gallery of each trial."""
    trials: int
    draws: str
    """What `draw` takes, as the continuation of 'it draws ...'."""
    how: str
    """A whole sentence on how it is drawn."""
    shots: tuple[int, ...] = ()
    """The numbers of shots that are defined; empty: any that the protocol has."""
    file: str = ""
    """The file below the dataset's root that the galleries are read from, if any."""


@dataclass(frozen=True)
class Protocol:
    """How a dataset is scored.

    Of everything that can be chosen, the default stands first, and it is what papers report; of modes and directions
    all are scored by default. What is empty cannot be chosen.
    """

    rule: Rule
    galleries: Mapping[str, Gallery]
    directions: tuple[str, ...] = BOTH_DIRECTIONS
    modes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The cameras of the gallery's modality that each mode searches; empty: every camera."""
    shots: tuple[int, ...] = ()
    """Images of each identity and camera in the gallery."""
    readings: Mapping[str, str] = field(default_factory=dict)
    """Incompatible readings of one protocol that are both in use, each with words that say what it means."""
    drawn_queries: tuple[tuple[str, str], ...] = ()
    """(reading, direction) in which the images drawn as a gallery are the queries, and all images they search."""
    sizes: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    """Published numbers of queries and gallery images by `protocol_name`; None: not published."""
    source: str = ""
    """Where the protocol is defined."""
    remark: str = ""
    """Whole sentences on what else a reader of the numbers must know."""

    def known(self, option: str) -> tuple[Any, ...]:
        """What there is to choose of an option: mode, shots, direction, gallery or reading."""
        tables: dict[str, Any] = {
            "mode": self.modes,
            "shots": self.shots,
            "direction": self.directions,
            "gallery": self.galleries,
            "reading": self.readings,
        }
        return tuple(tables[option])


def protocol_name(direction: str, mode: str | None, shots: int | None, gallery: str, reading: str | None) -> str:
    """The words that name a protocol beside a number, like `ir_to_vis all 1-shot agw`; what is None is left out."""
    return " ".join(part for part in (direction, mode, f"{shots}-shot" if shots else None, gallery, reading) if part)
