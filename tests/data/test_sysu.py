from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from bdlf.data import listing
from bdlf.errors import InputError


def test_every_image_of_the_three_splits_once_in_order(sysu_root):
    table = listing("sysu", sysu_root)
    seen = {1: "123456", 12: "345", 5: "16", 3: "1256", 333: "46"}
    expected = [
        (f"cam{camera}/{pid:04d}/000{k}.jpg", pid, int(camera), "ir" if camera in "36" else "vis", split)
        for split, pids in (("train", (1, 12)), ("val", (5,)), ("test", (3, 333)))
        for pid in pids
        for camera in seen[pid]
        for k in (1, 2)
    ]
    assert list(table.itertuples(index=False, name=None)) == expected
    assert list(table.index) == list(range(len(expected)))
    assert table["pid"].dtype == table["camid"].dtype == np.int64
    assert table.attrs == {"name": "sysu", "passed_over": []}


def test_only_image_files_are_listed_and_the_rest_is_named(sysu_root):
    folder = sysu_root / "cam2/0001"
    for name in ("Thumbs.db", ".hidden.jpg", "notes.txt"):
        (folder / name).write_text("x")
    (folder / "more").mkdir()
    for name in ("0003.JPG", "0004.jpeg", "0005.Png", "0006.bmp"):
        (folder / name).write_text("x")
    table = listing("sysu", sysu_root)
    assert [path[10:] for path in table["path"] if path.startswith("cam2/0001")] == [
        *("0001.jpg", "0002.jpg", "0003.JPG", "0004.jpeg", "0005.Png", "0006.bmp")
    ]
    others = [".hidden.jpg", "Thumbs.db", "more", "notes.txt"]
    assert table.attrs["passed_over"] == [f"cam2/0001/{name}" for name in others]


def write(root, name, text):
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: shutil.rmtree(r / "cam3"), r"lacks the folder cam3 \(1 of 7 are missing\): extract"),
        (lambda r: (shutil.rmtree(r / "cam5"), shutil.rmtree(r / "exp")), r"folder exp \(2 of 7"),
        (lambda r: (r / "exp/val_id.txt").unlink(), r"val_id\.txt cannot be read \(No such file"),
        (lambda r: write(r, "exp/val_id.txt", b"\xff\xfe1"), r"val_id\.txt cannot be read \(not a text file"),
        (lambda r: write(r, "exp/test_id.txt", " \n"), r"test_id\.txt is empty"),
        (lambda r: write(r, "exp/train_id.txt", "\n1,one\n"), r"train_id\.txt:2: 'one' is no identity number"),
        (lambda r: write(r, "exp/train_id.txt", "1,,12"), r"train_id\.txt:1: '' is no identity number"),
        (lambda r: write(r, "exp/train_id.txt", "1,-12"), r"train_id\.txt:1: '-12' is no identity number"),
        (lambda r: write(r, "exp/train_id.txt", "1\n\n12\n"), r"train_id\.txt:3: a second line"),
        (lambda r: write(r, "exp/train_id.txt", "1,12,1"), r"train_id\.txt:1: identity 1 is named twice"),
        (lambda r: write(r, "exp/test_id.txt", "3,12"), r"test_id\.txt: identity 12 is in exp/train_id\.txt too"),
        (lambda r: write(r, "exp/test_id.txt", "3,77"), r"test_id\.txt: identity 77 has no image in any cam\*/0077"),
        (
            lambda r: [shutil.rmtree(r / f"cam{c}/0001") for c in (3, 6)],
            r"1 training identities have no infrared .*\(1\)",
        ),
        (lambda r: shutil.rmtree(r / "cam1/0005"), r"1 training identities have no visible image \(5\)"),
        (lambda r: os.symlink("nowhere", r / "cam1/0003/0009.jpg"), r"0009\.jpg is named like an image but is no file"),
    ],
)
def test_what_is_wrong_on_disk_is_one_line_that_names_it(sysu_root, damage, message):
    damage(sysu_root)
    with pytest.raises(InputError, match=message) as caught:
        listing("sysu", sysu_root)
    assert "\n" not in str(caught.value)


def test_a_test_identity_may_lack_a_modality(sysu_root):
    shutil.rmtree(sysu_root / "cam6/0333")
    table = listing("sysu", sysu_root)
    assert set(table["modality"][table["pid"] == 333]) == {"vis"}


def test_spaces_and_a_byte_order_mark_in_a_split_file_do_no_harm(sysu_root):
    expected = listing("sysu", sysu_root)
    write(sysu_root, "exp/train_id.txt", b"\xef\xbb\xbf 1 , 12 \r\n\r\n")
    assert listing("sysu", sysu_root).equals(expected)
