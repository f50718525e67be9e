"""The file by which a tree that `bdlf.synthesize` wrote is recognised, and by which its contents are checked."""

from __future__ import annotations

import json
from pathlib import Path

from bdlf.datasets.description import MODALITIES, SPLITS, Place, Size, by_camera, place_name
from bdlf.system.errors import InputError

RECORD = "synthetic.json"
"""At the root of every tree that `bdlf.synthesize` wrote, and of no other."""
GENERATOR = "bdlf synthetic pedestrians"
SCHEMA = 2
"""Version of what the record holds."""


def is_synthetic(root: str | Path) -> bool:
    """Whether the tree at `root` was written by `bdlf.synthesize`, which leaves a `synthetic.json` there."""
    return (Path(root) / RECORD).is_file()


def recorded_sizes(root: Path, name: str) -> dict[Place, Size]:
    """The numbers of identities and images that the record of the tree at `root` names.

    Raises `InputError` where the record is damaged, of another version, or of another dataset than `name`.
    """
    file, remedy = root / RECORD, "write the tree again with python -m bdlf.synthesize"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        schema, layout = record["schema"], record["layout"]
        if schema == SCHEMA and layout == name:
            cameras = {
                split: {kind: {int(c): Size(**size) for c, size in own.items()} for kind, own in kinds.items()}
                for split, kinds in record["cameras"].items()
            }
            sizes = by_camera(cameras, record["identities"])
            _require_known(sizes)
            return sizes
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is not a record of bdlf.synthesize ({error!r}): {remedy}") from error
    if layout != name:
        raise InputError(f"{file}: this tree has the layout {layout}: set dataset={layout}")
    raise InputError(f"{file} was written by another version (schema {schema}, here {SCHEMA}): {remedy}")


def _require_known(sizes: dict[Place, Size]) -> None:
    """Raises ValueError for a place that no listing has, and for a size that is no count."""
    for (split, modality, _), size in sizes.items():
        if split not in SPLITS or modality not in (None, *MODALITIES):
            raise ValueError(f"{split} {modality}")
        if not all(type(count) is int and count >= 0 for count in size if count is not None) or size.images is None:
            raise ValueError(f"{place_name((split, modality, None))}: {size}")
