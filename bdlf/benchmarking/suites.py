"""Input, evaluation and start-up. Each suite yields what it has measured as it goes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from bdlf import build
from bdlf.benchmarking.measure import Measurement, measure
from bdlf.benchmarking.step import training
from bdlf.config import BenchmarkConfig
from bdlf.data import listing
from bdlf.data.augment import Augmentation, normalize
from bdlf.data.images import Images
from bdlf.data.store import open_store
from bdlf.evaluation import extract
from bdlf.evaluation.metrics import retrieval_metrics

_STORED = 512
SCORED = {
    "sysu": (3803, 301, 96, (3, 6), (1, 2, 4, 5)),
    "llcm": (7166, 1289, 351, (1, 2, 3), (4, 5, 6)),
    "regdb": (2060, 2060, 206, (1,), (2,)),
}
"""Of one trial: queries, gallery images, identities, cameras of either side."""
_SYSU_IDENTITIES, _SYSU_IMAGES = 491, 34167  # roughly as many files as SYSU-MM01 has
_SYSU_CAMERAS = {1: "vis", 2: "vis", 3: "ir", 4: "vis", 5: "vis", 6: "ir"}


def input_suite(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """From the uint8 store to the augmented, normalised batch on the device; all of the recipe's augmentation is on.

    Then the first of that alone, the images as stored on the device, from each place where `data.cache` lets them lie.
    """
    sizes = [(config.batch, config.height, config.width)]
    sizes += [(config.batch // 2, *sizes[0][1:]), (2 * config.batch, *sizes[0][1:]), (config.batch, 256, 128)]
    random = np.random.default_rng(0)
    for batch, height, width in sizes if config.growth else sizes[:1]:
        with _mapped(random, _STORED, height, width) as store:
            work = partial(_batch, Images(store, device), batch, Augmentation(), random, [None])
            what = f"batch of {batch}, {height} x {width}"
            yield measure("input", what, work, repeats=10 * config.repeats, device=device, items=batch)
    with _mapped(random, _STORED, config.height, config.width) as store:
        for cache in ("device", "host", "disk") if device.type == "cuda" else ("host", "disk"):
            take = partial(_taken, Images(store, device, cache), config.batch, random)
            what = f"batch of {config.batch} from data.cache={cache}, not augmented"
            yield measure("input", what, take, repeats=10 * config.repeats, device=device, items=config.batch)


@contextmanager
def _mapped(random: np.random.Generator, images: int, height: int, width: int) -> Iterator[np.ndarray]:
    """A store of random images in a file that has just been written."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/store.npy", random.integers(0, 256, (images, height, width, 3), dtype=np.uint8))
        yield np.load(f"{folder}/store.npy", mmap_mode="r")


def _taken(images: Images, batch: int, random: np.random.Generator) -> torch.Tensor:
    return images.take(random.integers(len(images), size=batch))


def _batch(
    images: Images,
    batch: int,
    augmentation: Augmentation,
    random: np.random.Generator,
    memory: list[torch.Tensor | None],
) -> None:
    taken = _taken(images, batch, random)
    generator = torch.Generator().manual_seed(int(random.integers(1 << 30)))
    memory[0] = augmentation(taken, batch // 2, generator, out=memory[0])


def evaluation_suite(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """Features of images; figures of one trial from its similarities, at the published sizes and twice the gallery."""
    yield from _embedding(config, device)
    random = np.random.default_rng(0)
    for protocol, (queries, images, identities, query_cameras, gallery_cameras) in SCORED.items():
        for times in (1, 2) if config.growth else (1,):
            similarity = random.standard_normal((queries, times * images), dtype=np.float32)
            pids: list[Any] = [random.integers(identities, size=n) for n in similarity.shape]
            cameras: list[Any] = [
                random.choice(some, n)
                for some, n in zip((query_cameras, gallery_cameras), similarity.shape, strict=True)
            ]

            work = partial(retrieval_metrics, similarity, *pids, *cameras, protocol=protocol)
            what = f"{protocol} trial, {queries:,} x {times * images:,}"
            yield measure("evaluation", what, work, repeats=config.repeats, device=device, items=queries)


def _embedding(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """`extract` of two batches, each image and its mirror image, and the network alone on as many."""
    full = training(config)
    network = build.build_model(full, 1, build.build_objective(full), weights="none").to(device).eval()
    random = np.random.default_rng(0)
    rows = np.arange(2 * config.batch)
    with _mapped(random, len(rows), config.height, config.width) as store:
        images = Images(store, device)
        views = normalize(images.take(rows[: config.batch]))

        @torch.inference_mode()
        def forward() -> None:
            for _ in range(4):
                network.embed(views)

        what = f"ResNet-50, {2 * len(rows)} views of {len(rows)} images"
        bare = measure("evaluation", what, forward, repeats=config.repeats, device=device, items=len(rows))
        yield bare
        work = partial(extract, network.embed, images, rows, batch_size=config.batch)
        what = f"features of {len(rows)} images, flip-averaged"
        found = measure("evaluation", what, work, repeats=config.repeats, device=device, items=len(rows))
    note = f"{bare.milliseconds / found.milliseconds:.0%} of the bare forward's rate"
    yield dataclasses.replace(found, note=note)


def startup_suite(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """What a run does before its first step, with a warm cache, for as many files as SYSU-MM01 has."""
    del device
    cpu = torch.device("cpu")

    def imports() -> None:
        subprocess.run(
            [sys.executable, "-c", "from bdlf.system.memory import load; load('bdlf.training.scoring')"], check=True
        )

    yield measure("startup", "imports, in a new process", imports, repeats=config.repeats, device=cpu)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "SYSU-MM01"
        _write_files(root)
        tables: list[pd.DataFrame] = []

        def read() -> None:
            tables[:] = [listing("sysu", root)]

        yield measure("startup", f"listing of {_SYSU_IMAGES:,} files", read, repeats=config.repeats, device=cpu)

        def store() -> None:  # its size plays no part: it is mapped, not read
            open_store(tables[0], root, 2, 2, cache_dir=Path(folder) / "cache")

        yield measure("startup", "warm image cache of them", store, repeats=config.repeats, device=cpu)


def _write_files(root: Path) -> None:
    pixels = BytesIO()
    Image.new("RGB", (2, 2)).save(pixels, "bmp")
    (root / "exp").mkdir(parents=True)
    split = {"train": range(1, 297), "val": range(297, 396), "test": range(396, _SYSU_IDENTITIES + 1)}
    for name, identities in split.items():
        (root / "exp" / f"{name}_id.txt").write_text(",".join(map(str, identities)))
    places = [(camera, pid) for pid in range(1, _SYSU_IDENTITIES + 1) for camera in _SYSU_CAMERAS]
    for number in range(_SYSU_IMAGES):
        camera, pid = places[number % len(places)]
        folder = root / f"cam{camera}" / f"{pid:04d}"
        if number < len(places):
            folder.mkdir(parents=True)
        (folder / f"{number // len(places) + 1:04d}.bmp").write_bytes(pixels.getvalue())
