"""Runs in which something goes wrong, and the comparison of two runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bdlf.training.checkpoint import load_checkpoint

TIMES = ["images_per_second", "seconds", "memory_gib"]
MEASURED = {"train_seconds", "images_per_second", "peak_memory_gib"}


@dataclass(frozen=True)
class Ended:
    """How a run ended, as `driver.py` reports it."""

    code: int
    seconds: float
    phase: str
    saved: int
    counts: dict[str, int]
    out: str
    err: str


class Driver:
    """`driver.py` in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("driver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GIT_DIR": os.devnull},  # a commit made meanwhile is no fault
        )
        assert self._process.stdout is not None and self._process.stdin is not None
        self._replies, self._requests = self._process.stdout, self._process.stdin
        assert self._replies.readline() == "ready\n"

    def __call__(self, folder: Path, *overrides: str, **fault: Any) -> Ended:
        """Train a tiny run whose output and cache lie below `folder`, with a `fault` as in `driver.py`."""
        request = {"overrides": overrides, "folder": str(folder), "fault": fault}
        print(json.dumps(request), file=self._requests, flush=True)
        return Ended(**json.loads(self._replies.readline()))

    def close(self) -> None:
        self._requests.close()
        self._replies.close()
        self._process.wait()


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    """`driver(folder, *overrides, **fault)`: a tiny run in which something goes wrong."""
    started = Driver()
    yield started
    started.close()


@pytest.fixture(scope="module")
def run_folder():
    """`run_folder(folder)`: the folder of the only run below `folder`."""
    return _run_folder


@pytest.fixture(scope="module")
def require_same():
    """`require_same(one, other)`: the files of two runs below these folders are equal bit for bit, except for times."""
    return _require_same


def _run_folder(folder: Path) -> Path:
    (found,) = (folder / "out" / "synthetic").glob("*/seed0")
    return found


def _require_same(one: Path, other: Path) -> None:
    left = [{file.relative_to(folder) for file in folder.rglob("*")} for folder in (one, other)]
    assert left[0] == {file for file in left[1] if "wandb" not in file.parts}
    (cache,) = (one / "cache").iterdir()
    assert cache.read_bytes() == (other / "cache" / cache.name).read_bytes()

    runs = [_run_folder(folder) for folder in (one, other)]
    rows = [pd.read_csv(run / "metrics.csv").drop(columns=TIMES) for run in runs]
    pd.testing.assert_frame_equal(*rows, check_exact=True)
    results = [json.loads((run / "result.json").read_text()) for run in runs]
    assert [{**result, **dict.fromkeys(MEASURED)} for result in results[:1]] == [
        {**result, **dict.fromkeys(MEASURED)} for result in results[1:]
    ]
    queries = [np.load(run / "per_query.npz") for run in runs]
    assert queries[0].files == queries[1].files and len(queries[0].files) > 0
    assert all(np.array_equal(queries[0][name], queries[1][name]) for name in queries[0].files)
    for file in (runs[0] / "checkpoints").glob("*.pt"):
        if file.stem != "last-1":  # which step it is of differs
            _require_equal(load_checkpoint(file), load_checkpoint(runs[1] / "checkpoints" / file.name), file.name)


def _require_equal(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _require_equal(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, list):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            _require_equal(left, right, f"{where}/{index}")
    else:
        assert one == other, where
