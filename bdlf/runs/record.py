"""Writes and reads the record of a run: `result.json`, `per_query.npz`, and the state of the code that wrote them."""

from __future__ import annotations

import platform
import subprocess
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bdlf.active import WATCHED
from bdlf.datasets.protocol import protocol_name
from bdlf.system.errors import InputError
from bdlf.system.files import read_json, write_atomically, write_json

if TYPE_CHECKING:
    from bdlf.evaluation import Choice, Scores, Setting

SCHEMA = 2
"""The version of the format of `result.json` and `per_query.npz`.

Schema 1 did not hold the pids of the queries, and its run ids were computed in another way.
"""
ROW_KEYS = (
    *("dataset", "split", "mode", "shots", "direction", "gallery", "reading", "similarity", "feature", "flip"),
    *("model", "epoch", "selection"),
)
"""Keys of a row of `metrics` that identify it: no two rows of a result agree in all of them."""
RowKey = tuple[Any, ...]
"""The values of ROW_KEYS in a row of `metrics`."""
SIMILARITY = "cosine"
FIGURES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
"""The figures of a row of `metrics`, in percent."""
CURVES = ("rank1", "mAP", "mINP")
"""The figures that have columns in metrics.csv."""

_PACKAGES = ("bdlf", "torch", "torchvision", "lightning-fabric", "numpy", "hydra-core", "pillow")


def metrics_row(setting: Setting, scores: Scores, **card: Any) -> dict[str, Any]:
    """One row of `metrics`: the protocol card, then mean, std and trials of the figures in percent.

    `card` gives what `setting` does not say: dataset, split, feature, flip, model, epoch and selection.
    """
    return {
        "dataset": card["dataset"],
        "split": card["split"],
        "mode": setting.mode,
        "shots": setting.shots,
        "direction": setting.direction,
        "gallery": setting.gallery,
        "reading": setting.reading,
        "similarity": SIMILARITY,
        "feature": card["feature"],
        "flip": card["flip"],
        "model": card["model"],
        "epoch": card["epoch"],
        "selection": card["selection"],
        "queries": scores.queries,
        "valid_queries": scores.valid_queries,
        "mean": scores.mean,
        "std": scores.std,
        "trials": scores.trials,
    }


def row_key(row: Mapping[str, Any]) -> RowKey:
    """The values of a row of `metrics` that distinguish it from the other rows of its result."""
    return tuple(row[name] for name in ROW_KEYS)


def training_columns(terms: Sequence[str]) -> list[str]:
    """Columns of metrics.csv that every epoch fills: the terms, what is watched beside them, and the costs."""
    costs = ["skipped_steps", "images_per_second", "seconds", "memory_gib"]
    return ["epoch", "lr", "total", *terms, "gradient_norm", *WATCHED, *costs]


def metric_columns(settings: Sequence[Choice], models: Sequence[str], *, prefix: str = "") -> list[str]:
    """Columns of metrics.csv that an evaluation fills: `<figure>/<prefix><protocol>/<model>` for each of CURVES."""
    return [_column(name, prefix + setting.name, model) for setting in settings for model in models for name in CURVES]


def metric_values(rows: Sequence[Mapping[str, Any]], *, prefix: str = "") -> dict[str, float]:
    """The values of the columns that `metric_columns` names, taken from rows of `metrics`."""
    named = [(row, prefix + protocol(row)) for row in rows]
    return {_column(name, words, row["model"]): row["mean"][name] for row, words in named for name in CURVES}


def protocol(row: Mapping[str, Any]) -> str:
    """Names the protocol of a row of `metrics`: direction, mode, shots, gallery and reading, as far as they apply."""
    return protocol_name(*(row[key] for key in ("direction", "mode", "shots", "gallery", "reading")))


def _column(figure: str, protocol: str, model: str) -> str:
    return f"{figure}/{protocol.replace(' ', '-')}/{model}"


def write_per_query(path: Path, scores: Sequence[Scores], *, add_to: int = 0) -> None:
    """Write the figures of every query to `path`.

    Row i of `metrics` has the arrays `<i>.pids` (queries,), and `<i>.first_match`, `<i>.ap` and `<i>.inp`, each
    (trials, queries). `scores` belong to the rows from number `add_to` on. The arrays of the rows before them are
    copied from the existing file.

    Raises InputError if `add_to` is above 0 and the existing file is missing or damaged.
    """
    arrays: dict[str, Any] = dict(_arrays(path, add_to)) if add_to else {}
    for row, score in enumerate(scores, start=add_to):
        arrays |= {f"{row}.{name}": getattr(score, name) for name in _PER_QUERY}
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


_PER_QUERY = ("pids", "first_match", "ap", "inp")


def _arrays(path: Path, rows: int) -> dict[str, np.ndarray]:
    """The arrays of the first `rows` rows of the file at `path`.

    The file holds arrays of further rows if a process was killed after writing them and before writing the result.
    They are left out.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {f"{row}.{name}": file[f"{row}.{name}"] for row in range(rows) for name in _PER_QUERY}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} does not hold the queries of the {rows} rows of result.json ({str(error).splitlines()[0]}); "
            "restore it, or start again with rerun=true"
        ) from error


def write_result(path: Path, *, metrics: list[dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """Write `result.json`, the last file of a run, and return it."""
    result = {"schema": SCHEMA, **facts, "versions": package_versions(), **source_state(), "metrics": metrics}
    write_json(path, result)
    return result


def add_rows(
    path: Path, result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, device: str
) -> dict[str, Any]:
    """Append `rows` to the rows of `result`, write the result to `path`, and return it.

    An entry of its list `additions` records which rows are new and which code and device computed them.
    """
    first = len(result["metrics"])
    addition = {"rows": [*range(first, first + len(rows))], **source_state(), "versions": package_versions()}
    changed = {
        **result,
        "metrics": [*result["metrics"], *rows],
        "additions": [*result.get("additions", []), {**addition, "device": device}],
    }
    write_json(path, changed)
    return changed


def read_result(path: Path) -> dict[str, Any]:
    """The content of a `result.json`. Raises InputError if it was not written in the present SCHEMA."""
    result = read_json(path)
    schema = result.get("schema") if isinstance(result, dict) else None
    if isinstance(schema, int) and schema < SCHEMA:
        raise InputError(
            f"{path} is of an older version of bdlf (schema {schema}, here {SCHEMA}), which kept no identities of the "
            "queries; train the run again with this version, or read it with the older one"
        )
    if schema != SCHEMA:
        raise InputError(
            f"{path} is not a result of this version of bdlf; rerun=true moves the folder aside and starts again"
        )
    return cast(dict[str, Any], result)


def images_of(fingerprint: str) -> str:
    """The fingerprint of the images in that of a run; see `bdlf.experiment.Experiment.fingerprint`.

    Scoring reads no silhouettes, and runs with and without them are compared on the same images.
    """
    return fingerprint.partition("+")[0]


def package_versions() -> dict[str, str | None]:
    """The versions of Python and of the packages that the figures depend on; None for a package not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def source_state() -> dict[str, Any]:
    """The `commit` of the git checkout that holds this package, and `dirty`: whether it has uncommitted changes.

    Both are None if the package is not part of a checkout, as with an installed wheel.
    """
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", str(Path(__file__).resolve())) is None:  # git does not track this file
        return {"commit": None, "dirty": None}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
