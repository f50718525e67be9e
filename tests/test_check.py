"""`python -m bdlf.check` as a user meets it. The kinds of damage are in tests/datasets/test_check_*.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bdlf.check
from bdlf.config import Source
from bdlf.data import fingerprint, listing
from bdlf.data.synthetic.layouts import LAYOUTS
from bdlf.datasets import DATASETS
from bdlf.datasets.checking.mistakes import likely_mistake
from bdlf.datasets.description import Size
from bdlf.datasets.problems import Finding


@pytest.fixture
def tree(layouts: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an intact tree."""

    def copy(layout: str) -> Path:
        return Path(shutil.copytree(layouts / layout, tmp_path / layout))

    return copy


@pytest.fixture
def command(command):
    """`command(*overrides)` -> (exit code, stdout, stderr) of `python -m bdlf.check`."""
    return lambda *arguments: command("check", *arguments)


def inspected(layout: str, root: Path, *, fast: bool = False, split: int | None = None) -> dict:
    return bdlf.check.inspect(Source(name=layout, root=str(root), split=split), fast=fast)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fast", [False, True])
def test_an_intact_tree_has_no_finding(layouts, layout, fast):
    report = inspected(layout, layouts / layout, fast=fast)
    assert report["findings"] == report["notes"] == [] and report["ok"] and report["hint"] is None
    assert report["synthetic"] and all(row["ok"] for row in report["counts"])
    table = listing(layout, layouts / layout)
    if layout == "regdb":
        assert report["fingerprint"] is None and {row["regdb_split"] for row in report["counts"]} == set(range(1, 11))
    else:
        assert report["fingerprint"] == fingerprint(table, layouts / layout)
    images = len([path for path in (layouts / layout).rglob("*") if path.suffix in (".jpg", ".bmp")])
    assert report["images_opened"] == (0 if fast else images)
    counted = [row for row in report["counts"] if row["regdb_split"] in (None, 1)]
    for row in counted:
        own = table[table["split"] == row["split"]]
        for column, key in (("modality", "modality"), ("camid", "camera")):
            own = own if row[key] is None else own[own[column] == row[key]]
        assert (row["images"], row["identities"]) == (len(own), own["pid"].nunique())


def test_a_stray_file_is_a_note_and_no_finding(tree, command):
    root = tree("sysu")
    for camera in range(1, 7):
        (root / f"cam{camera}/Thumbs.db").write_text("x")
    (root / "exp/rand_perm_cam.mat").unlink()
    code, out, _ = command("dataset=sysu", f"dataset.root='{root}'", "fast=true")
    assert code == 0 and "cam1/Thumbs.db is no image" in out and "and 2 more" in out
    assert "exp/rand_perm_cam.mat is absent" in out and "nothing wrong (no image opened" in out


def test_findings_are_grouped_counted_and_end_in_exit_code_1(tree, command):
    root = tree("llcm")
    gone = sorted((root / "vis").rglob("*_c0*.jpg"))[:7]
    for path in gone:
        path.write_bytes(b"")
    code, out, _ = command("dataset=llcm", f"dataset.root='{root}'", "fast=true")
    assert code == 1
    lines = out.splitlines()
    start = lines.index("empty image: 7")
    assert all(gone[k].relative_to(root).as_posix() in lines[start + 1 + k] for k in range(5))
    assert lines[start + 6] == "  and 2 more"
    assert lines[-1] == "llcm-synthetic: 7 findings of 1 kind (no image opened); json=true has them all"
    assert str(root) not in "".join(lines[start:])


def test_json_is_all_that_stdout_holds(tree, command):
    root = tree("regdb")
    shutil.rmtree(root / "Visible/3")
    code, out, _ = command("dataset=regdb", f"dataset.root='{root}'", "dataset.split=2", "json=true")
    report = json.loads(out)
    assert code == 1 and not report["ok"] and report["dataset"] == "regdb" and report["root"] == str(root)
    assert {row["regdb_split"] for row in report["counts"] + report["protocols"]} == {2}
    assert report["fingerprint"] is None and "RegDB extracted by half, without 1 identity folders" in report["hint"]
    absent = [finding["where"] for finding in report["findings"] if finding["kind"] == "listed image is absent"]
    assert len(absent) == 2 and all(where.startswith("Visible/3/") for where in absent)


