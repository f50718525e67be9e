"""Writes the synthetic pedestrians as image files in the layout of SYSU-MM01, RegDB or LLCM.

Folders, file names, index files and what is odd about them follow the originals (numbers with gaps, cameras that never
saw a person, LLCM's test images lying in two places), so any reader of the real set reads the tree.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import savemat

from bdlf.data.synthetic.drawing import render
from bdlf.data.synthetic.factors import IDENTITY_LIMIT, factor_columns
from bdlf.datasets.sysu import PERMUTATIONS
from bdlf.system.errors import InputError

LAYOUTS = ("sysu", "regdb", "llcm")
RECORD = "synthetic.json"
"""At the root of every tree written here, and of no other."""
GENERATOR = "bdlf synthetic pedestrians"
SCHEMA = 2
JPEG_QUALITY = 95
REGDB_SPLITS = 10
SYSU_TRIALS = 10
_SYSU_INFRARED, _LLCM_NO_INFRARED = (3, 6), 3
_FOLDERS = {
    "sysu": [f"cam{camera}" for camera in range(1, 7)],
    "regdb": ["Visible", "Thermal"],
    "llcm": [f"test_{word}/cam{c}" for word in ("vis", "nir") for c in range(1, 10) if (word, c) != ("nir", 3)],
}
_CHUNK = 256  # images rendered before they are written

_Files = dict[str, str]
"""Text file's path -> its content."""
_Row = tuple[int, int, int, str, int, str, list[str]]


def write_layout(
    layout: str,
    root: str | Path,
    *,
    seed: int = 0,
    identities: int = 60,
    images: int = 10,
    height: int = 128,
    width: int = 64,
) -> dict[str, object]:
    """Writes a tree that looks like the real set `layout` ('sysu', 'regdb' or 'llcm') and returns its record.

    `images` counts per identity and camera that sees it. The record is also left as `synthetic.json`: schema,
    generator, layout, seed, images, height, width, and per split `identities`, `counts` (images of each modality) and
    `cameras` (identities and images by modality and camera); RegDB's splits are the halves of any of its ten. Each
    layout draws identities of its own, which are in no other layout and not in `synthetic_listing`. A person's factors
    depend on the seed and their rank alone.

    The tree is written beside `root` and renamed, so `root` never holds half of one. A tree written here before is
    replaced. Raises `InputError` for an unknown layout, an impossible size, or a root that holds anything else.
    """
    planners = {"sysu": _plan_sysu, "regdb": _plan_regdb, "llcm": _plan_llcm}
    if layout not in planners:
        raise InputError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if seed < 0:
        raise InputError(f"seed {seed}: give a number from 0")
    if not 4 <= identities <= IDENTITY_LIMIT:
        raise InputError(f"identities={identities}: give a number from 4 to {IDENTITY_LIMIT}")
    if not 1 <= images <= 999:
        raise InputError(f"images={images}: give a number from 1 to 999")
    target = Path(root).resolve()
    replaces = _check_root(target)

    random = np.random.default_rng((seed, LAYOUTS.index(layout)))
    plan, files = planners[layout](identities, images, random)
    record = _record(plan, layout=layout, seed=seed, images=images, height=height, width=width)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        for folder in _FOLDERS[layout]:  # every camera has one, also where it saw nobody
            (partial / folder).mkdir(parents=True)
        _write_images(partial, plan, layout, seed, height, width)
        for name, text in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(text, encoding="utf-8", newline="\n")
        if layout == "sysu":
            (partial / PERMUTATIONS).write_bytes(_mat_file({"rand_perm_cam": _permutations(plan, random)}))
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if replaces:
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return record


def _check_root(target: Path) -> bool:
    """True where `target` is a tree of ours, False where it is absent or empty; else `InputError`."""
    if not target.exists():
        return False
    if not target.is_dir():
        raise InputError(f"{target} is a file: name a folder to write to")
    if not any(target.iterdir()):
        return False
    try:
        ours = json.loads((target / RECORD).read_text(encoding="utf-8"))["generator"] == GENERATOR
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise InputError(f"{target} is not empty and holds no synthetic tree of ours: name an empty or new folder")
    return True


