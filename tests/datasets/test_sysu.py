from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from bdlf.data import listing
from bdlf.datasets.checking import inspection
from bdlf.datasets.problems import STRICT, Collected
from bdlf.datasets.sysu import PERMUTATIONS, read_permutations
from bdlf.datasets.table import read_table
from bdlf.system.errors import InputError


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
    assert read_table("sysu", sysu_root)[1] == []


def test_only_image_files_are_listed_and_the_rest_is_named(sysu_root):
    folder = sysu_root / "cam2/0001"
    for name in ("Thumbs.db", ".hidden.jpg", "notes.txt"):
        (folder / name).write_text("x")
    (folder / "more").mkdir()
    for name in ("0003.JPG", "0004.jpeg", "0005.Png", "0006.bmp"):
        (folder / name).write_text("x")
    table, passed_over = read_table("sysu", sysu_root)
    assert [path[10:] for path in table["path"] if path.startswith("cam2/0001")] == [
        *("0001.jpg", "0002.jpg", "0003.JPG", "0004.jpeg", "0005.Png", "0006.bmp")
    ]
    others = [".hidden.jpg", "Thumbs.db", "more", "notes.txt"]
    assert passed_over == [f"cam2/0001/{name}" for name in others]


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
        (
            lambda r: os.symlink("9.jpg", r / "cam1/0003/9.jpg"),
            r"cam1/0003/9\.jpg is named like an image but is no file",
        ),
        (
            lambda r: os.symlink("0003", r / "cam3/0003"),
            r"cam3/0003 cannot be read \(Too many .*\): make it readable, or",
        ),
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


def refuse(monkeypatch, name, folder):
    """`os.<name>` of `folder` says that this is not permitted; rights alone do not stop a superuser."""
    real = getattr(os, name)

    def guarded(path, *arguments, **options):
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, name, guarded)


def test_a_folder_that_may_not_be_read_is_named(sysu_root, monkeypatch):
    refuse(monkeypatch, "scandir", sysu_root / "cam4/0012")
    message = (
        f"{sysu_root}/cam4/0012 cannot be read (Permission denied): make it readable, or extract the dataset again"
    )
    with pytest.raises(InputError) as caught:
        listing("sysu", sysu_root)
    assert str(caught.value) == message
    problems = Collected()
    walked = inspection.walk("sysu", sysu_root, problems)
    assert problems.findings == [("unreadable folder", "cam4/0012", message)]
    assert "cam4/0333/0001.jpg" in walked.sizes and "cam4/0012/0001.jpg" not in walked.sizes


def test_a_camera_that_may_not_be_looked_at_is_missing(sysu_root, monkeypatch):
    refuse(monkeypatch, "stat", sysu_root / "cam5")
    with pytest.raises(InputError, match="lacks the folder cam5"):
        listing("sysu", sysu_root)


def test_an_image_may_vanish_while_the_check_looks(sysu_root, monkeypatch):
    real = os.stat

    def vanishing(path, **options):
        status = real(path, **options)
        if Path(path).name == "0002.jpg":
            os.unlink(path)
        return status

    monkeypatch.setattr(os, "stat", vanishing)
    problems = Collected()
    walked = inspection.walk("sysu", sysu_root, problems)
    assert len(walked.sizes) == 46 and not problems.findings


def column(*items: object) -> np.ndarray:
    cells = np.empty((len(items), 1), object)
    for row, item in enumerate(items):
        cells[row, 0] = item
    return cells


def write_cells(root: Path, changed: object, camera: int = 2, pid: int = 3) -> None:
    """Galleries of three identities, (10, 4) each; `changed` in the place of one cell."""
    orders = [[np.tile(np.arange(1, 5) + 10 * number + one, (10, 1)) for one in range(3)] for number in range(6)]
    cells = column(*(column(*camera_orders) for camera_orders in orders))
    cells[camera - 1, 0][pid - 1, 0] = changed
    savemat(root / PERMUTATIONS, {"rand_perm_cam": cells})


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_galleries_are_whole_numbers_however_they_were_saved(sysu_root, dtype):
    order = np.random.default_rng(0).permuted(np.tile(np.arange(1, 8), (10, 1)), axis=1)
    write_cells(sysu_root, order.astype(dtype))
    orders = read_permutations(sysu_root, STRICT)
    assert set(orders) == {(camera, pid) for camera in range(1, 7) for pid in (1, 2, 3)}
    assert all(cell.dtype == np.int64 for cell in orders.values())
    assert np.array_equal(orders[2, 3], order) and orders[6, 2].tolist() == [[52, 53, 54, 55]] * 10
    write_cells(sysu_root, np.empty((0, 0)))  # what MATLAB leaves where nothing was put
    assert read_permutations(sysu_root, STRICT)[2, 3].shape == (0, 0)


@pytest.mark.parametrize(
    "cell",
    [
        np.full((10, 4), 1.5),
        np.full((10, 4), np.nan),
        np.full((10, 4), np.inf),
        np.full((10, 4), 1e30),
        np.full((10, 4), 1 + 2j),
        np.ones((10, 4, 2)),
        "0001",
        {"order": 1},
        column(np.ones((10, 4))),
    ],
    ids=["fraction", "nan", "infinite", "huge", "complex", "cube", "text", "struct", "cell"],
)
def test_a_damaged_cell_of_the_galleries_is_named(sysu_root, cell):
    write_cells(sysu_root, cell)
    message = rf"{PERMUTATIONS}: camera 2, identity 3: no matrix of whole numbers: restore the file$"
    with pytest.raises(InputError, match=message):
        read_permutations(sysu_root, STRICT)
    problems = Collected()
    assert len(read_permutations(sysu_root, problems)) == 17
    (finding,) = problems.findings
    assert finding[:2] == ("official galleries are damaged", f"{PERMUTATIONS}: cam2/0003")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"other": np.ones(3)}, "KeyError"),
        ({"rand_perm_cam": np.ones((6, 1))}, "camera 1 has no cells"),
        ({"rand_perm_cam": column(*[column()] * 6)}, "camera 1 has no cells"),
        ({"rand_perm_cam": column(*[column(1)] * 5)}, "5 of 6 cameras"),
    ],
)
def test_a_file_without_the_galleries_cells_is_named(sysu_root, content, reason):
    savemat(sysu_root / PERMUTATIONS, content)
    with pytest.raises(InputError, match=rf"rand_perm_cam\.mat cannot be read as .*{reason}.*: restore it$"):
        read_permutations(sysu_root, STRICT)
    problems = Collected()
    assert read_permutations(sysu_root, problems) == {}
    assert [finding[:2] for finding in problems.findings] == [("official galleries are damaged", PERMUTATIONS)]
