"""A process with everything imported that forks training runs, in which something goes wrong.

One line of JSON in: `overrides`, `folder` (output and cache lie below it), `fault` (of `disk.py`; or `after`: SIGKILL
after so many seconds). One out: exit code, seconds, phase, steps that a checkpoint held, counts of calls, output.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
import torch
from disk import Disk
from omegaconf import DictConfig

from bdlf import train
from bdlf.commandline.command import _run_job
from bdlf.config import Config, config_folder
from bdlf.data import store
from bdlf.running import job
from bdlf.running import training as story
from bdlf.runs import metrics_log, table, tracker
from bdlf.training import ema, loop, saving, scoring, selected

PHASES = [
    ("elsewhere", None, ""),
    ("parts", job, "prepare"),
    ("image cache", store, "_write"),
    ("step", loop.Stepper, "step"),
    ("checkpoint", saving.Saver, "save"),
    ("scoring", scoring.Scorer, "after_epoch"),
    ("chosen weights", selected.SelectedWeights, "keep"),
    ("metrics", metrics_log.MetricsLog, "amend"),
    ("queries", story, "write_per_query"),
    ("result", story, "write_result"),
]
"""What a run may be at, and the function that it is in then; the last one entered counts."""


IMPORTED = (ema, table, tracker)
"""What else a run imports: done once, here."""
TINY = (
    "dataset.synthetic.train_identities=4",
    "dataset.synthetic.test_identities=4",
    "dataset.synthetic.images_per_identity=2",
    "image.height=32",
    "image.width=16",
    "batch.identities=2",
    "batch.images=2",
    "dfe.blocks=1",
    "schedule.epochs=2",
    "schedule.steps_per_epoch=2",
    "tracker=none",
    "devices=cpu",
    "threads=1",
    "deterministic=true",
)


@functools.cache
def composed(*overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return hydra.compose("config", [*TINY, *overrides])


def attempt(overrides: list[str], folder: str, fault: dict[str, Any]) -> dict[str, Any]:
    config = composed(*overrides).copy()
    config.output, config.data.cache_dir = f"{folder}/out", f"{folder}/cache"
    told = mmap.mmap(-1, 1 << 16)  # byte 0: phase; byte 1: steps in the last checkpoint; then the counts
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            run(config, Disk(folder, fault), told)
        code = ended(child, fault.get("after"))
        return {
            "code": code,
            "seconds": time.monotonic() - started,
            "phase": PHASES[told[0]][0],
            "saved": told[1],
            "counts": json.loads(told[2:].rstrip(b"\0") or "{}"),
            **{name: os.pread(file.fileno(), 1 << 20, 0).decode() for name, file in (("out", out), ("err", err))},
        }


def run(config: DictConfig, disk: Disk, told: mmap.mmap) -> NoReturn:
    code = 99
    try:
        for number, (_, owner, name) in enumerate(PHASES):
            if owner is not None:
                setattr(owner, name, marked(getattr(owner, name), number, told, config.schedule.steps_per_epoch))
        disk.install()
        code = _run_job(config, Config, train.train)
    finally:
        counts = json.dumps(disk.counts).encode()
        told[2 : 2 + len(counts)] = counts
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def marked(call: Callable[..., Any], number: int, told: mmap.mmap, steps: int) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        before, told[0] = told[0], number
        result = call(*arguments, **options)
        if PHASES[number][0] == "checkpoint":
            told[1] = arguments[1].epoch * steps + arguments[1].step
        told[0] = before
        return result

    return wrapper


def ended(child: int, after: float | None) -> int:
    """The child's exit code, negative for a signal; it is killed `after` so many seconds."""
    deadline = time.monotonic() + (600 if after is None else after)
    while True:
        over = time.monotonic() >= deadline
        if over:
            os.kill(child, signal.SIGKILL)
        pid, status = os.waitpid(child, 0 if over else os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert threading.active_count() == 1, "a fork takes no threads along"
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(attempt(**json.loads(line))), flush=True)
