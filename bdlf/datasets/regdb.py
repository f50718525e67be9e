"""RegDB (Nguyen et al., Sensors 2017): `Visible/` and `Thermal/`, ten random halvings of the identities in `idx/`.

Each half of each split has two lists, `idx/{train,test}_{visible,thermal}_{1..10}.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bdlf.datasets.description import (
    Checks,
    Contents,
    Dataset,
    Evidence,
    Layout,
    Plan,
    Published,
    Row,
    Seat,
    Size,
    TimedTrial,
    by_camera,
    out_of_place,
)
from bdlf.datasets.galleries import EVERYTHING
from bdlf.datasets.planning import PlannedImage, image_table
from bdlf.datasets.problems import Problems
from bdlf.datasets.protocol import Protocol, Rule
from bdlf.datasets.tree import read_index, read_list, require_folders, require_images, require_one_label_each

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SPLITS = range(1, 11)
FOLDERS = {"visible": ("Visible", "vis", 1), "thermal": ("Thermal", "ir", 2)}
"""Word in an index file's name: folder, modality, camera."""
IMAGE_FOLDERS = tuple(folder for folder, _, _ in FOLDERS.values())
RULE = Rule("regdb", ranks="images")
"""Every query sees the whole gallery."""


# --- The images on disk ---


def read_regdb(root: Path, splits: Sequence[str], number: int, problems: Problems) -> Contents:
    """Reads the `splits` out of 'train' and 'test' of the halving `number` of the ten.

    The pid is the number of the identity's folder, not the label on the line: labels start at 0 in the training half
    and again in the test half, for different people, and differ from halving to halving, while the folder's number is
    one person's everywhere. Labels are checked to agree with the folders. The camera is 1 for visible, 2 for infrared.
    """
    missing = require_folders(root, ["idx", *IMAGE_FOLDERS], problems)
    found = Contents({half: [] for half in splits}, [])
    if "idx" in missing:
        return found
    for half, rows in found.rows.items():
        listed = {
            word: read_index(root, f"idx/{half}_{word}_{number}.txt", folder, problems)
            for word, (folder, _, _) in FOLDERS.items()
        }
        lines = [line for part in listed.values() for line in part]
        require_one_label_each(root, lines, problems)
        present, strays = require_images(root, lines, problems)
        found.passed_over.extend(strays)
        for word, (_, modality, camera) in FOLDERS.items():
            rows += [Row(line.path, line.pid, camera, modality) for line in listed[word] if line.path in present]
        visible, thermal = ({line.pid for line in listed[word]} for word in FOLDERS)
        if visible and thermal and visible != thermal:
            where = f"idx/{half}_*_{number}.txt"
            some = ", ".join(map(str, sorted(visible ^ thermal)[:5]))
            message = f"{root / where}: visible and thermal name different people ({some}): restore both files"
            problems.suspect("lists name different people", where, message)
    return found


# 412 identities with 10 images of each modality; the ten halvings are those of Ye et al., AAAI 2018.
_CAMERA_SIZES = {half: {"vis": {1: Size(206, 2060)}, "ir": {2: Size(206, 2060)}} for half in ("train", "test")}
_IDENTITIES = {"train": 206, "test": 206}


# --- What bdlf.check must know ---

_NAME = re.compile(r"_([vt])_\d+_(\d+)$")
"""The end of an image's name without suffix: modality, identity."""


def _seat_of(parts: tuple[str, ...]) -> Seat | None:
    if len(parts) != 3 or not re.fullmatch(r"\d+", parts[1]):
        return None
    return Seat(int(parts[1]), "vis" if parts[0] == "Visible" else "ir", None)


def _wrong_name(file: str, seat: Seat) -> tuple[str, str] | None:
    said = _NAME.search(PurePosixPath(file).stem)
    if said is None:
        return None
    if {"v": "vis", "t": "ir"}[said[1]] != seat.modality:
        return out_of_place("visible" if said[1] == "v" else "thermal")
    return out_of_place(f"identity {said[2]}") if int(said[2]) != seat.pid else None


