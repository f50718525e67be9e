"""What the random damage of `test_trees.py` found, one by one: the check names it, and the training refuses it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bdlf.check import inspect
from bdlf.config import Source
from bdlf.data import listing
from bdlf.datasets.checking.published import published
from bdlf.system.errors import InputError


def replaced(name: str, content: str | bytes) -> Callable[[Path], str]:
    def plant(root: Path) -> str:
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return plant


def pipe(root: Path) -> str:
    (root / "idx/train_visible_1.txt").unlink()
    os.mkfifo(root / "idx/train_visible_1.txt")
    return "idx/train_visible_1.txt"


def endless(root: Path) -> str:
    (root / "idx/train_visible_1.txt").unlink()
    (root / "idx/train_visible_1.txt").symlink_to("/dev/zero")
    return "idx/train_visible_1.txt"


def name_that_is_no_text(root: Path) -> str:
    folder = min((root / "cam3").iterdir())
    min(folder.iterdir()).rename(folder / "\udcff.jpg")
    pid = int(folder.name)
    (root / "exp/train_id.txt").write_text(str(pid))
    return f"cam3/{folder.name}/\\udcff.jpg"


PLANTS = {
    "a label of 20 digits": ("regdb", replaced("idx/train_visible_1.txt", f"Visible/1/a.bmp {'9' * 20}\n")),
    "a label of 5000 digits": ("regdb", replaced("idx/train_visible_1.txt", f"Visible/1/a.bmp {'9' * 5000}\n")),
    "an identity of 20 digits": ("regdb", replaced("idx/train_visible_1.txt", f"Visible/{'9' * 20}/a.bmp 1\n")),
    "a camera of 20 digits": ("llcm", replaced("idx/train_vis.txt", f"vis/0001/0001_c{'9' * 20}_x_vis.jpg 0\n")),
    "identities of 5000 digits": ("sysu", replaced("exp/train_id.txt", f"1,{'9' * 5000}\n")),
    "a million wrong lines": ("regdb", replaced("idx/train_visible_1.txt", "? ?\n" * 10**6)),
    "a million wrong numbers": ("sysu", replaced("exp/train_id.txt", ",".join(f"x{k}" for k in range(10**6)))),
    "one line of megabytes": ("llcm", replaced("idx/train_vis.txt", "x" * (5 << 20))),
    "too long to be a list": ("llcm", replaced("idx/train_vis.txt", "\n" * (9 << 20))),
    "a pipe": ("regdb", pipe),
    "an endless file": ("regdb", endless),
    "a name that is no text": ("sysu", name_that_is_no_text),
}


@pytest.mark.parametrize("kind", PLANTS)
def test_it_is_named_and_refused(kind, layouts, tmp_path):
    layout, plant = PLANTS[kind]
    root = Path(shutil.copytree(layouts / layout, tmp_path / layout))
    where = plant(root)
    started = time.perf_counter()
    findings = inspect(Source(name=layout, root=str(root), follow_links=True), fast=True)["findings"]
    named = [finding for finding in findings if finding["where"].startswith(where)]
    assert named and len(findings) < 2000 and all(finding["message"].isprintable() for finding in findings)
    with pytest.raises(InputError) as caught:
        listing(layout, root, follow_links=True)
    assert len(str(caught.value)) < 1000 and time.perf_counter() - started < 10


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["cameras"].update(invisible={}) or record["cameras"]["train"].update(far={"1": {}}),
        lambda record: record["cameras"]["train"].update(far={"1": {"identities": 1, "images": 1}}),
        lambda record: record["identities"].update(train="five"),
        lambda record: record["cameras"]["train"]["vis"].update({"1": {"identities": 1, "images": -3}}),
        lambda record: record["cameras"]["train"]["vis"].update({"1": {"identities": 1, "images": 1e400}}),
    ],
)
def test_a_record_that_cannot_be_is_refused(change, layouts, tmp_path):
    record = json.loads((layouts / "regdb/synthetic.json").read_text())
    change(record)
    (tmp_path / "synthetic.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"synthetic\.json is not a record"):
        published("regdb", tmp_path)


def test_a_record_that_is_nested_without_end_is_refused(tmp_path):
    (tmp_path / "synthetic.json").write_text("[" * 10**5)
    with pytest.raises(InputError, match=r"synthetic\.json is not a record"):
        published("regdb", tmp_path)
