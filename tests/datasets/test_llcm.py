from __future__ import annotations

import shutil

import pytest

from bdlf.data import listing
from bdlf.datasets.table import read_table
from bdlf.system.errors import InputError


def test_training_images_by_index_and_test_images_by_folder(llcm_root):
    table = listing("llcm", llcm_root)
    expected = []
    for pid in (2, 7):
        for camera, words in ((3, ["vis"]), (4, ["nir"]), (9, ["nir", "vis"])):
            for word in words:
                path = f"{word}/{pid:04d}/{pid:04d}_c{camera:02d}_s100_f{camera}5_{word}.jpg"
                expected.append((path, pid, camera, "vis" if word == "vis" else "ir", "train"))
    for pid, camera in ((5, 1), (5, 8), (10, 2)):
        for word in ("nir", "vis"):
            path = f"test_{word}/cam{camera}/{pid:04d}/{pid:04d}_c{camera:02d}_s100_f5_{word}.jpg"
            expected.append((path, pid, camera, "vis" if word == "vis" else "ir", "test"))
    assert list(table.itertuples(index=False, name=None)) == expected
    assert read_table("llcm", llcm_root)[1] == []


def test_what_is_passed_over_in_either_half_is_named(llcm_root):
    (llcm_root / "nir/0002/Thumbs.db").write_text("x")
    (llcm_root / "test_vis/cam8/0005/list.txt").write_text("x")
    assert read_table("llcm", llcm_root)[1] == ["nir/0002/Thumbs.db", "test_vis/cam8/0005/list.txt"]


def replace(root, old, new):
    file = root / "idx/train_vis.txt"
    file.write_text(file.read_text().replace(old, new, 1))


NAME = "vis/0002/0002_c09_s100_f95_vis.jpg"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: shutil.rmtree(r / "test_nir/cam4"), r"lacks the folder test_nir/cam4 \(1 of 20 are missing\)"),
        (lambda r: shutil.rmtree(r / "nir"), r"lacks the folder nir"),
        (lambda r: (r / "idx/train_nir.txt").unlink(), r"train_nir\.txt cannot be read"),
        (lambda r: (r / NAME).unlink(), r"train_vis\.txt:1: .*_f95_vis\.jpg does not exist \(1 of 8 listed"),
        (lambda r: replace(r, NAME, "vis/0002/9.jpg"), r"train_vis\.txt:1: no camera in the name vis/0002/9\.jpg"),
        (
            lambda r: replace(r, NAME, "nir/0002/0002_c09_x.jpg"),
            r"train_vis\.txt:1: .* not of the form vis/<identity>/",
        ),
        (lambda r: replace(r, f"{NAME} 0", f"{NAME} 8"), r"train_vis\.txt:2: folder 2 has label 0, but"),
        (lambda r: (r / "idx/test_id.txt").write_text("5,6"), r"test_id\.txt: identity 6 has no image in test_vis/"),
        (lambda r: (r / "idx/test_id.txt").write_text("5;10"), r"test_id\.txt:1: '5;10' is no identity number"),
    ],
)
def test_what_is_wrong_on_disk_is_one_line_that_names_it(llcm_root, damage, message):
    damage(llcm_root)
    with pytest.raises(InputError, match=message) as caught:
        listing("llcm", llcm_root)
    assert "\n" not in str(caught.value)


def test_there_is_no_infrared_camera_three(llcm_root):
    (llcm_root / "test_nir/cam3/0005").mkdir(parents=True)
    (llcm_root / "test_nir/cam3/0005/0005_c03_s1_f1_nir.jpg").write_text("x")
    assert not listing("llcm", llcm_root)["path"].str.contains("nir/cam3").any()


def test_a_test_identity_that_is_trained_on_is_refused(llcm_root):
    shutil.copytree(llcm_root / "vis/0007", llcm_root / "test_vis/cam1/0007")
    (llcm_root / "idx/test_id.txt").write_text("5,7")
    with pytest.raises(InputError, match="identity 7 is in two splits"):
        listing("llcm", llcm_root)
