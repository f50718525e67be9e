"""Puts together what `bdlf.check` reports of a dataset: counts, and what is wrong with the files on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bdlf.datasets import DATASETS
from bdlf.datasets.checking import inspection
from bdlf.datasets.checking.published import compare, sizes_of
from bdlf.datasets.choices import Asked
from bdlf.datasets.description import MODALITIES, SPLITS, Published, Size
from bdlf.datasets.marks import rule_for_wide
from bdlf.datasets.problems import Collected, Problems
from bdlf.datasets.record import is_synthetic
from bdlf.system.wording import printable

Tables = Mapping[int | None, pd.DataFrame]
"""The listing of each numbered split that is checked; the key None where there are no numbered splits."""


def split_label(split: int | None) -> str:
    """What stands before findings of one of several splits."""
    return "" if split is None else f"split {split}: "


def count_rows(tables: Tables, expected: Published | None, problems: Problems) -> list[dict[str, Any]]:
    """A row for every split, modality and camera that is on disk or expected; differences go to `problems`."""
    rows = []
    for split, table in tables.items():
        found = sizes_of(table)
        if expected is not None and len(table):
            for finding in compare(found, expected, label=split_label(split)):
                problems.suspect(*finding)
        wanted: Mapping[Any, Size] = {} if expected is None else expected.sizes
        kinds = [None, *MODALITIES]
        places = found.keys() | wanted.keys()
        for place in sorted(places, key=lambda at: (SPLITS.index(at[0]), kinds.index(at[1]), at[2] or 0)):
            have, want = found.get(place, Size(0, 0)), wanted.get(place)
            same = want is None or (have.images == want.images and want.identities in (None, have.identities))
            rows.append(
                {
                    "regdb_split": split,
                    **dict(zip(("split", "modality", "camera"), place, strict=True)),
                    "identities": have.identities,
                    "images": have.images,
                    "expected_identities": None if want is None else want.identities,
                    "expected_images": None if want is None else want.images,
                    "ok": None if want is None else same,
                }
            )
    return rows


def look_around(
    name: str,
    root: Path,
    tables: Tables,
    expected: Published | None,
    problems: Collected,
    *,
    follow_links: bool,
    decode: bool,
) -> tuple[list[str], int]:
    """Looks at everything in the dataset's folders that its reader does not look at.

    With `decode`, every image is decoded too. What is wrong goes to `problems`. Returns notes on what is worth knowing
    and not wrong, and how many images were decoded.
    """
    checks = inspection.checks_of(name)
    tree = inspection.walk(name, root, problems, follow_links=follow_links)
    unread = {finding.kind for finding in problems.findings} & {"missing list", "unreadable list", "empty list"}
    inspection.check_places(name, root, tree.sizes, problems)
    notes: list[str | None] = []
    if any(len(table) for table in tables.values()) and not unread:
        count = expected.unlisted if expected is not None else 0
        notes.append(inspection.check_unlisted(name, root, tree.sizes, list(tables.values()), count, problems))
    if checks.further is not None:
        notes.append(checks.further(root, list(tree.sizes), tables, problems))
    notes += [printable(f"{path} is no image: passed over") for path in tree.others]
    if decode:
        marks = inspection.decode_all(root, list(tree.sizes), problems)
        inspection.check_marks(name, root, marks, problems)
        notes.append(rule_for_wide([*marks.values()], "file"))  # as `decode_all` reads them, and training by default
    return [note for note in notes if note is not None], len(tree.sizes) if decode else 0


def asked_protocols(name: str, root: str | None) -> list[Asked]:
    """Options of the protocols to try: the default gallery, and every other one whose file is there.

    Other galleries are tried with every number of shots; in a synthetic tree only with the first, because it may have
    too few images for more.
    """
    protocol = DATASETS[name].protocol
    asked = [Asked()]
    for gallery, drawing in list(protocol.galleries.items())[1:]:
        if root is not None and (not drawing.file or (Path(root) / drawing.file).is_file()):
            shots = protocol.shots[:1] if is_synthetic(root) else protocol.shots
            asked += [Asked(gallery=gallery, shots=number) for number in shots or (None,)]
    return asked


def published_trial(name: str, root: str | None, protocol: str) -> tuple[int | None, int | None]:
    """How many queries and gallery images a protocol is published with; None where the tree at `root` is not real."""
    if root is None or is_synthetic(root):
        return None, None
    return DATASETS[name].protocol.sizes.get(protocol, (None, None))


def protocol_row(
    split: int | None,
    protocol: str,
    queries: int,
    gallery: int,
    expected: tuple[int | None, int | None],
    problems: Problems,
) -> dict[str, Any]:
    """One protocol of the report: how many images a trial has, and how many it should have."""
    same = queries == expected[0] and expected[1] in (None, gallery)
    if expected[0] is not None and not same:
        published = " x ".join("?" if number is None else f"{number:,}" for number in expected)
        message = f"{split_label(split)}{protocol}: {queries:,} x {gallery:,} images, {published} published"
        problems.suspect("protocol of another size", f"{split_label(split)}{protocol}", message)
    return {
        "regdb_split": split,
        "protocol": protocol,
        "queries": queries,
        "gallery": gallery,
        "expected_queries": expected[0],
        "expected_gallery": expected[1],
        "ok": None if expected[0] is None else same,
    }
