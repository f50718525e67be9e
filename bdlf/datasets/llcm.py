"""LLCM (Zhang and Wang, CVPR 2023): `vis/` and `nir/` to train, `test_vis/` and `test_nir/` to test, lists in `idx/`.

Nine cameras take visible images, and all of them but camera 3 take near infrared images too.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bdlf.datasets.description import (
    Checks,
    Contents,
    Dataset,
    Evidence,
    Layout,
    Place,
    Plan,
    Published,
    Row,
    Seat,
    Size,
    TimedTrial,
    out_of_place,
)
from bdlf.datasets.galleries import AGW
from bdlf.datasets.planning import PlannedImage, comma_line, image_table, random_splits
from bdlf.datasets.problems import Problems
from bdlf.datasets.protocol import Protocol, Rule
from bdlf.datasets.tree import (
    read_identities,
    read_index,
    require_folders,
    require_images,
    require_one_label_each,
    scan,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

WORDS = {"vis": ("vis", range(1, 10)), "nir": ("ir", (1, 2, 4, 5, 6, 7, 8, 9))}
"""Word in the names of folders and images: modality, cameras."""
TEST_FOLDERS = tuple(f"test_{word}/cam{camera}" for word, (_, cameras) in WORDS.items() for camera in cameras)
NAME = re.compile(r"([0-9]{1,9})_c([0-9]{1,9})_(?:.*_(vis|nir)\.)?")
"""The start of an image's name: identity, camera, and the modality where it is named."""


# --- The images on disk ---


def read_llcm(root: Path, splits: Sequence[str], number: int, problems: Problems) -> Contents:
    """Reads the `splits` out of 'train' (`idx/train_{vis,nir}.txt`) and 'test' (`idx/test_id.txt`).

    The pid is the number of the identity's folder in both halves. A training image's camera is in its name
    (`0001_c05_s183725_f15302_vis.jpg`); a test image is taken from `test_{vis,nir}/cam<camera>/<identity>/`, where the
    published protocol looks for it, not from its copy in `vis/` or `nir/`.
    """
    del number  # there is one split only
    folders = ["idx", *(WORDS if "train" in splits else ()), *(TEST_FOLDERS if "test" in splits else ())]
    found = Contents({split: [] for split in splits}, [])
    if "idx" in require_folders(root, folders, problems):
        return found
    for split in splits:
        found.rows[split], strays = (_read_train if split == "train" else _read_test)(root, problems)
        found.passed_over.extend(strays)
    return found


def _read_train(root: Path, problems: Problems) -> tuple[list[Row], list[str]]:
    lines, rows = [], []
    for word, (modality, _) in WORDS.items():
        listed = read_index(root, f"idx/train_{word}.txt", word, problems)
        for line in listed:
            name = NAME.match(PurePosixPath(line.path).name)
            if name is None:
                message = f"no camera in the name {line.path}: names are <identity>_c<camera>_..., restore them"
                problems.report("image name", line.where, f"{root / line.where}: {message}")
                continue
            rows.append(Row(line.path, line.pid, int(name[2]), modality))
        lines += listed
    require_one_label_each(root, lines, problems)
    present, strays = require_images(root, lines, problems)
    return [row for row in rows if row.path in present], strays


def _read_test(root: Path, problems: Problems) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    passed_over: list[str] = []
    name = "idx/test_id.txt"
    for pid in read_identities(root, name, problems):
        before = len(rows)
        for word, (modality, cameras) in WORDS.items():
            for camera in cameras:
                images, strays = scan(root, f"test_{word}/cam{camera}/{pid:04d}", problems)
                rows += [Row(path, pid, camera, modality) for path in images]
                passed_over += strays
        if len(rows) == before:
            message = f"identity {pid} has no image in test_vis/ and test_nir/: extract the dataset again"
            problems.report("identity without any image", f"{name}: identity {pid}", f"{root / name}: {message}")
    return rows, passed_over


# As released: 46,767 images of 1,064 identities. Nothing is published for each camera.
_SIZES: dict[Place, Size] = {
    ("train", None, None): Size(713, 30921),
    ("train", "vis", None): Size(None, 16946),
    ("train", "ir", None): Size(None, 13975),
    ("test", None, None): Size(351, 15846),
    ("test", "vis", None): Size(None, 8680),
    ("test", "ir", None): Size(None, 7166),
}


# --- What bdlf.check must know ---


def _seat_of(parts: tuple[str, ...]) -> Seat | None:
    modality, cameras = WORDS[parts[0].removeprefix("test_")]
    if not parts[0].startswith("test_"):
        in_folder_of_one = len(parts) == 3 and re.fullmatch(r"\d{4}", parts[1])
        return Seat(int(parts[1]), modality, None) if in_folder_of_one else None
    camera = re.fullmatch(r"cam(\d+)/\d{4}", "/".join(parts[1:-1]))
    return Seat(int(parts[2]), modality, int(camera[1])) if camera and int(camera[1]) in cameras else None


def _wrong_name(file: str, seat: Seat) -> tuple[str, str] | None:
    said = NAME.match(file)
    if said is None:
        return None
    if int(said[1]) != seat.pid:
        return out_of_place(f"identity {said[1]}")
    if seat.camera is not None and int(said[2]) != seat.camera:
        return out_of_place(f"camera {int(said[2])}")
    return out_of_place(said[3]) if said[3] and WORDS[said[3]][0] != seat.modality else None


