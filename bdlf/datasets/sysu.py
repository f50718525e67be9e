"""SYSU-MM01 (Wu et al., ICCV 2017): `cam1..cam6/<4-digit identity>/<4-digit number>.jpg`, split files in `exp/`.

Cameras 1, 2, 4 and 5 are visible, 3 and 6 infrared. Cameras 2 and 3 stand in the same room.
"""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

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
)
from bdlf.datasets.galleries import AGW, TRIALS, ascending, image_folders
from bdlf.datasets.planning import PlannedImage, comma_line, image_table, random_splits
from bdlf.datasets.problems import STRICT, Problems
from bdlf.datasets.protocol import Candidates, Gallery, Protocol, Rule
from bdlf.datasets.record import GENERATOR
from bdlf.datasets.tree import read_identities, require_folders, scan
from bdlf.system.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from bdlf.datasets.galleries import Rows

INFRARED_CAMERAS = (3, 6)
CAMERAS = (1, 2, 3, 4, 5, 6)
FOLDERS = tuple(f"cam{camera}" for camera in CAMERAS)
PERMUTATIONS = "exp/rand_perm_cam.mat"
"""The official galleries, below the dataset's root; some copies lack them."""


# --- The images on disk ---


def read_sysu(root: Path, splits: Sequence[str], number: int, problems: Problems) -> Contents:
    """Reads the `splits` out of 'train', 'val' and 'test', whose identities stand in `exp/{train,val,test}_id.txt`.

    A camera that has no folder for an identity never saw that person, which is common. Problems: a camera folder is
    absent, an identity is in two splits (it is left in the first), or it has no image at all.
    """
    del number  # there is one split only
    missing = require_folders(root, ["exp", *FOLDERS], problems)
    found = Contents({split: [] for split in splits}, [])
    taken: dict[int, str] = {}
    for split, rows in found.rows.items():
        name = f"exp/{split}_id.txt"
        for pid in read_identities(root, name, problems) if "exp" not in missing else ():
            if pid in taken:
                message = f"{root / name}: identity {pid} is in {taken[pid]} too: restore both files"
                problems.report("identity in two splits", f"identity {pid}", message)
                continue
            taken[pid] = name
            before = len(rows)
            for camera in CAMERAS:
                images, strays = scan(root, f"cam{camera}/{pid:04d}", problems)
                rows += [Row(path, pid, camera, _modality(camera)) for path in images]
                found.passed_over.extend(strays)
            if len(rows) == before:
                message = f"{root / name}: identity {pid} has no image in any cam*/{pid:04d}: extract the dataset again"
                problems.report("identity without any image", f"{name}: identity {pid}", message)
    return found


def _modality(camera: int) -> str:
    return "ir" if camera in INFRARED_CAMERAS else "vis"


