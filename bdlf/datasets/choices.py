"""The ways to score a dataset that its protocol defines, and which of them are asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from bdlf.datasets import DATASETS
from bdlf.datasets.protocol import Protocol, protocol_name
from bdlf.system.errors import InputError


@dataclass(frozen=True)
class Asked:
    """What a user asks for of a dataset's protocol: the keys of `evaluation` that have these names.

    None stands for every mode and every direction, and for the default of the other options. What the values mean for
    a dataset stands in the dataset's file, and `bdlf.datasets.explain.explain` says it in words.
    """

    mode: str | None = None
    shots: int | None = None
    direction: str | None = None
    gallery: str | None = None
    reading: str | None = None

    @classmethod
    def of(cls, options: Any) -> Asked:
        """What `options` ask for: an object with these attributes, such as `config.evaluation` or a `Choice`."""
        return cls(**{name: getattr(options, name) for name in OPTIONS})


OPTIONS = tuple(option.name for option in fields(Asked))
"""The names of the options of a protocol."""


@dataclass(frozen=True)
class Choice:
    """One way to score a dataset. An option that the dataset's protocol does not have is None."""

    dataset: str
    mode: str | None
    """The cameras that are searched: all | indoor."""
    shots: int | None
    """Gallery images of each identity and camera: 1 | 10."""
    direction: str
    """The modality of the queries and that of the gallery: ir_to_vis | vis_to_ir."""
    gallery: str
    """How the gallery is drawn: official | agw, or all, which is the whole test half."""
    reading: str | None
    """Which of two readings of LLCM's protocol is followed: paper | released."""

    @property
    def name(self) -> str:
        """`ir_to_vis all 1-shot agw`"""
        return protocol_name(self.direction, self.mode, self.shots, self.gallery, self.reading)


def choices(dataset: str, asked: Asked) -> list[Choice]:
    """The ways to score a dataset that are `asked` for. They are known without the dataset's images.

    Raises InputError on an unknown dataset, and on what the dataset's protocol does not define.
    """
    if dataset not in DATASETS:
        raise InputError(f"unknown dataset {dataset!r}: known are {', '.join(DATASETS)}")
    protocol = DATASETS[dataset].protocol
    chosen = {option: _chosen(dataset, protocol, option, getattr(asked, option)) for option in OPTIONS}
    shots, gallery, reading = (chosen[option][0] for option in ("shots", "gallery", "reading"))
    drawing = protocol.galleries[gallery]
    if shots is not None and drawing.shots and shots not in drawing.shots:
        others = [name for name, other in protocol.galleries.items() if not other.shots or shots in other.shots]
        raise InputError(
            f"gallery={gallery} draws {drawing.draws}, so shots={shots} is undefined: "
            f"take gallery={' or '.join(others)}"
        )
    return [
        Choice(dataset, one_mode, shots, one_direction, gallery, reading)
        for one_mode, one_direction in product(chosen["mode"], chosen["direction"])
    ]


def _chosen(dataset: str, protocol: Protocol, option: str, asked: Any) -> tuple[Any, ...]:
    """The value that is asked for. If it is None, every value that the protocol has, the default first.

    The only value of an option that the protocol does not have is None.
    """
    known = protocol.known(option)
    if asked is None:
        return known or (None,)
    if asked not in known:
        reason = f"it has {', '.join(map(str, known))}" if known else f"its protocol has no choice of {option}"
        raise InputError(f"{dataset} is not scored with {option}={asked}: {reason}")
    return (asked,)
