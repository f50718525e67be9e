from __future__ import annotations

import pytest

from bdlf.data import listing
from bdlf.datasets.problems import Collected
from bdlf.datasets.table import read_table
from bdlf.system.errors import InputError


@pytest.mark.parametrize(("split", "train", "test"), [(1, (3, 20), (1, 100)), (2, (1, 100), (3, 20))])
def test_both_halves_of_a_split_with_the_folders_number_as_pid(regdb_root, split, train, test):
    table = listing("regdb", regdb_root, split=split)
    expected = [
        (f"{folder}/{pid}/male_back_{letter}_{frame}_{pid}.bmp", pid, camera, modality, half)
        for half, pids in (("train", train), ("test", test))
        for pid in pids
        for folder, letter, camera, modality in (("Visible", "v", 1, "vis"), ("Thermal", "t", 2, "ir"))
        for frame in ("00004", "00017")
    ]
    assert list(table.itertuples(index=False, name=None)) == expected
    assert read_table("regdb", regdb_root, split=split)[1] == []


def test_stray_files_are_named_and_an_unlisted_image_is_not_in_the_split(regdb_root):
    before = listing("regdb", regdb_root)
    (regdb_root / "Thermal/3/Thumbs.db").write_text("x")
    (regdb_root / "Thermal/3/unlisted.bmp").write_text("x")
    after, passed_over = read_table("regdb", regdb_root)
    assert passed_over == ["Thermal/3/Thumbs.db"]
    assert list(after["path"]) == list(before["path"])


def test_a_path_may_hold_a_space_and_a_dot_folder(regdb_root):
    old, new = "Visible/3/male_back_v_00004_3.bmp", "Visible/3/a b.bmp"
    (regdb_root / old).rename(regdb_root / new)
    edit(regdb_root, "train_visible_1", old, "./" + new)
    assert new in set(listing("regdb", regdb_root)["path"])


def edit(root, name, old, new):
    file = root / f"idx/{name}.txt"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


ONE = "Visible/20/male_back_v_00017_20.bmp"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train_visible_1", f"{ONE} 0", "/etc/passwd.bmp 0", r"train_visible_1\.txt:1: .* leaves the dataset's folder"),
        (
            "train_visible_1",
            f"{ONE} 0",
            "Visible/../x.bmp 0",
            r"train_visible_1\.txt:1: .* leaves the dataset's folder",
        ),
        ("train_visible_1", f"{ONE} 0", ONE, r"train_visible_1\.txt:1: .* is not a path and a label"),
        ("train_visible_1", f"{ONE} 0", f"{ONE} zero", r"train_visible_1\.txt:1: .* is not a path and a label"),
        ("train_visible_1", ONE, "Thermal/20/x.bmp", r":1: 'Thermal/20/x\.bmp' is not of the form Visible/<identity>/"),
        ("train_visible_1", ONE, "Visible/twenty/x.bmp", r":1: .* is not of the form Visible/<identity>/<image>"),
        ("train_visible_1", ONE, f"{'x' * 300}/20/x.bmp", r":1: .* is not of the form Visible/<identity>/<image>"),
        ("train_visible_1", ONE, "Visible/20/x.txt", r":1: .* is not of the form Visible/<identity>/<image>"),
        ("train_visible_1", ONE, "Visible/20/a/x.bmp", r":1: .* is not of the form Visible/<identity>/<image>"),
        ("train_visible_1", ONE, "Visible/20/male_back_v_00004_20.bmp", r":2: Visible/20/.* is on line 1 already"),
        ("train_visible_1", ONE, "Visible/20/gone.bmp", r":1: .*gone\.bmp does not exist \(1 of 8 listed images"),
        ("train_visible_1", f"{ONE} 0", f"{ONE} 1", r"_1\.txt:2: folder 20 has label 0, but folder 20 had label 1"),
        ("train_visible_1", "_3.bmp 1", "_3.bmp 0", r"_1\.txt:3: folder 3 has label 0, but that label was folder 20's"),
        ("train_thermal_1", "_20.bmp 0", "_20.bmp 5", r"train_thermal_1\.txt:1: folder 20 has label 5"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(regdb_root, name, old, new, message):
    edit(regdb_root, name, old, new)
    with pytest.raises(InputError, match=message) as caught:
        listing("regdb", regdb_root)
    assert "\n" not in str(caught.value)


def test_images_and_split_files_that_are_missing_are_counted_and_named(regdb_root):
    for file in (regdb_root / "Visible/20").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"train_visible_1\.txt:1: .*_20\.bmp does not exist \(2 of 8 listed images"):
        listing("regdb", regdb_root)
    with pytest.raises(InputError, match=r"train_visible_3\.txt cannot be read"):
        listing("regdb", regdb_root, split=3)
    (regdb_root / "idx/train_visible_1.txt").write_text("")
    with pytest.raises(InputError, match=r"train_visible_1\.txt is empty"):
        listing("regdb", regdb_root)


@pytest.mark.parametrize("split", [0, 11])
def test_there_are_ten_splits(regdb_root, split):
    with pytest.raises(InputError, match=f"splits 1 to 10, not {split}: set dataset.split"):
        listing("regdb", regdb_root, split=split)


def test_a_person_in_both_halves_is_refused(regdb_root):
    for word in ("visible", "thermal"):
        other = (regdb_root / f"idx/test_{word}_2.txt").read_text().splitlines()
        (regdb_root / f"idx/test_{word}_1.txt").write_text("\n".join(other[:2]))
    with pytest.raises(InputError, match=r"identity 3 is in two splits \(1 such"):
        listing("regdb", regdb_root)


def test_a_training_identity_without_thermal_images_is_named(regdb_root):
    file = regdb_root / "idx/train_thermal_1.txt"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "/3/" not in line))
    with pytest.raises(InputError, match=r"1 training identities have no infrared image \(3\)"):
        listing("regdb", regdb_root)


def test_lists_of_different_test_people_stop_nobody_but_are_collected(regdb_root):
    file = regdb_root / "idx/test_thermal_1.txt"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "/100/" not in line))
    assert set(listing("regdb", regdb_root).query("split == 'test'")["pid"]) == {1, 100}
    problems = Collected()
    listing("regdb", regdb_root, problems=problems)
    (finding,) = problems.findings
    assert finding[:2] == ("lists name different people", "idx/test_*_1.txt") and "(100)" in finding.message
    assert not problems.stopping


def test_a_collecting_reader_goes_on_and_keeps_what_is_readable(regdb_root):
    whole = listing("regdb", regdb_root)
    edit(regdb_root, "train_visible_1", f"{ONE} 0", f"{ONE} zero")
    gone = "Thermal/1/male_back_t_00004_1.bmp"
    (regdb_root / gone).unlink()
    problems = Collected()
    table = listing("regdb", regdb_root, problems=problems)
    assert set(whole["path"]) - set(table["path"]) == {ONE, gone}
    places = {"line of wrong form": "idx/train_visible_1.txt:1", "listed image is absent": gone}
    assert {finding.kind: finding.where for finding in problems.findings} == places and problems.stopping
