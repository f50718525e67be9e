"""Compares how many identities and images a listing has with what an intact copy of the dataset has.

Of a tree that `bdlf.synthesize` wrote, the record in it (`synthetic.json`) takes the place of the published counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlf.datasets import dataset_named
from bdlf.datasets.description import SPLITS, Place, Published, Size, place_name
from bdlf.datasets.problems import Finding
from bdlf.datasets.record import RECORD, is_synthetic, recorded_sizes
from bdlf.system.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def published(name: str, root: str | Path | None) -> Published | None:
    """What the dataset `name` at `root` should hold; None where nothing is published, as of the synthetic dataset.

    Raises `InputError` where the record of a synthetic tree is damaged, of another dataset or of another version.
    """
    dataset = dataset_named(name)
    if not dataset.has_files or root is None:
        return None
    if is_synthetic(root):
        return Published(f"{RECORD} of this tree", recorded_sizes(Path(root), name))
    return dataset.published


def sizes_of(table: pd.DataFrame) -> dict[Place, Size]:
    """Identities and images of a listing: of each split, of each modality in it, and of each camera in that."""
    sizes: dict[Place, Size] = {}
    for depth in (1, 2, 3):
        for at, pids in table.groupby(["split", "modality", "camid"][:depth])["pid"]:
            place: tuple[Any, ...] = (*at, None, None)
            camera = None if place[2] is None else int(place[2])
            sizes[place[0], place[1], camera] = Size(int(pids.nunique()), len(pids))
    return sizes


def compare(found: Mapping[Place, Size], expected: Published, *, label: str = "") -> list[Finding]:
    """A finding for every place that holds less or more than it should; `label` stands before the places' names.

    Where the count of a camera or of a modality is wrong, the sums that contain it are not reported again.
    """
    findings: list[Finding] = []
    named: set[Place] = set()
    for place in sorted(found.keys() | expected.sizes.keys(), key=_finest_first):
        split, modality, camera = place
        want = expected.sizes.get(place) or (_nothing_expected(place, expected) if camera is not None else None)
        if want is None or place in named:
            continue
        have = found.get(place, Size(0, 0))
        wrong = list(_differences(have, want))
        if wrong:
            named |= {(split, modality, None), (split, None, None)}
        for word, has, wants in wrong:
            amount = f"{wants - has:,} missing" if has < wants else f"{has - wants:,} too many"
            message = f"{label}{place_name(place)}: {has:,} {word} on disk, {wants:,} in {expected.source}: {amount}"
            kind = f"too few {word}" if has < wants else f"too many {word}"
            findings.append(Finding(kind, label + place_name(place), message))
    return findings


def quick_findings(table: pd.DataFrame, root: str | Path | None, name: str) -> list[str]:
    """Where a listing of the dataset `name` holds less or more than it should, a line each; opens no image.

    Splits of which the listing has no row are not looked at.
    """
    try:
        expected = published(name, root)
    except InputError as error:
        return [str(error)]
    if expected is None:
        return []
    found = sizes_of(table)
    read = {place: size for place, size in expected.sizes.items() if (place[0], None, None) in found}
    return [finding.message for finding in compare(found, expected._replace(sizes=read))]


def _differences(have: Size, want: Size) -> Iterable[tuple[str, int, int]]:
    if want.identities is not None and have.identities != want.identities:
        yield "identities", have.identities or 0, want.identities
    if have.images != want.images:
        yield "images", have.images, want.images


def _finest_first(place: Place) -> tuple[int, int, str, int]:
    split, modality, camera = place
    return (camera is None) + (modality is None), SPLITS.index(split), modality or "", camera or 0


def _nothing_expected(place: Place, expected: Published) -> Size | None:
    """No images are expected of a camera that is not published, unless nothing at all was published by camera."""
    by_camera = any(camera is not None for split, _, camera in expected.sizes if split == place[0])
    return Size(0, 0) if by_camera else None