def _is_original_of_a_test_image(seat: Seat, tested: set[int]) -> bool:
    """`vis/` and `nir/` hold the test images too, which are read from `test_vis/` and `test_nir/`."""
    return seat.camera is None and seat.pid in tested


def _check_test_copies(
    root: Path, images: Sequence[str], tables: Mapping[int | None, pd.DataFrame], problems: Problems
) -> None:
    """A problem where `test_vis/` or `test_nir/` lacks images of a person that `vis/` or `nir/` has."""
    table = tables[None]
    tested = set(table["pid"][table["split"] == "test"])
    originals: dict[str, list[str]] = defaultdict(list)
    copies: Counter[str] = Counter()
    for path in images:
        parts = PurePosixPath(path).parts
        if parts[0] in WORDS and (said := NAME.match(parts[-1])) and int(said[1]) in tested:
            originals[f"test_{parts[0]}/cam{int(said[2])}/{parts[1]}"].append(path)
        else:
            copies[path.rpartition("/")[0]] += 1
    for folder, paths in sorted(originals.items()):
        if len(paths) > copies[folder]:
            counts = (
                f"{copies[folder]} of the {len(paths)} images that {PurePosixPath(paths[0]).parent} has of this camera"
            )
            problems.suspect(
                "test copy is absent", folder, f"{root / folder} holds {counts}: extract the dataset again"
            )


def _hint(found: Evidence) -> str | None:
    missing = [path for path, kind in found.kinds.items() if kind == "missing folder" and path.startswith("test_")]
    if not missing:
        return None
    return (
        f"LLCM without its test folders: {len(missing)} of 17 folders test_vis/cam* and test_nir/cam* are missing. "
        "They hold the query and gallery images and come in the same archive; extract it again"
    )


# --- What bdlf.synthesize writes ---


def _plan(identities: int, images: int, random: np.random.Generator) -> Plan:
    """Three to five cameras see a person. Each test image lies in two places, as in the original."""
    split = random_splits(identities, {"train": 713 / 1064, "test": 351 / 1064}, random)

    def planned() -> Iterator[PlannedImage]:
        for who in range(identities):
            pid, seen = who + 1, sorted(1 + random.permutation(9)[: random.integers(3, 6)])
            for camera in seen:
                scene = int(random.integers(170000, 220000))
                for word, (modality, cameras) in WORDS.items():
                    for k in range(images if camera in cameras else 0):
                        name = f"{pid:04d}_c{camera:02d}_s{scene}_f{15 * (k + 1)}_{word}.jpg"
                        paths = [f"{word}/{pid:04d}/{name}"]
                        if split[who] == "test":
                            paths.append(f"test_{word}/cam{camera}/{pid:04d}/{name}")
                        yield PlannedImage(who, pid, camera, modality, k, split[who], paths)

    table = image_table(planned())
    files: dict[str, str | bytes] = {}
    for part, own in table.groupby("split"):
        labels = {pid: label for label, pid in enumerate(sorted(own["pid"].unique()))}
        for word, (modality, _) in WORDS.items():
            some = own[own["modality"] == modality]
            lines = [f"{paths[0]} {labels[pid]}" for paths, pid in zip(some["paths"], some["pid"], strict=True)]
            files[f"idx/{part}_{word}.txt"] = "\n".join(lines) + "\n"
    files["idx/test_id.txt"] = comma_line(sorted(table.loc[table["split"] == "test", "pid"].unique().tolist()))
    return Plan(table, files)


# --- The description ---

DATASET = Dataset(
    name="llcm",
    title="LLCM",
    paper="Zhang and Wang, Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for "
    "Visible-Infrared Person Re-identification, CVPR 2023",
    folder="LLCM",
    list_folders=("idx",),
    image_folders=("vis", "nir", "test_vis", "test_nir"),
    read=read_llcm,
    published=Published("LLCM as published", _SIZES),
    protocol=Protocol(
        rule=Rule(
            "llcm",
            ranks="identities",
            hides_own_camera=True,
            reason="a match must come from another camera",
        ),
        galleries={"agw": AGW},
        shots=(1,),
        readings={
            "paper": (
                "in both directions, all images of the queries' modality are queries, as the dataset's paper says."
            ),
            "released": (
                "as in the dataset's public code since June 2023, which turns vis_to_ir around: there the drawn "
                "infrared images are the queries, and all visible images are the gallery. ir_to_vis is as in the "
                "reading `paper`."
            ),
        },
        drawn_queries=(("released", "vis_to_ir"),),
        sizes={"ir_to_vis 1-shot agw paper": (7166, None), "vis_to_ir 1-shot agw paper": (8680, None)},
        source="Zhang and Wang, CVPR 2023, and the public code of DEEN",
    ),
    checks=Checks(
        marks=("vis", "nir", "idx"),
        seat_of=_seat_of,
        wrong_name=_wrong_name,
        may_be_unlisted=_is_original_of_a_test_image,
        further=_check_test_copies,
        hint=_hint,
    ),
    layout=Layout(_plan, TEST_FOLDERS),
    timed=TimedTrial(7166, 1289, 351, (1, 2, 3), (4, 5, 6)),
)
