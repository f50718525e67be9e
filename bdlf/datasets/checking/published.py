"""How many identities and images the published datasets have, and what of that a listing has.

Of a tree that `bdlf.synthesize` wrote, the record in it (`synthetic.json`) takes the place of the published counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bdlf.data.listing import MODALITIES, SPLITS, is_synthetic
from bdlf.data.synthetic.layouts import RECORD, SCHEMA
from bdlf.datasets.problems import Finding
from bdlf.system.errors import InputError

Place = tuple[str, str | None, int | None]
"""Split, modality, camera; None: all of them."""


class Size(NamedTuple):
    """How much there is in a place; None: no number was published."""

    identities: int | None
    images: int


class Published(NamedTuple):
    """What an intact dataset holds."""

    source: str
    sizes: dict[Place, Size]
    unlisted: int = 0
    """Identities that have images and are in no split, in SYSU-MM01."""


def _by_camera(cameras: dict[str, dict[str, dict[int, Size]]], identities: dict[str, int]) -> dict[Place, Size]:
    """Every camera, and the sums over them; a person is in several cameras, so identities are not summed."""
    sizes: dict[Place, Size] = {}
    for split, modalities in cameras.items():
        for modality, own in modalities.items():
            sizes |= {(split, modality, camera): size for camera, size in own.items()}
            sizes[split, modality, None] = Size(None, sum(size.images for size in own.values()))
        total = sum(size.images for own in modalities.values() for size in own.values())
        sizes[split, None, None] = Size(identities[split], total)
    return sizes


# SYSU-MM01: Wu et al., ICCV 2017. Identities and images per camera of each identity, from the official evaluation's
# exp/rand_perm_cam.mat and exp/*_id.mat; the sums are those of the paper: 491 identities, 30,071 visible and 15,792
# infrared images, the 1,118 of the 22 identities in no split file included.
_SYSU: dict[str, dict[str, dict[int, Size]]] = {
    "train": {
        "vis": {1: Size(194, 4721), 2: Size(195, 5753), 4: Size(283, 4821), 5: Size(294, 4989)},
        "ir": {3: Size(293, 5929), 6: Size(200, 4000)},
    },
    "val": {"vis": {4: Size(99, 990), 5: Size(96, 984)}, "ir": {3: Size(99, 1980)}},
    "test": {
        "vis": {1: Size(56, 1374), 2: Size(56, 1565), 4: Size(94, 1918), 5: Size(95, 1918)},
        "ir": {3: Size(93, 1883), 6: Size(96, 1920)},
    },
}
_SYSU_IDENTITIES = {"train": 296, "val": 99, "test": 96}

# RegDB: Nguyen et al., Sensors 2017: 412 identities, 10 images of each modality; the ten halvings are those of Ye et
# al., AAAI 2018.
_REGDB = {half: {"vis": {1: Size(206, 2060)}, "ir": {2: Size(206, 2060)}} for half in ("train", "test")}
_REGDB_IDENTITIES = {"train": 206, "test": 206}

# LLCM: Zhang and Wang, CVPR 2023, as released: 46,767 images of 1,064 identities. Nothing is published per camera.
_LLCM: dict[Place, Size] = {
    ("train", None, None): Size(713, 30921),
    ("train", "vis", None): Size(None, 16946),
    ("train", "ir", None): Size(None, 13975),
    ("test", None, None): Size(351, 15846),
    ("test", "vis", None): Size(None, 8680),
    ("test", "ir", None): Size(None, 7166),
}

PUBLISHED = {
    "sysu": Published("SYSU-MM01 as published", _by_camera(_SYSU, _SYSU_IDENTITIES), unlisted=22),
    "regdb": Published("RegDB as published", _by_camera(_REGDB, _REGDB_IDENTITIES)),
    "llcm": Published("LLCM as published", _LLCM),
}

PROTOCOL_SIZES: dict[str, dict[str, tuple[int, int | None]]] = {
    # Wu et al., and the official evaluation code: 301 (all) and 112 (indoor) folders with images of a test identity.
    "sysu": {
        "ir_to_vis all 1-shot agw": (3803, 301),
        "ir_to_vis indoor 1-shot agw": (3803, 112),
        "ir_to_vis all 1-shot official": (3803, 301),
        "ir_to_vis indoor 1-shot official": (3803, 112),
        "ir_to_vis all 10-shot official": (3803, 3010),
        "ir_to_vis indoor 10-shot official": (3803, 1120),
    },
    "regdb": {"ir_to_vis all": (2060, 2060), "vis_to_ir all": (2060, 2060)},
    "llcm": {"ir_to_vis 1-shot agw paper": (7166, None), "vis_to_ir 1-shot agw paper": (8680, None)},
}
"""Queries and gallery images of each protocol; None: not published."""


def published(name: str, root: str | Path | None) -> Published | None:
    """What the dataset `name` at `root` should hold; None for the synthetic set, which is drawn and not published.

    Raises `InputError` where the record of a synthetic tree is damaged or of another version.
    """
    if name == "synthetic" or root is None:
        return None
    if is_synthetic(root):
        return Published(f"{RECORD} of this tree", _recorded(Path(root) / RECORD, name))
    return PUBLISHED[name]


def sizes_of(table: pd.DataFrame) -> dict[Place, Size]:
    """Identities and images of a listing: of each split, each modality in it, and each camera in that."""
    sizes: dict[Place, Size] = {}
    for depth in (1, 2, 3):
        for at, pids in table.groupby(["split", "modality", "camid"][:depth])["pid"]:
            place: tuple[Any, ...] = (*at, None, None)
            camera = None if place[2] is None else int(place[2])
            sizes[place[0], place[1], camera] = Size(int(pids.nunique()), len(pids))
    return sizes


def compare(found: dict[Place, Size], expected: Published, *, label: str = "") -> list[Finding]:
    """A finding for every place that holds less or more than it should; `label` stands before the places' names.

    Where a camera or modality is wrong already, the sum over all of them is not named again.
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


