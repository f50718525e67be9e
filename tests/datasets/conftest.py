"""Tiny trees in the layouts of the real datasets, under roots with digits and "cam", which no reader must parse."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import bdlf.check
from bdlf.config import Source

PIXEL = b"not decoded by the listings"


def put(file: Path, content: str | bytes = PIXEL) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.fixture
def sysu_root(tmp_path: Path) -> Path:
    """Identities 1, 12 to train, 5 to validate, 3, 333 to test; 4 belongs to no split."""
    root = tmp_path / "cam7 0042" / "SYSU-MM01"
    for split, identities in {"train": "1,12", "val": "5", "test": "333,3"}.items():
        put(root / f"exp/{split}_id.txt", identities + "\n")
    seen = {1: "123456", 12: "345", 5: "16", 3: "1256", 333: "46", 4: "123456"}
    for pid, cameras in seen.items():
        for camera in cameras:
            for number in (2, 1):
                put(root / f"cam{camera}/{pid:04d}/{number:04d}.jpg")
    return root


@pytest.fixture
def regdb_root(tmp_path: Path) -> Path:
    """Identities 3, 20 to train and 1, 100 to test in split 1, the other way round in split 2."""
    root = tmp_path / "cam3" / "RegDB"
    names = {}
    for pid in (1, 3, 20, 100):
        for word, folder, letter in (("visible", "Visible", "v"), ("thermal", "Thermal", "t")):
            names[word, pid] = [f"{folder}/{pid}/male_back_{letter}_{frame:05d}_{pid}.bmp" for frame in (17, 4)]
            for name in names[word, pid]:
                put(root / name)
    for split, halves in {1: {"train": (20, 3), "test": (100, 1)}, 2: {"train": (1, 100), "test": (3, 20)}}.items():
        for half, pids in halves.items():
            for word in ("visible", "thermal"):
                lines = [f"{name} {label}" for label, pid in enumerate(pids) for name in names[word, pid]]
                put(root / f"idx/{half}_{word}_{split}.txt", "\n".join(lines) + "\n")
    return root


@pytest.fixture
def llcm_root(tmp_path: Path) -> Path:
    """Identities 2, 7 to train; 5, 10 to test, whose images also lie, unused, in vis/ and nir/."""
    root = tmp_path / "cam1" / "LLCM"
    cameras = {"vis": range(1, 10), "nir": (1, 2, 4, 5, 6, 7, 8, 9)}
    for word, numbers in cameras.items():
        lines = []
        for label, pid in enumerate((2, 7)):
            for camera in (9, 3) if word == "vis" else (9, 4):
                name = f"{word}/{pid:04d}/{pid:04d}_c{camera:02d}_s100_f{camera}5_{word}.jpg"
                put(root / name)
                lines.append(f"{name} {label}")
        put(root / f"idx/train_{word}.txt", "\n".join(lines) + "\n")
        for camera in numbers:
            (root / f"test_{word}/cam{camera}").mkdir(parents=True)
        for pid, camera in ((5, 1), (5, 8), (10, 2)):
            name = f"{pid:04d}/{pid:04d}_c{camera:02d}_s100_f5_{word}.jpg"
            put(root / word / name)
            put(root / f"test_{word}/cam{camera}" / name)
    put(root / "idx/test_id.txt", "10,5\n")
    return root


@dataclass
class Tree:
    """A tree in the layout of a real dataset, to plant damage in."""

    layout: str
    root: Path

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def put(self, name: str, content: str | bytes) -> None:
        put(self.root / name, content)

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        before = (self / name).read_text()
        after = change(before)
        assert after != before
        self.put(name, after)

    def pids(self, name: str) -> list[int]:
        return [int(text) for text in (self / name).read_text().split(",")]

    def lines(self, name: str) -> list[str]:
        return (self / name).read_text().splitlines()

    def first_image(self, folder: str) -> str:
        return min((self / folder).rglob("*.*")).relative_to(self.root).as_posix()

    def moved(self, name: str, to: str) -> tuple[str, str]:
        """The finding that must come of moving an image."""
        assert name != to
        (self / to).parent.mkdir(exist_ok=True)
        (self / name).rename(self / to)
        return "image out of place", to

    def inspected(self) -> dict:
        return bdlf.check.inspect(Source(name=self.layout, root=str(self.root)), fast=False)

    def require_named(self, damage: Callable[[Tree], tuple[str, str]]) -> None:
        """Plants a damage, which returns the (kind, where) of the finding that must come of it."""
        kind, where = damage(self)
        report = self.inspected()
        messages = {(finding["kind"], finding["where"]): finding["message"] for finding in report["findings"]}
        assert (kind, where) in messages, messages
        assert "\n" not in messages[kind, where] and len(messages[kind, where]) > len(where)
        assert not report["ok"]


@pytest.fixture
def written_tree(layouts: Path, tmp_path: Path) -> Callable[[str], Tree]:
    """A copy of an intact tree in a layout."""
    return lambda layout: Tree(layout, Path(shutil.copytree(layouts / layout, tmp_path / layout)))
