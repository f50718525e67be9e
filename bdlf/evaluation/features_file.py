"""Reads and writes `features.npz`: features of test images by their paths, from a run or from any other code."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from bdlf.system.errors import InputError
from bdlf.system.files import write_atomically
from bdlf.system.memory import require_memory

ARRAYS = ("features", "pids", "camids", "modalities", "paths")
_NAMED = 3  # how many rows a message names
_MOST_ROWS = 1_000_000  # no dataset has a tenth of that
_UNIT = 1e-5  # features whose lengths are this near to 1 are not normalised again


def write_features(
    path: Path, features: Float[np.ndarray, "m c"], rows: Int[np.ndarray, " m"], listing: pd.DataFrame
) -> None:
    """Writes the features of the rows `rows` of `listing`, with what the listing says about these images."""
    images = listing.iloc[rows]
    arrays = {
        "features": features.astype(np.float32, copy=False),
        "pids": images["pid"].to_numpy(),
        "camids": images["camid"].to_numpy(),
        "modalities": images["modality"].to_numpy(dtype=np.str_),
        "paths": images["path"].to_numpy(dtype=np.str_),
    }
    write_atomically(path, lambda file: np.savez(file, **arrays))


def read_features(
    path: Path, listing: pd.DataFrame
) -> tuple[Float[np.ndarray, "m c"], Int[np.ndarray, " m"], list[str]]:
    """Reads the features of the test images of `listing`.

    Returns the L2-normalised features, the rows of the listing that they belong to, and the paths in the file that are
    no test images, whose features are left out. The lines of the file may be in any order. Features are normalised in
    float64. If all of them have length 1 already they are left as they are, so that what `write_features` wrote comes
    back bit for bit.

    Raises InputError, naming arrays and paths, for a file of another kind, for arrays that do not fit each other, for a
    path that occurs twice, for identities, cameras or modalities that differ from the dataset's, and for a feature that
    is not finite or has length 0.
    """
    arrays = _read_arrays(path)
    paths = pd.Index([str(name).replace("\\", "/").removeprefix("./") for name in arrays["paths"]])
    if paths.has_duplicates:
        raise InputError(f"{path}: {paths[paths.duplicated()][0]} is there twice; keep one feature for each image")
    test = listing[listing["split"] == "test"]
    known = pd.Index(test["path"])
    rows = known.get_indexer(paths)
    inside = np.flatnonzero(rows >= 0)
    if not inside.size:
        raise InputError(
            f"{path}: none of its {len(paths)} paths is a test image; they must be relative to dataset.root, "
            f"like {known[0]}, not like {paths[0] if len(paths) else 'nothing'}"
        )
    images = test.iloc[rows[inside]]
    for name, column in (("pids", "pid"), ("camids", "camid"), ("modalities", "modality")):
        given, own = arrays[name][inside], images[column].to_numpy()
        if given.dtype.kind not in ("U" if column == "modality" else "iu"):
            raise InputError(f"{path}: {name} has type {given.dtype}; {_TYPES[name]} are needed")
        wrong = np.flatnonzero(given != own)
        if wrong.size:
            some = ", ".join(f"{paths[inside[i]]}: {given[i]} for {own[i]}" for i in wrong[:_NAMED])
            raise InputError(f"{path}: {name} of {wrong.size} images are not the dataset's ({some})")
    features = _normalised(path, arrays["features"][inside], paths[inside])
    return features, images.index.to_numpy(), [str(name) for name in paths[rows < 0]]


_TYPES = {"pids": "whole numbers", "camids": "whole numbers", "modalities": "the texts 'vis' and 'ir'"}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays, after their headers have shown that the shapes agree and that the memory suffices."""
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {name: _header(archive, path, name) for name in ARRAYS}
            _require_shapes(path, headers)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ARRAYS}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; features= takes a .npz file") from None
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise errors of many kinds on damaged bytes
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as features ({why}); write it with np.savez, texts as arrays of dtype str"
        ) from error


def _header(archive: zipfile.ZipFile, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and the dtype of an array in a .npz file, from its header."""
    if f"{name}.npy" not in archive.namelist():
        raise InputError(f"{path} lacks the array '{name}'; it needs {', '.join(ARRAYS)}")
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("Object arrays are pickles, which are never run")
    return shape, dtype


def _require_shapes(path: Path, headers: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    shape, dtype = headers["features"]
    if len(shape) != 2 or dtype.kind not in "fiu" or 0 in shape:
        raise InputError(f"{path}: features are {dtype}{list(shape)}; images x dimensions are needed")
    for name in ARRAYS[1:]:
        if headers[name][0] != shape[:1]:
            raise InputError(
                f"{path}: {name} has shape {list(headers[name][0])} for {shape[0]} features; give one for each"
            )
    if shape[0] > _MOST_ROWS:
        raise InputError(f"{path} has {shape[0]:,} features; give at most {_MOST_ROWS:,}, those of the test images")
    unpacked = sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values())
    require_memory(str(path), "what it holds", unpacked)


def _normalised(path: Path, features: np.ndarray, names: pd.Index) -> np.ndarray:
    exact = features.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(exact, axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if bad.size:
        raise InputError(f"{path}: {bad.size} features are not finite or of length 0, that of {names[bad[0]]} first")
    if np.abs(lengths - 1).max() > _UNIT:
        exact /= lengths[:, None]
    return exact.astype(np.float32)