def _record(plan: pd.DataFrame, **options: object) -> dict[str, object]:
    sizes: dict[str, int] = {}
    counts: dict[str, dict[str, int]] = {}
    cameras: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for split in ("train", "val", "test"):
        part = plan[plan["split"] == split]
        if part.empty:
            continue
        sizes[split] = int(part["pid"].nunique())
        counts[split] = {kind: int((part["modality"] == kind).sum()) for kind in ("vis", "ir")}
        cameras[split] = {"vis": {}, "ir": {}}
        for (kind, camera), own in part.groupby(["modality", "camid"]):
            cameras[split][kind][str(camera)] = {"identities": int(own["pid"].nunique()), "images": len(own)}
    sizes_and_counts = {"identities": sizes, "counts": counts, "cameras": cameras}
    return {"schema": SCHEMA, "generator": GENERATOR, **options, **sizes_and_counts}


def _write_images(root: Path, plan: pd.DataFrame, layout: str, seed: int, height: int, width: int) -> None:
    for start in range(0, len(plan), _CHUNK):
        chunk = plan.iloc[start : start + _CHUNK].reset_index(drop=True)
        keys = {name: chunk[name].to_numpy() for name in ("identity", "modality", "camid", "image")}
        factors = factor_columns(seed=seed, pool=layout, **keys)
        factors["modality"] = chunk["modality"]
        for pixels, paths in zip(render(factors, height, width), chunk["paths"], strict=True):
            first = root / paths[0]
            first.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(first, quality=JPEG_QUALITY)  # means nothing to a .bmp
            for path in paths[1:]:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(first, root / path)


def _plan(rows: Iterator[_Row]) -> pd.DataFrame:
    """One row per image; `paths` are the files that hold it, `identity` the rank in the layout's own supply."""
    plan: pd.DataFrame = pd.DataFrame(rows, columns=["identity", "pid", "camid", "modality", "image", "split", "paths"])
    return plan


def _split_of(identities: int, shares: dict[str, float], random: np.random.Generator) -> list[str]:
    """A random split for each identity, at least one identity each; the last split takes what is left."""
    order, result, start = random.permutation(identities), [""] * identities, 0
    for k, (split, share) in enumerate(shares.items()):
        left = len(shares) - 1 - k
        size = min(max(1, round(share * identities)), identities - start - left) if left else identities - start
        for who in order[start : start + size]:
            result[who] = split
        start += size
    return result