def quick_findings(table: pd.DataFrame, root: str | Path | None) -> list[str]:
    """Where a listing, as read, holds less or more than the published dataset, a line each; opens no image.

    Splits of which the listing has no row are not looked at.
    """
    try:
        expected = published(table.attrs["name"], root)
    except InputError as error:
        return [str(error)]
    if expected is None:
        return []
    found = sizes_of(table)
    read = {place: size for place, size in expected.sizes.items() if (place[0], None, None) in found}
    return [finding.message for finding in compare(found, expected._replace(sizes=read))]


def place_name(place: Place) -> str:
    """`train visible camera 3`"""
    split, modality, camera = place
    words = (split, MODALITIES[modality] if modality else "", f"camera {camera}" if camera is not None else "")
    return " ".join(word for word in words if word)


def _differences(have: Size, want: Size) -> Iterable[tuple[str, int, int]]:
    if want.identities is not None and have.identities != want.identities:
        yield "identities", have.identities or 0, want.identities
    if have.images != want.images:
        yield "images", have.images, want.images


def _finest_first(place: Place) -> tuple[int, int, str, int]:
    split, modality, camera = place
    return (camera is None) + (modality is None), SPLITS.index(split), modality or "", camera or 0


def _nothing_expected(place: Place, expected: Published) -> Size | None:
    """A camera that no one published has nothing, unless nothing at all was published by camera."""
    by_camera = any(camera is not None for split, _, camera in expected.sizes if split == place[0])
    return Size(0, 0) if by_camera else None


def _recorded(file: Path, name: str) -> dict[Place, Size]:
    remedy = "write the tree again with python -m bdlf.synthesize"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        schema, layout = record["schema"], record["layout"]
        if schema == SCHEMA and layout == name:
            cameras = {
                split: {kind: {int(c): Size(**size) for c, size in own.items()} for kind, own in kinds.items()}
                for split, kinds in record["cameras"].items()
            }
            sizes = _by_camera(cameras, record["identities"])
            _require_known(sizes)
            return sizes
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is not a record of bdlf.synthesize ({error!r}): {remedy}") from error
    if layout != name:
        raise InputError(f"{file}: this tree has the layout {layout}: set dataset={layout}")
    raise InputError(f"{file} was written by another version (schema {schema}, here {SCHEMA}): {remedy}")


def _require_known(sizes: dict[Place, Size]) -> None:
    """Raises ValueError for a place that no listing has, or a size that is no count."""
    for (split, modality, _), size in sizes.items():
        if split not in SPLITS or modality not in (None, *MODALITIES):
            raise ValueError(f"{split} {modality}")
        if not all(type(count) is int and count >= 0 for count in size if count is not None) or size.images is None:
            raise ValueError(f"{place_name((split, modality, None))}: {size}")