def _check_repeated_splits(
    root: Path, images: Sequence[str], tables: Mapping[int | None, pd.DataFrame], problems: Problems
) -> None:
    """A problem for every index file that equals that of an earlier split."""
    del images  # only the lists matter
    for half in ("train", "test"):
        for word in FOLDERS:
            first: dict[bytes, str] = {}
            for split in tables:
                name = f"idx/{half}_{word}_{split}.txt"
                try:
                    content = read_list(root / name)
                except OSError:
                    continue  # the reader has said so
                if (earlier := first.setdefault(content, name)) != name:
                    message = f"{root / name} equals {earlier}: restore both files from the dataset"
                    problems.suspect("split repeats another", name, message)


def _hint(found: Evidence) -> str | None:
    """Half of the archive was extracted."""
    root, kinds = found.root, found.kinds
    if not any((root / entry).is_dir() for entry in ("idx", *IMAGE_FOLDERS)):
        return None
    absent = [where for where, kind in kinds.items() if kind == "listed image is absent"]
    whole = {where.rpartition("/")[0] for where in absent}
    gone = [folder for folder in whole if not (root / folder).is_dir()]
    folders = [folder for folder in IMAGE_FOLDERS if kinds.get(folder) == "missing folder"]
    if not gone and not folders:
        return None
    lack = f"{' and '.join(folders)}" if folders else f"{len(gone)} identity folders"
    return f"RegDB extracted by half, without {lack}; extract RegDB.zip again, and check that it is whole"


# --- What bdlf.synthesize writes ---


def _plan(identities: int, images: int, random: np.random.Generator) -> Plan:
    """One camera for each modality; ten random halvings of the identities, labelled from 0 in the order drawn.

    The words male, female, front and back in the names follow the original's pattern and mean nothing here.
    """
    genders = random.choice(["male", "female"], identities)

    def planned() -> Iterator[PlannedImage]:
        frame = 0
        for who in range(identities):
            # Which half a person is in differs between the ten splits: this one serves for counting only.
            split = "train" if who < identities // 2 else "test"
            for word, (folder, modality, camera) in FOLDERS.items():
                for k in range(images):
                    frame += 1
                    facing = "front" if k < images // 2 else "back"
                    name = f"{genders[who]}_{facing}_{word[0]}_{frame:05d}_{who + 1}.bmp"
                    yield PlannedImage(who, who + 1, camera, modality, k, split, [f"{folder}/{who + 1}/{name}"])

    table = image_table(planned())
    paths = {key: [own[0] for own in part["paths"]] for key, part in table.groupby(["pid", "modality"])}
    files: dict[str, str | bytes] = {}
    drawn: set[tuple[int, ...]] = set()
    for number in SPLITS:
        order = 1 + random.permutation(identities)
        while tuple(order) in drawn:  # of four identities there are 24 orders only
            order = 1 + random.permutation(identities)
        drawn.add(tuple(order))
        halves = {"train": order[: identities // 2], "test": order[identities // 2 :]}
        for half, pids in halves.items():
            for word, (_, modality, _) in FOLDERS.items():
                lines = [f"{path} {label}" for label, pid in enumerate(pids) for path in paths[pid, modality]]
                files[f"idx/{half}_{word}_{number}.txt"] = "\n".join(lines) + "\n"
    return Plan(table, files)


# --- The description ---

DATASET = Dataset(
    name="regdb",
    title="RegDB",
    paper="Nguyen et al., Person Recognition System Based on a Combination of Body Images from Visible Light and "
    "Thermal Cameras, Sensors 2017",
    folder="RegDB",
    list_folders=("idx",),
    image_folders=IMAGE_FOLDERS,
    numbered_splits=SPLITS,
    read=read_regdb,
    published=Published("RegDB as published", by_camera(_CAMERA_SIZES, _IDENTITIES)),
    protocol=Protocol(
        rule=RULE,
        galleries={"all": EVERYTHING},
        sizes={"ir_to_vis all": (2060, 2060), "vis_to_ir all": (2060, 2060)},
        remark=(
            "The identities are halved at random in ten ways; dataset.split=1..10 chooses one. One model is trained "
            "and tested for each split, and papers give the mean of the ten. A model must not be tested on another "
            "split, because it has seen half of those people."
        ),
        source="Ye et al., AAAI 2018, whose ten halvings of the identities everyone uses",
    ),
    checks=Checks(
        marks=IMAGE_FOLDERS,
        seat_of=_seat_of,
        wrong_name=_wrong_name,
        further=_check_repeated_splits,
        hint=_hint,
    ),
    layout=Layout(_plan, IMAGE_FOLDERS),
    timed=TimedTrial(2060, 2060, 206, (1,), (2,)),
)
