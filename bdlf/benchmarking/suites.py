"""The suites of the input, of evaluation and of start-up. Each yields a measurement as soon as it has it."""

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

from bdlf.assembly import build_objective
from bdlf.benchmarking.measure import Measurement, measure
from bdlf.benchmarking.step import training
from bdlf.config import BenchmarkConfig
from bdlf.data import listing
from bdlf.data.augment import Augmentation, normalize
from bdlf.data.images import Images
from bdlf.data.store import open_store
from bdlf.datasets import DATASETS, sysu
from bdlf.evaluation import extract
from bdlf.evaluation.metrics import retrieval_metrics
from bdlf.methods import build_network

_STORED = 512
_SYSU_IDENTITIES, _SYSU_IMAGES = 491, 34167  # roughly as many files as SYSU-MM01 has
_SYSU_CAMERAS = {1: "vis", 2: "vis", 3: "ir", 4: "vis", 5: "vis", 6: "ir"}


def input_suite(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """Measures how fast batches are made for the network.

    First the whole way from the uint8 store to the augmented and normalised batch on the device, with every
    augmentation on. Then only the fetching of the images, once for each place where `data.cache` can keep them.
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
    """Yields a store of random images, uint8 (images, height, width, 3), mapped from a temporary file."""
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
    recolour = (torch.arange(batch) < batch // 2).long()  # the first half exchanges channels
    memory[0] = augmentation(taken, recolour, generator, out=memory[0])


def evaluation_suite(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """Measures the extraction of features, and the computing of the figures of one trial from its similarities.

    The trials have the sizes that are usual for each dataset. With `config.growth` they are also measured with twice as
    many gallery images.
    """
    yield from _embedding(config, device)
    random = np.random.default_rng(0)
    timed = {dataset.name: dataset.timed for dataset in DATASETS.values() if dataset.timed is not None}
    for protocol, (queries, images, identities, query_cameras, gallery_cameras) in timed.items():
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
    """Measures `extract` on the images of two batches, flip-averaged, and the network alone on as many inputs."""
    full = training(config)
    network = build_network(full, 1, build_objective(full), weights="none").to(device).eval()
    random = np.random.default_rng(0)
    rows = np.arange(2 * config.batch)
    with _mapped(random, len(rows), config.height, config.width) as store:
        images = Images(store, device)
        views = normalize(images.take(rows[: config.batch]))

        @torch.inference_mode()
        def forward() -> None:
            for _ in range(4):
                network.embed(views, "vis")

        what = f"ResNet-50, {2 * len(rows)} views of {len(rows)} images"
        bare = measure("evaluation", what, forward, repeats=config.repeats, device=device, items=len(rows))
        yield bare
        work = partial(extract, network.embed, images, rows, np.full(len(rows), "vis"), batch_size=config.batch)
        what = f"features of {len(rows)} images, flip-averaged"
        found = measure("evaluation", what, work, repeats=config.repeats, device=device, items=len(rows))
    note = f"{bare.milliseconds / found.milliseconds:.0%} of the bare forward's rate"
    yield dataclasses.replace(found, note=note)


def startup_suite(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """Measures what a run does before its first step, with a warm cache of as many images as SYSU-MM01 has."""
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
            tables[:] = [listing(sysu.DATASET.name, root)]

        yield measure("startup", f"listing of {_SYSU_IMAGES:,} files", read, repeats=config.repeats, device=cpu)

        def store() -> None:  # the images are mapped, not read, so their size does not matter
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
