"""The ways to score a dataset that its protocol defines, and which of them are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from bdlf.datasets import DATASETS
from bdlf.datasets.protocol import Protocol, protocol_name
from bdlf.system.errors import InputError


@dataclass(frozen=True)
class Choice:
    """One way to score a dataset; None where a choice does not apply to the dataset."""

    dataset: str
    mode: str | None
    """all | indoor"""
    shots: int | None
    """1 | 10: gallery images per identity and camera"""
    direction: str
    """ir_to_vis | vis_to_ir"""
    gallery: str
    """official | agw: how the gallery is drawn; all: the whole test half"""
    reading: str | None
    """paper | released"""

    @property
    def name(self) -> str:
        """`ir_to_vis all 1-shot agw`"""
        return protocol_name(self.direction, self.mode, self.shots, self.gallery, self.reading)


def choices(
    dataset: str,
    *,
    mode: str | None = None,
    shots: int | None = None,
    direction: str | None = None,
    gallery: str | None = None,
    reading: str | None = None,
) -> list[Choice]:
    """The ways to score a dataset, without its images; None stands for every mode and direction, else for the default.

    Raises InputError on an unknown dataset, and on what the dataset's protocol does not define.
    """
    if dataset not in DATASETS:
        raise InputError(f"unknown dataset {dataset!r}: known are {', '.join(DATASETS)}")
    protocol = DATASETS[dataset].protocol
    asked = {"mode": mode, "direction": direction, "shots": shots, "gallery": gallery, "reading": reading}
    known = {option: _known(dataset, protocol, option, value) for option, value in asked.items()}
    shots, gallery, reading = known["shots"][0], known["gallery"][0], known["reading"][0]
    drawing = protocol.galleries[gallery]
    if shots is not None and drawing.shots and shots not in drawing.shots:
        others = [name for name, other in protocol.galleries.items() if not other.shots or shots in other.shots]
        raise InputError(
            f"gallery={gallery} draws {drawing.draws}, so shots={shots} is undefined: "
            f"take gallery={' or '.join(others)}"
        )
    return [
        Choice(dataset, one_mode, shots, one_direction, gallery, reading)
        for one_mode, one_direction in product(known["mode"], known["direction"])
    ]


def _known(dataset: str, protocol: Protocol, option: str, asked: Any) -> tuple[Any, ...]:
    """What is asked for, or else all that there is, the default first."""
    known = protocol.known(option)
    if asked is None:
        return known or (None,)
    if asked not in known:
        reason = f"it has {', '.join(map(str, known))}" if known else f"its protocol has no choice of {option}"
        raise InputError(f"{dataset} is not scored with {option}={asked}: {reason}")
    return (asked,)
