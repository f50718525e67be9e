"""Decodes all images of a listing once and keeps them in a file, as one memory-mapped array."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from tqdm import tqdm

from bdlf.datasets.decoding import FORMATS, WIDE, BadImageError, Span, check_range, grey_values, read_image, to_rgb
from bdlf.datasets.marks import mark, marked_findings, rule_for_wide
from bdlf.datasets.table import content_hash
from bdlf.datasets.tree import file_stats
from bdlf.system.errors import InputError, StorageError
from bdlf.system.files import remove_leftovers
from bdlf.system.locks import held

VERSION = 3
"""The version of cache files. Increase it when decoding, resizing or the format of the file changes."""
_CHUNK = 256  # how many images are decoded before they are written
_NAMED = 5  # how many bad files a message names
_PROBES = 8  # how many rendered rows the key of a cache file depends on
_REMEDY = "set data.cache_dir to a folder with room"

log = logging.getLogger("bdlf")

Render = Callable[[pd.DataFrame, int, int], ndarray]
"""Draws rows of a listing: (rows, height, width) -> uint8 (rows, height, width, 3)."""
Chunk = tuple[ndarray, list[int]]
"""Some images as uint8 (n, height, width, 3), and the marks of each."""


def open_store(
    listing: pd.DataFrame,
    root: str | Path | None,
    height: int,
    width: int,
    *,
    cache_dir: str | Path,
    name: str = "images",
    render: Render | None = None,
    value_range: str = "file",
) -> UInt8[np.memmap, "rows {height} {width} 3"]:
    """The images of `listing`, row by row, as a read-only uint8 array (N, height, width, 3), RGB.

    Image files below `root` are decoded by the rules of `bdlf.datasets.decoding` and resized with LANCZOS [lineage].
    `value_range` is `image.range`, for grey values of more than 8 bits. Where `root` is None, the listing has no files,
    and `render(rows, height, width)` draws it.

    The array is kept as a .npy file in `cache_dir`. The name of the file begins with `name`, that of the dataset, and
    contains a key, a hash of everything that the pixels depend on: paths, sizes and modification times of the image
    files, height, width, filter and `value_range`; for a drawn listing, all of its columns and a few rendered rows. A
    changed image file therefore means a new cache file. Old cache files are not removed.

    After the array, the file holds one byte of marks for each image, and the key. The key shows whether the file is
    whole; one that is not is written again. The marks tell, without reading the pixels, which images have a single
    value, whether the modalities look swapped, and how many images have grey values of more than 8 bits. The first two
    are logged as warnings, the third as information, with the rule by which the images were read.

    Raises `InputError` that names the files that cannot be decoded, after trying all of them, and `StorageError` where
    the cache cannot be written. Neither leaves an unfinished file behind.
    """
    if len(listing) == 0:
        raise InputError("the listing has no images: there is nothing to store")
    if height < 1 or width < 1:
        raise InputError(f"image size {height} x {width}: set image.height and image.width to 1 or more")
    check_range(value_range)
    if root is not None and render is None:
        stamp = f"{value_range} {_stamp_files(listing, Path(root))}"
        chunks = _decoded(listing, Path(root), height, width, value_range)
    elif root is None and render is not None:
        stamp, chunks = _stamp_rows(listing, height, width, render), _rendered(listing, height, width, render)
    else:
        raise InputError("a store needs either the dataset's root or a function that renders the listing")

    key = hashlib.sha256(f"{VERSION} {height} {width} lanczos {stamp}".encode()).hexdigest()
    shape = (len(listing), height, width, 3)
    file = Path(cache_dir) / f"{name}-{height}x{width}-{key[:16]}.npy"
    images, marks = _open(file, shape, key) or _write_and_open(file, shape, key, chunks)
    for line in marked_findings(listing, marks):
        log.warning("%s", line)
    if (rule := rule_for_wide(marks, value_range)) is not None:
        log.info("%s", rule)
    return images


def _write_and_open(file: Path, shape: tuple[int, ...], key: str, chunks: Iterable[Chunk]) -> tuple[np.memmap, ndarray]:
    """Write the cache file under its lock, so that only one process does, and open it."""
    lock = file.with_name(f".{file.name}.lock")
    with held(lock, f"the image cache {file}", remedy=_REMEDY, wait=True) as held_now:
        if held_now:
            remove_leftovers(file.parent, f".{file.name}.*.partial")
        store = _open(file, shape, key)  # another process may have written it while this one waited for the lock
        if store is None:
            _write(file, shape, key, chunks)
            store = _open(file, shape, key)
    if store is None:
        raise InputError(f"the image cache {file} does not read back as written: check the disk of data.cache_dir")
    return store


def _stamp_files(listing: pd.DataFrame, root: Path) -> str:
    paths = listing["path"].tolist()
    stats = file_stats(root, paths)
    return hashlib.sha256("\n".join(paths).encode() + b"\0" + stats.tobytes()).hexdigest()


def _stamp_rows(listing: pd.DataFrame, height: int, width: int, render: Render) -> str:
    """A hash of all columns and of a few rendered rows, so that it changes when the drawing code changes."""
    probes = listing.iloc[np.unique(np.linspace(0, len(listing) - 1, _PROBES).astype(int))]
    order = "\n".join(listing["path"])
    pixels = render(probes.reset_index(drop=True), height, width)
    return hashlib.sha256(f"{content_hash(listing)} {order}".encode() + pixels.tobytes()).hexdigest()


def _rendered(listing: pd.DataFrame, height: int, width: int, render: Render) -> Iterator[Chunk]:
    with tqdm(total=len(listing), desc="drawing images", unit="img", disable=None, leave=False) as bar:
        for start in range(0, len(listing), _CHUNK):
            rows = listing.iloc[start : start + _CHUNK].reset_index(drop=True)
            images = render(rows, height, width)
            yield images, [mark(image) for image in images]
            bar.update(len(rows))


def _decoded(listing: pd.DataFrame, root: Path, height: int, width: int, value_range: str) -> Iterator[Chunk]:
    """Yields chunks of decoded images. After the first bad file it yields nothing more, but still tries all files.

    Raises `InputError` that names the bad files.
    """
    paths, modalities = listing["path"].tolist(), listing["modality"].tolist()
    bad: list[tuple[str, BadImageError]] = []
    # Pillow decodes and resizes without the GIL, so one thread per core is enough, and more would only take memory.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of large images, which are refused anyway
        spans = _spans_of_set(paths, modalities, root, pool) if value_range == "set" else {}

        def decode(path: str, modality: str) -> tuple[ndarray, int] | BadImageError:
            return _decode(f"{root}/{path}", height, width, value_range, spans.get(modality))

        with tqdm(total=len(paths), desc="decoding images", unit="img", disable=None, leave=False) as bar:
            for start in range(0, len(paths), _CHUNK):
                some = paths[start : start + _CHUNK]
                results = list(pool.map(decode, some, modalities[start : start + _CHUNK]))
                bad += [(path, why) for path, why in zip(some, results, strict=True) if isinstance(why, BadImageError)]
                if not bad:
                    images, marks = zip(*(one for one in results if not isinstance(one, BadImageError)), strict=True)
                    yield np.stack(images), list(marks)
                bar.update(len(some))
    if bad:
        remedies = dict.fromkeys(why.remedy.format("them") for _, why in bad)
        raise InputError(
            f"{len(bad)} of {len(paths)} images under {root} cannot be read: "
            f"{', '.join(f'{path} ({why})' for path, why in bad[:_NAMED])}{', ...' if len(bad) > _NAMED else ''}: "
            f"{'; or '.join(remedies)}"
        )


def _spans_of_set(
    paths: Sequence[str], modalities: Sequence[str], root: Path, pool: ThreadPoolExecutor
) -> dict[str, Span]:
    """The lowest and highest value in each modality's images of more than 8 bits, from a first pass over the files."""

    def span(path: str) -> Span | None:
        try:
            with Image.open(f"{root}/{path}", formats=FORMATS) as image:
                if image.mode not in WIDE:  # the header tells the mode, so nothing is decoded here
                    return None
            values = read_image(f"{root}/{path}", grey_values)
        except (OSError, BadImageError):  # the second pass meets the same error and names the file
            return None
        return float(values.min()), float(values.max())

    spans: dict[str, Span] = {}
    with tqdm(total=len(paths), desc="finding the range", unit="img", disable=None, leave=False) as bar:
        for modality, own in zip(modalities, pool.map(span, paths), strict=True):
            if own is not None:
                low, high = spans.get(modality, own)
                spans[modality] = min(low, own[0]), max(high, own[1])
            bar.update()
    return spans