# Identities and images per camera, from the official evaluation's exp/rand_perm_cam.mat and exp/*_id.mat. The sums are
# those of the paper: 491 identities, 30,071 visible and 15,792 infrared images, which include the 1,118 images of the
# 22 identities in no split file.
_CAMERA_SIZES: dict[str, dict[str, dict[int, Size]]] = {
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
_IDENTITIES = {"train": 296, "val": 99, "test": 96}


# --- The official galleries ---


def read_permutations(root: Path, problems: Problems) -> dict[tuple[int, int], NDArray[np.int64]]:
    """(camera, identity): the cell rand_perm_cam{camera}{identity} of `PERMUTATIONS`, (trials, images) file numbers.

    Whole numbers that are stored as floats are cast. Problems: the file holds no such cells (nothing is returned), or a
    cell is no matrix of whole numbers (it is left out).
    """
    from scipy.io import loadmat

    name = PERMUTATIONS
    try:
        if not (root / name).is_file():
            raise FileNotFoundError("no such file")
        cameras = [camera.ravel() for camera in loadmat(root / name)["rand_perm_cam"].ravel()]
        if len(cameras) != len(CAMERAS):
            raise ValueError(f"{len(cameras)} of {len(CAMERAS)} cameras")
        for camera, cells in zip(CAMERAS, cameras, strict=True):
            if cells.dtype != object or not cells.size:
                raise ValueError(f"camera {camera} has no cells")
    except Exception as error:  # SciPy raises whatever the damaged bytes lead it to
        message = f"{root / name} cannot be read as SYSU-MM01's rand_perm_cam ({error!r}): restore it"
        problems.report("official galleries are damaged", name, message)
        return {}
    orders: dict[tuple[int, int], NDArray[np.int64]] = {}
    for camera, cells in zip(CAMERAS, cameras, strict=True):
        for pid, cell in enumerate(cells, start=1):
            order = _whole_numbers(cell)
            if order is None:
                message = (
                    f"{root / name}: camera {camera}, identity {pid}: no matrix of whole numbers: restore the file"
                )
                problems.report("official galleries are damaged", f"{name}: cam{camera}/{pid:04d}", message)
            else:
                orders[camera, pid] = order
    return orders


def _whole_numbers(cell: object) -> NDArray[np.int64] | None:
    import numpy as np

    if not (isinstance(cell, np.ndarray) and cell.ndim == 2 and cell.dtype.kind in "iuf"):
        return None
    with np.errstate(invalid="ignore"):
        numbers = cell.astype(np.int64)
    return numbers if np.array_equal(numbers, cell) else None


def _draw_officially(candidates: Candidates) -> list[Rows]:
    """The first `shots` file numbers of rand_perm_cam{camera}{identity}(trial, :), for every identity and camera."""
    if candidates.root is None:
        raise InputError(f"gallery=official reads {PERMUTATIONS}: the dataset's root is needed")
    path, shots = candidates.root / PERMUTATIONS, cast(int, candidates.shots)
    if not path.is_file():
        raise InputError(f"{path} is missing: copy it from SYSU-MM01, or take gallery=agw")
    orders = read_permutations(candidates.root, STRICT)
    folders = image_folders(candidates.images)
    draws: list[list[int]] = [[] for _ in range(TRIALS)]
    for camera, pid in product(candidates.cameras, candidates.pids):
        rows = {PurePosixPath(name).stem: row for name, row in folders.get((pid, camera), [])}
        order = orders.get((camera, pid))
        if not rows and (order is None or not order.size):
            continue
        trials, images = (0, 0) if order is None else order.shape
        if order is None or trials < TRIALS or images < shots:
            raise InputError(
                f"{path} has {trials} trials of {images} images for identity {pid} in camera {camera}: "
                f"{TRIALS} of {shots} are needed"
            )
        for trial, drawn in enumerate(draws):
            for number in order[trial, :shots]:
                name = f"{number:04d}"
                if name not in rows:
                    raise InputError(
                        f"cam{camera}/{pid:04d}/{name}.jpg, drawn by {path}, is not in the listing: restore it"
                    )
                drawn.append(rows[name])
    return [ascending(drawn) for drawn in draws]


OFFICIAL = Gallery(
    _draw_officially,
    trials=TRIALS,
    draws="1 or 10 images per identity and camera",
    how=(
        f"The gallery of trial t (t = 1..{TRIALS}) holds, of each identity in each camera, the images whose numbers "
        f"stand first in row t of that identity's permutation in {PERMUTATIONS}, which comes with the dataset. "
        "Nothing is drawn by this program."
    ),
    file=PERMUTATIONS,
)


# --- What bdlf.check must know ---


def _seat_of(parts: tuple[str, ...]) -> Seat | None:
    if len(parts) != 3 or not re.fullmatch(r"\d{4}", parts[1]):
        return None
    camera = int(parts[0].removeprefix("cam"))
    return Seat(int(parts[1]), _modality(camera), camera)


def _wrong_name(file: str, seat: Seat) -> tuple[str, str] | None:
    del seat  # the name of an image is only a number
    if re.fullmatch(r"\d{4}", PurePosixPath(file).stem):
        return None
    return "image name", "the name is not of 4 digits, as the official galleries need it: restore it"


def _judge_unlisted(root: Path, unlisted: Sequence[Seat], expected: int, problems: Problems) -> str | None:
    """Judges whole identities, because the split files name identities: the dataset has 22 in no split file."""
    strangers = Counter(seat.pid for seat in unlisted)
    if len(strangers) == expected:
        count = f"{expected} identities ({strangers.total():,} images) are in no split file"
        return f"{count}, as in the published dataset" if expected else None
    among = f"{len(strangers)} identities are in no split file, where the intact dataset has {expected}"
    for pid, number in sorted(strangers.items()):
        message = f"identity {pid} ({number} images) is in no exp/*_id.txt; {among}"
        problems.suspect("unlisted identity", f"cam*/{pid:04d}", f"{root}: {message}")
    if len(strangers) < expected:
        problems.suspect("too few unlisted identities", "cam1..cam6", f"{root}: {among}: nothing reads them")
    return None


def _check_permutations(
    root: Path, images: Sequence[str], tables: Mapping[int | None, pd.DataFrame], problems: Problems
) -> str | None:
    """Problems: the file of official galleries is damaged, or names images that are absent."""
    del images  # the listing has those that matter
    table, name = tables[None], PERMUTATIONS
    if not (root / name).is_file():
        return (
            f"{name} is absent, as in some copies: evaluation.gallery=official cannot be scored" if len(table) else None
        )
    named = read_permutations(root, problems)
    if not named:
        return None
    present: dict[tuple[int, int], set[str]] = defaultdict(set)
    for camera, pid, path in zip(table["camid"], table["pid"], table["path"], strict=True):
        present[camera, pid].add(PurePosixPath(path).stem)
    for camera, pid in product(CAMERAS, sorted(set(table["pid"]))):
        order, own = named.get((camera, pid)), present[camera, pid]
        trials, count = (0, 0) if order is None else order.shape
        folder = f"cam{camera}/{pid:04d}"
        if own and (trials < TRIALS or count == 0):
            message = f"{root / name} has {trials} of {TRIALS} trials for {folder}: restore it"
            problems.suspect("official galleries are damaged", f"{name}: {folder}", message)
        numbers: Iterable[int] = () if order is None else order.ravel()
        for number in sorted({f"{number:04d}" for number in numbers} - own):
            message = f"{root / folder}/{number}.jpg is named by {name} and is not there: extract the dataset again"
            problems.suspect("listed image is absent", f"{folder}/{number}.jpg", message)
    return None


def _hint(found: Evidence) -> str | None:
    both = found.want["train"] + found.want["val"]
    if found.have["train"] == both:
        return (
            f"train without val: exp/train_id.txt holds all {both} identities, those of validation too. Training on "
            "both is usual and is done here from the two files; restore exp/train_id.txt and exp/val_id.txt"
        )
    if found.kinds.get("exp/val_id.txt") is not None:
        return (
            "train without val: exp/val_id.txt is not there or cannot be read. Everyone trains on train + val "
            f"({both} identities), and only {found.want['train']} would be left; restore the file"
        )
    have, want = ((sizes["train"], sizes["val"]) for sizes in (found.have, found.want))
    if have == want[::-1] and have[0] != have[1]:
        return "wrong split files: exp/train_id.txt and exp/val_id.txt are swapped; exchange them"
    return None


# --- What bdlf.synthesize writes ---


def _plan(identities: int, images: int, random: np.random.Generator) -> Plan:
    """Validation identities are seen by cameras 3, 4 and 5, six in ten of the others by all six cameras."""
    split = random_splits(identities, {"train": 296 / 491, "val": 99 / 491, "test": 96 / 491}, random)
    pids = [1 + who + who // 11 for who in range(identities)]  # with gaps, as in the original

    def planned() -> Iterator[PlannedImage]:
        for who, pid in enumerate(pids):
            cameras = {5: "12456", 10: "3456"}.get(who % 12, "123456" if who % 5 < 3 else "345")
            for camera in map(int, "345" if split[who] == "val" else cameras):
                for k in range(images):
                    path = f"cam{camera}/{pid:04d}/{k + 1:04d}.jpg"
                    yield PlannedImage(who, pid, camera, _modality(camera), k, split[who], [path])

    table = image_table(planned())
    files: dict[str, str | bytes] = {}
    for part in ("train", "val", "test"):
        own = [pid for pid, other in zip(pids, split, strict=True) if other == part]
        files[f"exp/{part}_id.txt"] = comma_line(own)
    files[PERMUTATIONS] = _permutation_file(table, random)
    return Plan(table, files)


def _permutation_file(table: pd.DataFrame, random: np.random.Generator) -> bytes:
    """MATLAB cells as in the official file: camera -> identity number -> ten permutations of its images, from 1.

    The header is ours, because SciPy writes the time into it, and two equal trees would differ.
    """
    import numpy as np
    from scipy.io import savemat

    cameras = np.empty((len(CAMERAS), 1), object)
    for position, camera in enumerate(CAMERAS):
        seen = table.loc[table["camid"] == camera, "pid"]
        counts = np.bincount(seen)  # of identity 0 too, which nobody has
        cells = np.empty((len(counts) - 1, 1), object)
        for pid, count in enumerate(counts[1:], start=1):
            orders = np.stack([1 + random.permutation(count) for _ in range(TRIALS)])
            cells[pid - 1, 0] = orders.astype(np.uint8 if count < 256 else np.uint16)
        cameras[position, 0] = cells
    stream = io.BytesIO()
    savemat(stream, {"rand_perm_cam": cameras})
    return f"MATLAB 5.0 MAT-file, {GENERATOR}".encode().ljust(116) + stream.getvalue()[116:]


# --- The description ---

DATASET = Dataset(
    name="sysu",
    title="SYSU-MM01",
    paper="Wu et al., RGB-Infrared Cross-Modality Person Re-Identification, ICCV 2017",
    folder="SYSU-MM01",
    list_folders=("exp",),
    image_folders=FOLDERS,
    splits=("train", "val", "test"),
    read=read_sysu,
    published=Published("SYSU-MM01 as published", by_camera(_CAMERA_SIZES, _IDENTITIES), unlisted=22),
    protocol=Protocol(
        rule=Rule("sysu", ranks="identities", hidden_cameras=((3, 2),), reason="the two stand in the same room"),
        galleries={"agw": AGW, "official": OFFICIAL},
        directions=("ir_to_vis",),
        modes={"all": (1, 2, 4, 5), "indoor": (1, 2)},
        shots=(1, 10),
        # 301 folders of all cameras and 112 of the indoor ones hold images of a test identity.
        sizes={
            "ir_to_vis all 1-shot agw": (3803, 301),
            "ir_to_vis indoor 1-shot agw": (3803, 112),
            "ir_to_vis all 1-shot official": (3803, 301),
            "ir_to_vis indoor 1-shot official": (3803, 112),
            "ir_to_vis all 10-shot official": (3803, 3010),
            "ir_to_vis indoor 10-shot official": (3803, 1120),
        },
        remark=(
            "Indoors, only 2,208 of the 3,803 queries have a match; the other 1,595 are in no figure. Everyone trains "
            "on the identities of train and val together, 395 of them."
        ),
        source="Wu et al., ICCV 2017, and the official evaluation code; gallery=agw: Ye et al., TPAMI 2022 (AGW)",
    ),
    checks=Checks(
        marks=FOLDERS,
        seat_of=_seat_of,
        wrong_name=_wrong_name,
        unlisted=_judge_unlisted,
        further=_check_permutations,
        hint=_hint,
    ),
    layout=Layout(_plan, FOLDERS),
    timed=TimedTrial(3803, 301, 96, (3, 6), (1, 2, 4, 5)),
)
