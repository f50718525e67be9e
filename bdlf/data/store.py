"""All images of a listing as one memory-mapped array, decoded once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from bdlf.data.listing import content_hash
from bdlf.data.tree import file_stats
from bdlf.errors import InputError, StorageError
from bdlf.files import remove_leftovers
from bdlf.locks import held

VERSION = 1
"""Of what a cache file holds: raise it when decoding, resizing or the file's form changes."""
_CHUNK = 256  # images in memory at a time
_NAMED = 5  # bad files that a message names
_FORMATS = ("JPEG", "PNG", "BMP")  # of the datasets; others' decoders are not for files from strangers
_PROBES = 8  # rendered rows that a key covers
_REMEDY = "set data.cache_dir to a folder with room"

T = TypeVar("T")
Render = Callable[[pd.DataFrame, int, int], ndarray]


def open_store(
    listing: pd.DataFrame,
    root: str | Path | None,
    height: int,
    width: int,
    *,
    cache_dir: str | Path,
    render: Render | None = None,
) -> UInt8[np.memmap, "rows {height} {width} 3"]:
    """The images of `listing`, row by row, as a read-only uint8 array (N, height, width, 3), RGB.

    Files are decoded with Pillow and resized with LANCZOS [lineage]; a listing without files (`root` is None) is drawn
    by `render(rows, height, width)`. The array is kept as a .npy file in `cache_dir`, under a key of the dataset's
    name, the listed paths, sizes and times of change, height, width and filter (without files: of all columns and of a
    few rendered rows), so a changed file means a new cache. The key also ends the file: one that was cut short or comes
    from elsewhere is recognised and made again. Caches of older keys are left where they are.

    Raises `InputError` that names the files which cannot be decoded, after trying all, or says why the cache cannot be
    written; nothing is left behind in either case.
    """
    if len(listing) == 0:
        raise InputError("the listing has no images: there is nothing to store")
    if height < 1 or width < 1:
        raise InputError(f"image size {height} x {width}: set image.height and image.width to 1 or more")
    if root is not None and render is None:
        stamp, chunks = _stamp_files(listing, Path(root)), _decoded(listing, Path(root), height, width)
    elif root is None and render is not None:
        stamp, chunks = _stamp_rows(listing, height, width, render), _rendered(listing, height, width, render)
    else:
        raise InputError("a store needs either the dataset's root or a function that renders the listing")

    name = listing.attrs["name"]
    key = hashlib.sha256(f"{VERSION} {height} {width} lanczos {stamp}".encode()).hexdigest()
    shape = (len(listing), height, width, 3)
    file = Path(cache_dir) / f"{name}-{height}x{width}-{key[:16]}.npy"
    store = _open(file, shape, key)
    if store is None:
        lock = file.with_name(f".{file.name}.lock")
        with held(lock, f"the image cache {file}", remedy=_REMEDY, wait=True) as alone:
            if alone:
                remove_leftovers(file.parent, f".{file.name}.*.partial")
            store = _open(file, shape, key)  # perhaps made by the process that held the lock a moment ago
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
    """Rendered rows are part of it, so that a change of the drawing code is noticed."""
    probes = listing.iloc[np.unique(np.linspace(0, len(listing) - 1, _PROBES).astype(int))]
    order = "\n".join(listing["path"])
    pixels = render(probes.reset_index(drop=True), height, width)
    return hashlib.sha256(f"{content_hash(listing)} {order}".encode() + pixels.tobytes()).hexdigest()


def _rendered(listing: pd.DataFrame, height: int, width: int, render: Render) -> Iterator[ndarray]:
    with tqdm(total=len(listing), desc="drawing images", unit="img", disable=None, leave=False) as bar:
        for start in range(0, len(listing), _CHUNK):
            rows = listing.iloc[start : start + _CHUNK].reset_index(drop=True)
            yield render(rows, height, width)
            bar.update(len(rows))


def _decoded(listing: pd.DataFrame, root: Path, height: int, width: int) -> Iterator[ndarray]:
    """Chunks of decoded images; after the first bad file nothing more, but all others are still tried and named."""
    paths = listing["path"].tolist()
    bad: list[str] = []
    # More threads than cores only cost memory: Pillow decodes and resizes without the GIL.
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), desc="decoding images", unit="img", disable=None, leave=False) as bar,
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is an error below
        for start in range(0, len(paths), _CHUNK):
            some = paths[start : start + _CHUNK]
            results = list(pool.map(lambda path: _decode(f"{root}/{path}", height, width), some))
            bad += [f"{path} ({why})" for path, why in zip(some, results, strict=True) if isinstance(why, str)]
            images = [image for image in results if not isinstance(image, str)]
            if not bad:
                yield np.stack(images)
            bar.update(len(some))
    if bad:
        raise InputError(
            f"{len(bad)} of {len(paths)} images under {root} cannot be read: {', '.join(bad[:_NAMED])}"
            f"{', ...' if len(bad) > _NAMED else ''}: restore them from the dataset"
        )


class BadImageError(ValueError):
    """An image file that cannot be used: `kind` is the same words for the same cause, the message says more."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def read_image(file: str, use: Callable[[Image.Image], T]) -> T:
    """What `use` makes of the image in `file`; it must have all pixels decoded. Raises `BadImageError`."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                pixels = f"{image.width} x {image.height} pixels, more than the {limit} allowed"
                raise BadImageError("image too large", pixels)
            return use(image)
    except UnidentifiedImageError as error:
        kind, why = ("not an image", "not an image") if os.path.getsize(file) else ("empty image", "empty")
        raise BadImageError(kind, why) from error
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError("image too large", " ".join(str(error).split())) from error
    except Exception as error:  # of any kind: Pillow's decoders raise what they please on broken files
        why = " ".join(str(error).split()) or type(error).__name__
        raise BadImageError("image truncated or damaged", why) from error


def _decode(file: str, height: int, width: int) -> ndarray | str:
    """(height, width, 3) RGB, or why there is none."""
    try:
        return read_image(
            file, lambda image: np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
        )
    except BadImageError as error:
        return str(error)


def _open(file: Path, shape: tuple[int, ...], key: str) -> np.memmap | None:
    """The array in `file`, or None where it is absent, cut short, or not the one of this key."""
    try:
        with open(file, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - len(key)))
            if stream.read() != key.encode():
                return None
        store = np.load(file, mmap_mode="r")
    except (OSError, ValueError):
        return None
    whole = store.shape == shape and store.dtype == np.uint8 and store.offset + store.nbytes + len(key) == size
    return store if whole else None


def _write(file: Path, shape: tuple[int, ...], key: str, chunks: Iterable[ndarray]) -> None:
    """Header, pixels and key, written aside and renamed. Sequential writes, so that a full disk is an error here."""
    need = int(np.prod(shape, dtype=np.int64))
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(file.parent).free < need:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with open(partial, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for chunk in chunks:
                stream.write(chunk.tobytes())
            stream.write(key.encode())
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
