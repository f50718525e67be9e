"""What a run leaves behind: `result.json`, `per_query.npz`, and where they came from."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bdlf.errors import InputError
from bdlf.files import read_json, write_atomically, write_json
from bdlf.naming import protocol_name

if TYPE_CHECKING:
    from bdlf.evaluation import Scores, Setting

SCHEMA = 1
FIGURES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
"""Figures of a result row, in percent."""
CURVES = ("rank1", "mAP", "mINP")
"""Those that metrics.csv holds."""

_PACKAGES = ("bdlf", "torch", "torchvision", "lightning-fabric", "numpy", "hydra-core", "pillow")


def metrics_row(setting: Setting, scores: Scores, **card: Any) -> dict[str, Any]:
    """One row of `metrics`: the protocol card, then mean, std and trials of the figures in percent.

    `card` holds dataset, split, feature, flip, model, epoch and selection.
    """
    return {
        "dataset": card["dataset"],
        "split": card["split"],
        "mode": setting.mode,
        "shots": setting.shots,
        "direction": setting.direction,
        "gallery": setting.gallery,
        "reading": setting.reading,
        "similarity": "cosine",
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


def training_columns(terms: Sequence[str]) -> list[str]:
    """Columns of metrics.csv that every epoch fills: the terms, diagnostics, cost."""
    watched = ["gradient_norm", "corr_base", "corr_detail", "corr_detail_centred", "attention_own"]
    cost = ["skipped_steps", "images_per_second", "seconds", "memory_gib"]
    return ["epoch", "lr", "total", *terms, *watched, *cost]


def metric_columns(settings: Sequence[Setting], models: Sequence[str], *, prefix: str = "") -> list[str]:
    """Columns of metrics.csv that an evaluation fills: `rank1/<prefix><protocol>/<model>` and so on."""
    return [_column(name, prefix + setting.name, model) for setting in settings for model in models for name in CURVES]


def metric_values(rows: Sequence[Mapping[str, Any]], *, prefix: str = "") -> dict[str, float]:
    """The columns of `metric_columns`, from rows of `metrics`."""
    named = [(row, prefix + protocol(row)) for row in rows]
    return {_column(name, words, row["model"]): row["mean"][name] for row, words in named for name in CURVES}


def protocol(row: Mapping[str, Any]) -> str:
    """Direction, mode, shots, gallery and reading of a row of `metrics`, as far as they apply."""
    return protocol_name(*(row[key] for key in ("direction", "mode", "shots", "gallery", "reading")))


def _column(figure: str, protocol: str, model: str) -> str:
    return f"{figure}/{protocol.replace(' ', '-')}/{model}"


def write_per_query(path: Path, scores: Sequence[Scores]) -> None:
    """`<i>.first_match`, `<i>.ap`, `<i>.inp`, each (trials, queries), for row i of `metrics`."""
    arrays = {
        f"{row}.{name}": getattr(score, name)
        for row, score in enumerate(scores)
        for name in ("first_match", "ap", "inp")
    }
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def write_result(path: Path, *, metrics: list[dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """Write `result.json`, the last file of a run, and return it."""
    result = {"schema": SCHEMA, **facts, "versions": package_versions(), **source_state(), "metrics": metrics}
    write_json(path, result)
    return result


def read_result(path: Path) -> dict[str, Any]:
    """Raises InputError where it is not a result of this version."""
    result = read_json(path)
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is not a result of this version of bdlf; rerun=true moves the folder aside and starts again"
        )
    return result


def package_versions() -> dict[str, str | None]:
    """Of Python and of what the figures depend on; None for a package that is run without being installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def source_state() -> dict[str, Any]:
    """`commit` and `dirty` of the checkout that this package is run from; None for an installed wheel."""
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", str(Path(__file__).resolve())) is None:  # some other repository, or none
        return {"commit": None, "dirty": None}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