def _plan_sysu(identities: int, images: int, random: np.random.Generator) -> tuple[pd.DataFrame, _Files]:
    """Cameras 1, 2, 4, 5 visible, 3, 6 infrared; validation identities by 3, 4, 5, six in ten others by all."""
    split = _split_of(identities, {"train": 296 / 491, "val": 99 / 491, "test": 96 / 491}, random)
    pids = [1 + who + who // 11 for who in range(identities)]  # with gaps, as in the original

    def rows() -> Iterator[_Row]:
        for who, pid in enumerate(pids):
            cameras = {5: "12456", 10: "3456"}.get(who % 12, "123456" if who % 5 < 3 else "345")
            for camera in map(int, "345" if split[who] == "val" else cameras):
                kind = "ir" if camera in _SYSU_INFRARED else "vis"
                for k in range(images):
                    yield who, pid, camera, kind, k, split[who], [f"cam{camera}/{pid:04d}/{k + 1:04d}.jpg"]

    files = {}
    for part in ("train", "val", "test"):
        own = [pid for pid, other in zip(pids, split, strict=True) if other == part]
        files[f"exp/{part}_id.txt"] = _comma_line(own)
    return _plan(rows()), files


def _mat_file(variables: dict[str, np.ndarray]) -> bytes:
    """A MATLAB 5 file whose header is ours: SciPy puts the time into it, and equal trees would differ."""
    stream = io.BytesIO()
    savemat(stream, variables)
    return f"MATLAB 5.0 MAT-file, {GENERATOR}".encode().ljust(116) + stream.getvalue()[116:]


def _permutations(plan: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """MATLAB cells as in the official file: camera -> identity number -> ten permutations of its images, from 1."""
    cameras = np.empty((6, 1), object)
    for camera in range(1, 7):
        seen = plan.loc[plan["camid"] == camera, "pid"]
        counts = np.bincount(seen)  # of identity 0 too, which nobody has
        cells = np.empty((len(counts) - 1, 1), object)
        for pid, count in enumerate(counts[1:], start=1):
            orders = np.stack([1 + random.permutation(count) for _ in range(SYSU_TRIALS)])
            cells[pid - 1, 0] = orders.astype(np.uint8 if count < 256 else np.uint16)
        cameras[camera - 1, 0] = cells
    return cameras


def _plan_regdb(identities: int, images: int, random: np.random.Generator) -> tuple[pd.DataFrame, _Files]:
    """One camera a modality; ten random halvings of the identities, labelled from 0 in the order drawn.

    The words male, female, front and back in the names follow the original's pattern and mean nothing here.
    """
    genders = random.choice(["male", "female"], identities)
    folders = {"vis": ("Visible", "v", 1), "ir": ("Thermal", "t", 2)}

    def rows() -> Iterator[_Row]:
        frame = 0
        for who in range(identities):
            # Which half a person is in differs between the ten splits: this one serves for counting only.
            split = "train" if who < identities // 2 else "test"
            for kind, (folder, letter, camera) in folders.items():
                for k in range(images):
                    frame += 1
                    facing = "front" if k < images // 2 else "back"
                    name = f"{folder}/{who + 1}/{genders[who]}_{facing}_{letter}_{frame:05d}_{who + 1}.bmp"
                    yield who, who + 1, camera, kind, k, split, [name]

    plan = _plan(rows())
    paths = {key: [own[0] for own in part["paths"]] for key, part in plan.groupby(["pid", "modality"])}
    files = {}
    drawn: set[tuple[int, ...]] = set()
    for trial in range(1, REGDB_SPLITS + 1):
        order = 1 + random.permutation(identities)
        while tuple(order) in drawn:  # of four identities there are 24 orders only
            order = 1 + random.permutation(identities)
        drawn.add(tuple(order))
        halves = {"train": order[: identities // 2], "test": order[identities // 2 :]}
        for half, pids in halves.items():
            for kind, word in (("vis", "visible"), ("ir", "thermal")):
                lines = [f"{path} {label}" for label, pid in enumerate(pids) for path in paths[pid, kind]]
                files[f"idx/{half}_{word}_{trial}.txt"] = "\n".join(lines) + "\n"
    return plan, files


def _plan_llcm(identities: int, images: int, random: np.random.Generator) -> tuple[pd.DataFrame, _Files]:
    """Nine cameras, each visible and (but for camera 3) near infrared; three to five of them see a person."""
    split = _split_of(identities, {"train": 713 / 1064, "test": 351 / 1064}, random)

    def rows() -> Iterator[_Row]:
        for who in range(identities):
            pid, seen = who + 1, sorted(1 + random.permutation(9)[: random.integers(3, 6)])
            for camera in seen:
                scene = int(random.integers(170000, 220000))
                for kind, word in (("vis", "vis"), ("ir", "nir")):
                    if kind == "ir" and camera == _LLCM_NO_INFRARED:
                        continue
                    for k in range(images):
                        name = f"{pid:04d}_c{camera:02d}_s{scene}_f{15 * (k + 1)}_{word}.jpg"
                        paths = [f"{word}/{pid:04d}/{name}"]
                        if split[who] == "test":
                            paths.append(f"test_{word}/cam{camera}/{pid:04d}/{name}")
                        yield who, pid, camera, kind, k, split[who], paths

    plan = _plan(rows())
    files = {}
    for part, own in plan.groupby("split"):
        labels = {pid: label for label, pid in enumerate(sorted(own["pid"].unique()))}
        for kind, word in (("vis", "vis"), ("ir", "nir")):
            some = own[own["modality"] == kind]
            lines = [f"{paths[0]} {labels[pid]}" for paths, pid in zip(some["paths"], some["pid"], strict=True)]
            files[f"idx/{part}_{word}.txt"] = "\n".join(lines) + "\n"
    files["idx/test_id.txt"] = _comma_line(sorted(plan.loc[plan["split"] == "test", "pid"].unique().tolist()))
    return plan, files


def _comma_line(numbers: list[int]) -> str:
    return ",".join(str(number) for number in numbers) + "\n"
