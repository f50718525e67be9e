"""Disks that are full, over quota or read-only: one line, nothing lost, and the same command goes on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bdlf.training.checkpoint import load_checkpoint

EVERY_STEP = "checkpoint.every_steps=1"
WORDS = {number: os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}


@pytest.fixture(scope="module")
def reference(driver, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    assert driver(folder, EVERY_STEP).code == 0
    return folder


@pytest.fixture
def room(reference, run_folder) -> int:
    """The room on a disk for two and a half checkpoints."""
    return int(2.5 * (run_folder(reference) / "checkpoints" / "last.pt").stat().st_size)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[Path, str], None]]:
    """`small_disk(folder, options)`: a file system of its own there; the same again changes its options."""
    mounted: list[Path] = []

    def mount(folder: Path, options: str) -> None:
        folder.mkdir(exist_ok=True)
        options = f"remount,{options}" if folder in mounted else options
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no file system can be made here: {done.stderr.strip()}")
        mounted.append(folder)

    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root of a Linux machine can make a file system")
    yield mount
    for folder in set(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def require_one_line(code: int, out: str, err: str, *words: str) -> None:
    assert code == 1, (code, out, err)
    assert err.startswith("error: ") and err.count("\n") == 1 and "Errno" not in err, err
    assert all(word in err for word in words), err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("number", [errno.ENOSPC, pytest.param(errno.EDQUOT, marks=pytest.mark.slow)])
def test_a_disk_that_fills_in_mid_training(driver, reference, require_same, tmp_path, room, number):
    ended = driver(tmp_path, EVERY_STEP, room=room, errno=number)
    line = f"last.pt cannot be written: {WORDS[number]}; free space or choose another output="
    require_one_line(ended.code, ended.out, ended.err, line)
    (checkpoints,) = (tmp_path / "out").rglob("checkpoints")
    state = load_checkpoint(checkpoints / "last.pt")
    assert 0 < 2 * state["epoch"] + state["step"] < 4
    assert not list(tmp_path.rglob(".*"))
    ended = driver(tmp_path, EVERY_STEP)
    assert ended.code == 0 and f"going on at epoch {state['epoch'] + 1} of 2, step {state['step'] + 1}" in ended.out
    assert "warning: " not in ended.out
    require_same(reference, tmp_path)


slow = pytest.mark.slow
FIRST = [
    ("write train.log", 1, "train.log cannot be written: {}; lines may be missing there"),
    ("write images.npy", 2, "cannot write the image cache {}"),
    pytest.param("write .images.npy.lock", 1, "the image cache", marks=slow),
    pytest.param("write .seed0.lock", 1, "train.log cannot be written: {}", marks=slow),
    pytest.param("write config.yaml", 1, "config.yaml cannot be written: {}", marks=slow),
    pytest.param("write metrics.csv", 2, "metrics.csv cannot be written: {}", marks=slow),
    pytest.param("write last.pt", 230, "last.pt cannot be written: {}", marks=slow),
    pytest.param("write last.pt.sha256", 2, "last.pt.sha256 cannot be written: {}", marks=slow),
    pytest.param("write per_query.npz", 3, "per_query.npz cannot be written: {}", marks=slow),
    pytest.param("write result.json", 1, "result.json cannot be written: {}", marks=slow),
]
"""The call from which on the disk is full, and what is said of it."""


@pytest.mark.parametrize(("name", "at", "words"), FIRST)
def test_whatever_meets_the_full_disk_first(driver, reference, require_same, tmp_path, name, at, words):
    number = errno.ENOSPC
    ended = driver(tmp_path, EVERY_STEP, op=name, at=at, errno=number)
    require_one_line(ended.code, ended.out, ended.err, WORDS[number])
    said = ended.out + ended.err
    assert words.partition(" {}")[0] in said and words.partition("{}")[2] in said
    assert ended.out.count("warning: ") <= 1
    assert not list(tmp_path.rglob(".*")), "nothing half-written is left"
    ended = driver(tmp_path, EVERY_STEP)
    assert ended.code == 0 and "warning: " not in ended.out
    require_same(reference, tmp_path)


def test_a_folder_that_is_or_becomes_read_only(driver, reference, require_same, tmp_path):
    number = errno.EROFS
    ended = driver(tmp_path, EVERY_STEP, errno=number)
    require_one_line(ended.code, ended.out, ended.err, "seed0", WORDS[number], "choose another output=")
    assert not list(tmp_path.iterdir())
    ended = driver(tmp_path, EVERY_STEP, op="open last.pt", at=2, errno=number)
    require_one_line(ended.code, ended.out, ended.err, "last.pt cannot be written", WORDS[number])
    ended = driver(tmp_path, EVERY_STEP)
    assert ended.code == 0
    require_same(reference, tmp_path)
    ended = driver(tmp_path, EVERY_STEP, errno=number)
    assert ended.code == 0 and "finished before" in ended.out and not ended.err


def test_a_real_file_system(driver, reference, require_same, tmp_path, room, small_disk):
    small_disk(tmp_path / "out", f"size={room}")
    small_disk(tmp_path / "cache", "size=16k")
    ended = driver(tmp_path, EVERY_STEP)
    require_one_line(ended.code, ended.out, ended.err, "the image cache", WORDS[errno.ENOSPC], "data.cache_dir")
    assert not list((tmp_path / "cache").iterdir())
    small_disk(tmp_path / "cache", "size=1m")
    ended = driver(tmp_path, EVERY_STEP)
    require_one_line(ended.code, ended.out, ended.err, "last.pt cannot be written", WORDS[errno.ENOSPC])
    small_disk(tmp_path / "out", f"size={room},ro")
    ended = driver(tmp_path, EVERY_STEP)
    require_one_line(ended.code, ended.out, ended.err, "seed0", WORDS[errno.EROFS], "choose another output=")
    small_disk(tmp_path / "out", f"size={4 * room},rw")
    ended = driver(tmp_path, EVERY_STEP)
    assert ended.code == 0 and "going on at epoch" in ended.out and "warning: " not in ended.out
    require_same(reference, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["16k", "checkpoints"])
def test_with_the_default_tracker(reference, require_same, tiny, tmp_path, room, small_disk, size):
    """W&B's files lie on the full disk too: what it says of it is a warning, and it does not hold the run up."""

    def train() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "bdlf.train", *tiny, "tracker=wandb", "deterministic=true", EVERY_STEP),
                *(f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GIT_DIR": os.devnull, "WANDB_MODE": "offline"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
        )

    small_disk(tmp_path / "out", f"size={room if size == 'checkpoints' else size}")
    done = train()
    require_one_line(done.returncode, done.stdout, done.stderr, "last.pt cannot be written", WORDS[errno.ENOSPC])
    assert done.stdout.count("warning: W&B stopped") == (size == "16k")
    small_disk(tmp_path / "out", f"size={4 * room}")
    done = train()
    assert done.returncode == 0, done.stderr
    require_same(reference, tmp_path)
