"""Every kind of damage planted in a tree of SYSU-MM01: the check names it and its place.

Each function plants one and returns (kind, where) of the finding that must come of it.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.io import loadmat, savemat

if TYPE_CHECKING:
    from conftest import Tree

Named = tuple[str, str]


def link_to_itself(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def folder_gone(root: Tree) -> Named:
    shutil.rmtree(root / "cam3")
    return "missing folder", "cam3"


def list_gone(root: Tree) -> Named:
    (root / "exp/test_id.txt").unlink()
    return "missing list", "exp/test_id.txt"


def list_empty(root: Tree) -> Named:
    root.put("exp/test_id.txt", " \n")
    return "empty list", "exp/test_id.txt"


def list_binary(root: Tree) -> Named:
    root.put("exp/val_id.txt", b"\xff\xfe\x00")
    return "unreadable list", "exp/val_id.txt"


def list_links_to_itself(root: Tree) -> Named:
    link_to_itself(root / "exp/val_id.txt")
    return "unreadable list", "exp/val_id.txt"


def list_has_words(root: Tree) -> Named:
    root.edit("exp/train_id.txt", lambda text: text.strip() + ",four\n")
    return "line of wrong form", "exp/train_id.txt:1: 'four'"


def list_in_lines(root: Tree) -> Named:
    root.edit("exp/train_id.txt", lambda text: text.replace(",", "\n"))
    return "line of wrong form", "exp/train_id.txt:2"


def identity_twice(root: Tree) -> Named:
    pid = root.pids("exp/train_id.txt")[1]
    root.edit("exp/train_id.txt", lambda text: text.strip() + f",{pid}\n")
    return "identity named twice", f"exp/train_id.txt:1: identity {pid}"


def identity_in_two_splits(root: Tree) -> Named:
    pid = root.pids("exp/train_id.txt")[1]
    root.edit("exp/test_id.txt", lambda text: text.strip() + f",{pid}\n")
    return "identity in two splits", f"identity {pid}"


def identity_without_image(root: Tree) -> Named:
    root.edit("exp/test_id.txt", lambda text: text.strip() + ",77\n")
    return "identity without any image", "exp/test_id.txt: identity 77"


def training_identity_without_infrared(root: Tree) -> Named:
    pid = root.pids("exp/train_id.txt")[0]
    for camera in (3, 6):
        shutil.rmtree(root / f"cam{camera}/{pid:04d}", ignore_errors=True)
    return "training identity without infrared image", f"identity {pid}"


def training_identity_without_visible(root: Tree) -> Named:
    pid = root.pids("exp/val_id.txt")[0]
    for camera in (1, 2, 4, 5):
        shutil.rmtree(root / f"cam{camera}/{pid:04d}", ignore_errors=True)
    return "training identity without visible image", f"identity {pid}"


def image_gone(root: Tree) -> Named:
    pid = root.pids("exp/train_id.txt")[0]
    (root / f"cam4/{pid:04d}/0002.jpg").unlink()
    return "too few images", "train visible camera 4"


def image_gone_by_name(root: Tree) -> Named:
    image_gone(root)
    return "listed image is absent", f"cam4/{root.pids('exp/train_id.txt')[0]:04d}/0002.jpg"


def image_added(root: Tree) -> Named:
    pid = root.pids("exp/test_id.txt")[0]
    shutil.copy(root / f"cam6/{pid:04d}/0001.jpg", root / f"cam6/{pid:04d}/0003.jpg")
    return "too many images", "test infrared camera 6"


def identity_left_out(root: Tree) -> Named:
    root.edit("exp/train_id.txt", lambda text: ",".join(text.split(",")[1:]))
    return "too few identities", "train infrared camera 3"


def identity_folder_added(root: Tree) -> Named:
    shutil.copytree(root / f"cam1/{root.pids('exp/test_id.txt')[0]:04d}", root / "cam1/0099")
    return "unlisted identity", "cam*/0099"


def image_name(root: Tree) -> Named:
    pid = root.pids("exp/train_id.txt")[0]
    (root / f"cam4/{pid:04d}/0002.jpg").rename(root / f"cam4/{pid:04d}/frame2.jpg")
    return "image name", f"cam4/{pid:04d}/frame2.jpg"


def image_in_camera_folder(root: Tree) -> Named:
    shutil.copy(root / root.first_image("cam2"), root / "cam2/0001.jpg")
    return "image out of place", "cam2"


def folder_named_like_an_image(root: Tree) -> Named:
    pid = root.pids("exp/train_id.txt")[0]
    (root / f"cam5/{pid:04d}/0009.jpg").mkdir()
    return "not a file", f"cam5/{pid:04d}/0009.jpg"


def dangling_link(root: Tree) -> Named:
    (root / "cam1/0050").mkdir()
    (root / "cam1/0050/0001.jpg").symlink_to("nowhere")
    return "not a file", "cam1/0050/0001.jpg"


def image_links_to_itself(root: Tree) -> Named:
    name = root.first_image("cam2")
    link_to_itself(root / name)
    return "not a file", name


def camera_links_to_itself(root: Tree) -> Named:
    link_to_itself(root / "cam3")
    return "unreadable folder", "cam3"


def listed_identity_links_to_itself(root: Tree) -> Named:
    pid = root.pids("exp/train_id.txt")[0]
    link_to_itself(root / f"cam4/{pid:04d}")
    return "unreadable folder", f"cam4/{pid:04d}"


def unlisted_identity_links_to_itself(root: Tree) -> Named:
    link_to_itself(root / "cam1/0050")
    return "unreadable folder", "cam1/0050"


def empty_image(root: Tree) -> Named:
    name = root.first_image("cam3")
    root.put(name, b"")
    return "empty image", name


def text_named_jpg(root: Tree) -> Named:
    name = root.first_image("cam3")
    root.put(name, "404: not found")
    return "not an image", name


def truncated_image(root: Tree) -> Named:
    name = root.first_image("cam6")
    root.put(name, (root / name).read_bytes()[:-200])
    return "image truncated or damaged", name


def bomb(root: Tree) -> Named:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    name = root.first_image("cam6")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0))
    root.put(name, b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return "image too large", name


def galleries_damaged(root: Tree) -> Named:
    root.put("exp/rand_perm_cam.mat", (root / "exp/rand_perm_cam.mat").read_bytes()[:300])
    return "official galleries are damaged", "exp/rand_perm_cam.mat"


def galleries_name_another_image(root: Tree) -> Named:
    cells = loadmat(root / "exp/rand_perm_cam.mat")["rand_perm_cam"]
    pid = root.pids("exp/test_id.txt")[0]
    cells[4, 0][pid - 1, 0][3, 1] = 88
    savemat(root / "exp/rand_perm_cam.mat", {"rand_perm_cam": cells})
    return "listed image is absent", f"cam5/{pid:04d}/0088.jpg"


def galleries_lack_a_folder(root: Tree) -> Named:
    cells = loadmat(root / "exp/rand_perm_cam.mat")["rand_perm_cam"]
    pid = root.pids("exp/test_id.txt")[0]
    cells[4, 0][pid - 1, 0] = np.empty((0, 0))
    savemat(root / "exp/rand_perm_cam.mat", {"rand_perm_cam": cells})
    return "official galleries are damaged", f"exp/rand_perm_cam.mat: cam5/{pid:04d}"


def galleries_have_fractions(root: Tree) -> Named:
    cells = loadmat(root / "exp/rand_perm_cam.mat")["rand_perm_cam"]
    pid = root.pids("exp/test_id.txt")[0]
    cells[4, 0][pid - 1, 0] = cells[4, 0][pid - 1, 0] + 0.5
    savemat(root / "exp/rand_perm_cam.mat", {"rand_perm_cam": cells})
    return "official galleries are damaged", f"exp/rand_perm_cam.mat: cam5/{pid:04d}"


def galleries_hold_words(root: Tree) -> Named:
    cells = loadmat(root / "exp/rand_perm_cam.mat")["rand_perm_cam"]
    cells[1, 0][0, 0] = cells[2, 0][0, 0] = "0001"
    savemat(root / "exp/rand_perm_cam.mat", {"rand_perm_cam": cells})
    return "official galleries are damaged", "exp/rand_perm_cam.mat: cam3/0001"


def record_damaged(root: Tree) -> Named:
    root.put("synthetic.json", "{}")
    return "record of a synthetic tree", "synthetic.json"


DAMAGES = [
    folder_gone,
    list_gone,
    list_empty,
    list_binary,
    list_links_to_itself,
    list_has_words,
    list_in_lines,
    identity_twice,
    identity_in_two_splits,
    identity_without_image,
    training_identity_without_infrared,
    training_identity_without_visible,
    image_gone,
    image_gone_by_name,
    image_added,
    identity_left_out,
    identity_folder_added,
    image_name,
    image_in_camera_folder,
    folder_named_like_an_image,
    dangling_link,
    image_links_to_itself,
    camera_links_to_itself,
    listed_identity_links_to_itself,
    unlisted_identity_links_to_itself,
    empty_image,
    text_named_jpg,
    truncated_image,
    bomb,
    galleries_damaged,
    galleries_name_another_image,
    galleries_lack_a_folder,
    galleries_have_fractions,
    galleries_hold_words,
    record_damaged,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: getattr(damage, "__name__", None))
def test_planted_damage_is_named_with_its_place(written_tree, damage):
    written_tree("sysu").require_named(damage)


def test_galleries_saved_again_as_floats_are_whole(written_tree):
    tree = written_tree("sysu")
    cells = loadmat(tree / "exp/rand_perm_cam.mat")["rand_perm_cam"]
    for camera in cells.ravel():
        for pid in range(len(camera)):
            camera[pid, 0] = camera[pid, 0].astype(float)
    savemat(tree / "exp/rand_perm_cam.mat", {"rand_perm_cam": cells})
    report = tree.inspected()
    assert report["ok"], report["findings"]
    assert any("official" in row["protocol"] for row in report["protocols"])