def test_the_synthetic_set_is_counted(command):
    size = ["dataset.synthetic.train_identities=3", "dataset.synthetic.test_identities=2"]
    code, out, err = command("dataset=synthetic", "json=true", *size)
    report = json.loads(out)
    assert code == 0, err
    rows = {
        (row["split"], row["modality"]): (row["identities"], row["ok"])
        for row in report["counts"]
        if row["camera"] is None
    }
    assert rows["train", "ir"] == (3, True) and rows["test", None] == (2, True)
    assert report["root"] is None and len(report["fingerprint"]) == 64


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "dataset=sysu"),
        (["dataset=market"], "known: llcm, regdb, synthetic, sysu"),
        (["dataset=sysu", "dataset.root=/no/where"], "no folder '/no/where'"),
        (["dataset=sysu", "dataset.root={file}"], "no folder '{file}'"),
        (["dataset=sysu", "dataset.rot=x"], "did you mean 'dataset.root'"),
        (["dataset=regdb", "dataset.root={folder}", "dataset.split=11"], "splits 1 to 10, not 11"),
        (["dataset=llcm", "dataset.root={folder}", "dataset.split=2"], "one split only"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(command, tmp_path, overrides, words):
    (tmp_path / "file").write_text("x")
    places = {"file": tmp_path / "file", "folder": tmp_path}
    code, out, err = command(*(word.format(**places) for word in overrides))
    assert code == 2 and words.format(**places) in err and err.count("\n") == 1 and not out


def no_val(root: Path) -> None:
    (root / "exp/val_id.txt").unlink()


def val_merged(root: Path) -> None:
    both = [(root / f"exp/{split}_id.txt").read_text().strip() for split in ("train", "val")]
    (root / "exp/train_id.txt").write_text(",".join(both))


def swapped(root: Path) -> None:
    (root / "exp/val_id.txt").rename(root / "exp/aside")
    (root / "exp/train_id.txt").rename(root / "exp/val_id.txt")
    (root / "exp/aside").rename(root / "exp/train_id.txt")


def nested(root: Path) -> None:
    for entry in list(root.iterdir()):
        (root / "SYSU-MM01").mkdir(exist_ok=True)
        entry.rename(root / "SYSU-MM01" / entry.name)


def no_thermal(root: Path) -> None:
    shutil.rmtree(root / "Thermal")


def no_test_folders(root: Path) -> None:
    for word in ("vis", "nir"):
        shutil.rmtree(root / f"test_{word}")


@pytest.mark.parametrize(
    ("layout", "mistake", "words"),
    [
        ("sysu", no_val, "train without val: exp/val_id.txt is not there"),
        ("sysu", val_merged, "train without val: exp/train_id.txt holds all 7 identities"),
        ("sysu", swapped, "exp/train_id.txt and exp/val_id.txt are swapped"),
        ("sysu", nested, "dataset.root={root}/SYSU-MM01"),
        ("regdb", no_thermal, "RegDB extracted by half, without Thermal"),
        ("llcm", no_test_folders, "LLCM without its test folders: 17 of 17"),
    ],
)
def test_a_known_mistake_is_recognised(tree, layout, mistake, words):
    root = tree(layout)
    mistake(root)
    report = inspected(layout, root, fast=True)
    assert words.format(root=root) in report["hint"] and not report["ok"]


@pytest.mark.parametrize(
    ("name", "train", "test", "words"),
    [
        ("llcm", 206, 206, "those of RegDB as published"),
        ("regdb", 713, 351, "those of LLCM as published"),
        ("llcm", 351, 713, "the lists of train and test are swapped"),
        ("llcm", 712, 351, None),
    ],
)
def test_lists_of_another_dataset_are_recognised_by_their_identities(layouts, name, train, test, words):
    found = {("train", None, None): Size(train, 9), ("test", None, None): Size(test, 9)}
    finding = Finding("too few images", "train", "")
    hint = likely_mistake(name, layouts / name, found, DATASETS[name].published, [finding])
    assert hint is None if words is None else words in hint
    assert likely_mistake(name, layouts / name, found, DATASETS[name].published, []) is None


def test_a_root_too_deep_and_another_dataset_are_recognised(layouts, tmp_path):
    assert f"set dataset.root={layouts / 'sysu'}" in inspected("sysu", layouts / "sysu/cam1", fast=True)["hint"]
    report = inspected("llcm", layouts / "sysu", fast=True)
    assert "set dataset=sysu" in report["hint"] and not report["ok"]
    report = inspected("sysu", tmp_path, fast=True)
    assert report["hint"] is None and len(report["findings"]) == 8 and report["protocols"] == []


def test_a_genuine_root_is_compared_with_the_published_counts(tree):
    root = tree("sysu")
    (root / "synthetic.json").unlink()
    # What the published validation identities have not: images by camera 1
    held_out = f"{(root / 'exp/val_id.txt').read_text().split(',')[0]:0>4}"
    shutil.copytree(root / "cam3" / held_out, root / "cam1" / held_out)
    report = inspected("sysu", root, fast=True)
    rows = {(row["split"], row["modality"], row["camera"]): row for row in report["counts"]}
    assert rows["train", None, None]["expected_identities"] == 296 and not report["synthetic"]
    assert rows["test", "ir", 6]["expected_images"] == 1920
    wanted = {row["protocol"]: (row["expected_queries"], row["expected_gallery"]) for row in report["protocols"]}
    assert wanted["ir_to_vis all 1-shot agw"] == (3803, 301)
    kinds = {finding["kind"] for finding in report["findings"]}
    assert kinds == {
        *("too few identities", "too few images", "too many identities", "too many images"),
        *("too few unlisted identities", "protocol of another size", "protocol cannot be scored"),
        "official galleries are damaged",
    }


def test_splits_of_regdb_that_are_equal_share_a_row(tree, command):
    root = tree("regdb")
    name = (root / "idx/train_thermal_4.txt").read_text().split()[0]
    file = root / "idx/train_thermal_4.txt"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if name not in line))
    code, out, _ = command("dataset=regdb", f"dataset.root='{root}'", "fast=true")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│ t")]
    thermal = [row for row in rows if row[:2] == ["train of 4", "infrared"]]
    assert code == 1 and thermal == [["train of 4", "infrared", "2", "4", "4", "7", "8", "1 images missing"]]
    others = "train of 1, 2, 3, 5, 6, 7, 8, 9, 10"
    assert [row[3:] for row in rows if row[:2] == [others, "infrared"]] == [["4", "4", "8", "8", "ok"]]
    assert [row[0] for row in rows if row[0].startswith("test")] == ["test of 1-10"] * 3
