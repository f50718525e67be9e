"""Follows "Adding a dataset" of bdlf/datasets/README.md, block by block, in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "bdlf/datasets/README.md").read_text(encoding="utf-8")
FILES = re.findall(r"^`([\w/.]+)`:\n\n```(\w+)\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^python -m bdlf\.(\w+) (.*)$", "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)), re.M)
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


def follow(block: tuple[str, str, str], home: Path) -> None:
    """Writes a file of the page, or changes a line of one that is there."""
    name, language, text = block
    if language != "diff":
        assert not (home / name).exists(), f"{name} is there already"
        (home / name).write_text(text, encoding="utf-8")
        return
    changed = (home / name).read_text(encoding="utf-8")
    for old, new in re.findall(r"^-(.*)\n((?:\+.*\n)+)", text, re.MULTILINE):
        assert changed.count(f"{old}\n") == 1, f"the page names a line that {name} does not have: {old}"
        changed = changed.replace(f"{old}\n", re.sub(r"^\+", "", new, flags=re.MULTILINE))
    (home / name).write_text(changed, encoding="utf-8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its configurations in which the page was followed, and a tree of the toy dataset."""
    home = tmp_path_factory.mktemp("followed")
    for folder in ("bdlf", "conf", "sweeps"):
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for block in FILES:
        follow(block, home)
    random, root = np.random.default_rng(0), home / "data/CORRIDOR"
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
    return home


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(home), "BDLF_DATA": str(home / "data")}
    return subprocess.run([sys.executable, *arguments], cwd=home, env=environment, capture_output=True, text=True)


def test_the_page_names_its_files_and_commands():
    names = [(name.rpartition("/")[2], language) for name, language, _ in FILES]
    assert names == [
        ("corridor.py", "python"),
        ("__init__.py", "diff"),
        ("corridor.yaml", "yaml"),
        ("corridor.yaml", "yaml"),
    ]
    assert [command for command, _ in COMMANDS] == ["check", "evaluate", "train"]
    assert all(words.split()[0] == "dataset=corridor" for _, words in COMMANDS)


def test_the_check_finds_the_dataset_and_what_is_wrong_with_it(home, tmp_path):
    done = run(home, "-m", "bdlf.check", *COMMANDS[0][1].split(), "json=true")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"], done.stdout + done.stderr
    assert report["images_opened"] == 28 and report["fingerprint"]
    assert [(row["protocol"], row["queries"], row["gallery"], row["ok"]) for row in report["protocols"]] == [
        ("ir_to_vis all", 6, 6, True),
        ("vis_to_ir all", 6, 6, True),
    ]
    damaged = shutil.copytree(home / "data/CORRIDOR", tmp_path / "damaged")
    (damaged / "visible/0003/0.png").unlink()
    shutil.copytree(damaged / "infrared/0001", damaged / "infrared/0012")
    done = run(home, "-m", "bdlf.check", "dataset=corridor", f"dataset.root={damaged}", "json=true")
    found = {(finding["kind"], finding["where"]) for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert found == {
        ("too few images", "test"),
        ("unlisted identity", "infrared/0012"),
        ("protocol of another size", "ir_to_vis all"),
        ("protocol of another size", "vis_to_ir all"),
    }


def test_the_dataset_is_explained_and_listed(home):
    done = run(home, "-m", "bdlf.evaluate", *COMMANDS[1][1].split())
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "Setting vis_to_ir all. Queries: all visible test images (6 as published)." in text
    assert "train 4 identities in 16 images, test 3 identities in 12 images" in text
    code = "from bdlf.data import listing; print(*listing('corridor', 'data/CORRIDOR', splits=['test']).pid)"
    done = run(home, "-c", code)
    assert done.stdout.split() == ["3"] * 4 + ["4"] * 4 + ["11"] * 4, done.stderr


def test_a_tiny_run_trains_and_scores_it(home):
    words = [*COMMANDS[2][1].split(), *TINY, "output=out", "data.cache_dir=cache"]
    done = run(home, "-m", "bdlf.train", *words)
    assert done.returncode == 0, done.stderr
    (file,) = (home / "out/corridor").glob("*/seed0/result.json")
    result = json.loads(file.read_text())
    rows = {(row["direction"], row["gallery"], row["queries"]) for row in result["metrics"]}
    assert rows == {("ir_to_vis", "all", 6), ("vis_to_ir", "all", 6)} and result["trained_identities"] == 4
