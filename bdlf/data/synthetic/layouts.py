"""Writes the synthetic pedestrians as image files in the layout of a real dataset.

Folders, file names and lists follow the originals with all that is odd about them (numbers with gaps, cameras that
never saw a person, LLCM's test images in two places), so that any reader of the real dataset reads the tree. What goes
where is planned by the dataset's own file in `bdlf.datasets`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from bdlf.data.synthetic.drawing import render, render_silhouettes
from bdlf.data.synthetic.factors import IDENTITY_LIMIT, factor_columns
from bdlf.datasets import DATASETS
from bdlf.datasets.record import GENERATOR, RECORD, SCHEMA
from bdlf.system.errors import InputError

LAYOUTS = tuple(name for name, dataset in DATASETS.items() if dataset.layout is not None)
JPEG_QUALITY = 95
_CHUNK = 256  # images rendered before they are written


def write_layout(
    layout: str,
    root: str | Path,
    *,
    seed: int = 0,
    identities: int = 60,
    images: int = 10,
    height: int = 128,
    width: int = 64,
    silhouettes: str | Path | None = None,
) -> dict[str, object]:
    """Writes a tree that looks like the real dataset `layout`, one of `LAYOUTS`, and returns its record.

    `images` counts per identity and camera that sees it. The record is also left as `synthetic.json`: schema,
    generator, layout, seed, images, height, width, and per split `identities`, `counts` (images of each modality) and
    `cameras` (identities and images by modality and camera); RegDB's splits are the halves of any of its ten. Each
    layout draws identities of its own, which are in no other layout and not in `synthetic_listing`. A person's factors
    depend on the seed and their rank alone.

    `silhouettes`, if given, is a second folder. It gets the body-shape map of every image, under the path that the
    image has below `root`, and the record; see `render_silhouettes`.

    A tree is written beside its folder and renamed, so the folder never holds half of one. A tree written here before
    is replaced. Raises `InputError` for an unknown layout, an impossible size, a folder that holds anything else, or
    two folders of which one lies in the other.
    """
    planned = None if layout not in DATASETS else DATASETS[layout].layout
    if planned is None:
        raise InputError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if seed < 0:
        raise InputError(f"seed {seed}: give a number from 0")
    if not 4 <= identities <= IDENTITY_LIMIT:
        raise InputError(f"identities={identities}: give a number from 4 to {IDENTITY_LIMIT}")
    if not 1 <= images <= 999:
        raise InputError(f"images={images}: give a number from 1 to 999")
    drawn = {Path(root).resolve(): render}
    if silhouettes is not None:
        drawn[_apart(root, silhouettes)] = render_silhouettes
    for target in drawn:
        _check_root(target)

    random = np.random.default_rng((seed, LAYOUTS.index(layout)))
    plan = planned.plan(identities, images, random)
    record = _record(plan.images, layout=layout, seed=seed, images=images, height=height, width=width)
    for target, draw in drawn.items():
        with _new_tree(target) as folder:
            for name in planned.folders:  # every camera has one, also where it saw nobody
                (folder / name).mkdir(parents=True)
            _write_images(folder, plan.images, layout, seed, height, width, draw)
            if draw is render:
                for name, content in plan.files.items():
                    (folder / name).parent.mkdir(exist_ok=True)
                    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
            (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def _apart(root: str | Path, silhouettes: str | Path) -> Path:
    """The folder of the silhouettes, resolved. Refuses one that lies in `root` or holds it."""
    images, maps = Path(root).resolve(), Path(silhouettes).resolve()
    if images.is_relative_to(maps) or maps.is_relative_to(images):
        raise InputError(f"root={root} and silhouettes={silhouettes}: name two folders, neither of them in the other")
    return maps


@contextmanager
def _new_tree(target: Path) -> Iterator[Path]:
    """Gives a folder beside `target` to write in. It takes the place of `target` after the block, unless that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        if _check_root(target):
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


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


def _write_images(
    root: Path,
    plan: pd.DataFrame,
    layout: str,
    seed: int,
    height: int,
    width: int,
    draw: Callable[[pd.DataFrame, int, int], UInt8[ndarray, "n h w 3"]],
) -> None:
    for start in range(0, len(plan), _CHUNK):
        chunk = plan.iloc[start : start + _CHUNK].reset_index(drop=True)
        keys = {name: chunk[name].to_numpy() for name in ("identity", "modality", "camid", "image")}
        factors = factor_columns(seed=seed, pool=layout, **keys)
        factors["modality"] = chunk["modality"]
        for pixels, paths in zip(draw(factors, height, width), chunk["paths"], strict=True):
            first = root / paths[0]
            first.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(first, quality=JPEG_QUALITY)  # means nothing to a .bmp
            for path in paths[1:]:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(first, root / path)
