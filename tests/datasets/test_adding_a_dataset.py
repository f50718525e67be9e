"""Follows "Adding a dataset" of bdlf/datasets/README.md, block by block, in a copy of the package."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

TINY = (
    "image.height=32",
    "image.width=16",
    "backbone=resnet10",
    "backbone.weights=none",
    "batch.identities=2",
    "batch.images=2",
    "dfe.blocks=1",
    "schedule.epochs=1",
    "schedule.steps_per_epoch=1",
    "tracker=none",
    "devices=cpu",
    "threads=1",
)


@pytest.fixture(scope="module")
def copy(follow):
    """The page, followed, and a tree of the toy dataset."""
    copy = follow("bdlf/datasets/README.md", "Adding a dataset")
    random, root = np.random.default_rng(0), copy.home / "data/CORRIDOR"
    (root / "lists").mkdir(parents=True)
    for split, pids in {"train": (1, 2, 5, 9), "test": (3, 4, 11)}.items():
        (root / f"lists/{split}.txt").write_text(",".join(map(str, pids)))
        for pid in pids:
            for folder in ("visible", "infrared"):
                (root / folder / f"{pid:04d}").mkdir(parents=True)
                for number in range(2):
                    shape = (40, 20, 3) if folder == "visible" else (40, 20)
                    pixels = random.integers(0, 256, shape, dtype=np.uint8)
                    Image.fromarray(pixels).save(root / folder / f"{pid:04d}/{number}.png")
    return copy


def run(copy, *arguments: str) -> subprocess.CompletedProcess:
    return copy.run(*arguments, BDLF_DATA=str(copy.home / "data"))


def test_the_page_names_its_files_and_commands(copy):
    names = [(name.rpartition("/")[2], language) for name, language in copy.files]
    assert names == [
        ("corridor.py", "python"),
        ("__init__.py", "diff"),
        ("corridor.yaml", "yaml"),
        ("corridor.yaml", "yaml"),
    ]
    assert [command for command, _ in copy.commands] == ["check", "evaluate", "train"]
    assert all(words[0] == "dataset=corridor" for _, words in copy.commands)


def test_the_check_finds_the_dataset_and_what_is_wrong_with_it(copy, tmp_path):
    done = run(copy, "-m", "bdlf.check", *copy.commands[0][1], "json=true")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"], done.stdout + done.stderr
    assert report["images_opened"] == 28 and report["fingerprint"]
    assert [(row["protocol"], row["queries"], row["gallery"], row["ok"]) for row in report["protocols"]] == [
        ("ir_to_vis all", 6, 6, True),
        ("vis_to_ir all", 6, 6, True),
    ]
    damaged = shutil.copytree(copy.home / "data/CORRIDOR", tmp_path / "damaged")
    (damaged / "visible/0003/0.png").unlink()
    shutil.copytree(damaged / "infrared/0001", damaged / "infrared/0012")
    done = run(copy, "-m", "bdlf.check", "dataset=corridor", f"dataset.root={damaged}", "json=true")
    found = {(finding["kind"], finding["where"]) for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert found == {
        ("too few images", "test"),
        ("unlisted identity", "infrared/0012"),
        ("protocol of another size", "ir_to_vis all"),
        ("protocol of another size", "vis_to_ir all"),
    }


def test_the_dataset_is_explained_and_listed(copy):
    done = run(copy, "-m", "bdlf.evaluate", *copy.commands[1][1])
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "Setting vis_to_ir all. Queries: all visible test images (6 as published)." in text
    assert "train 4 identities in 16 images, test 3 identities in 12 images" in text
    code = "from bdlf.data import listing; print(*listing('corridor', 'data/CORRIDOR', splits=['test']).pid)"
    done = run(copy, "-c", code)
    assert done.stdout.split() == ["3"] * 4 + ["4"] * 4 + ["11"] * 4, done.stderr


def test_a_tiny_run_trains_and_scores_it(copy):
    words = [*copy.commands[2][1], *TINY, "output=out", "data.cache_dir=cache"]
    done = run(copy, "-m", "bdlf.train", *words)
    assert done.returncode == 0, done.stderr
    (file,) = (copy.home / "out/corridor").glob("*/seed0/result.json")
    result = json.loads(file.read_text())
    rows = {(row["direction"], row["gallery"], row["queries"]) for row in result["metrics"]}
    assert rows == {("ir_to_vis", "all", 6), ("vis_to_ir", "all", 6)} and result["trained_identities"] == 4