def _decode(
    file: str, height: int, width: int, value_range: str, span: Span | None
) -> tuple[ndarray, int] | BadImageError:
    """The image as (height, width, 3) RGB with its marks, or the error that says why it cannot be read."""

    def resized(image: Image.Image) -> tuple[ndarray, int]:
        small = to_rgb(image, value_range, span).resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(small)
        return pixels, mark(pixels, image.mode)

    try:
        return read_image(file, resized)
    except BadImageError as error:
        return error


def _open(file: Path, shape: tuple[int, ...], key: str) -> tuple[np.memmap, ndarray] | None:
    """The array and the marks in `file`, or None where the file is absent, cut short, or has another key."""
    behind = shape[0] + len(key)
    try:
        with open(file, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - behind))
            marks = np.frombuffer(stream.read(shape[0]), np.uint8)
            if stream.read() != key.encode():
                return None
        store = np.load(file, mmap_mode="r")
    except (OSError, ValueError):
        return None
    whole = store.shape == shape and store.dtype == np.uint8 and store.offset + store.nbytes + behind == size
    return (store, marks) if whole else None


def _write(file: Path, shape: tuple[int, ...], key: str, chunks: Iterable[Chunk]) -> None:
    """Write header, pixels, marks and key to a temporary file and rename it to `file`.

    Everything is written in sequence, not through a memory map, so that a full disk raises an error here. Raises
    `StorageError`.
    """
    need = int(np.prod(shape, dtype=np.int64))
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(file.parent).free < need:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with open(partial, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
            marks = bytearray()
            for images, own in chunks:
                stream.write(images.tobytes())
                marks += bytes(own)
            stream.write(marks + key.encode())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except OSError as error:
        raise StorageError(
            f"cannot write the image cache {file} ({error.strerror or error}; it takes {need / 2**30:.2f} GiB): "
            f"{_REMEDY}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def cache_folder() -> str:
    """The folder `bdlf` in the user's folder for caches: $XDG_CACHE_HOME, or else the system's default.

    Raises `InputError` for a user without a home folder.
    """
    default = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    folder = os.path.expanduser(f"{os.environ.get('XDG_CACHE_HOME') or default}/bdlf")
    if folder.startswith("~"):  # expanduser leaves `~` where no home folder is known
        raise InputError("this user has no home folder for the cache of decoded images: set data.cache_dir=FOLDER")
    return folder
