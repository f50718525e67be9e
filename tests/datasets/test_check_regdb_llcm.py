"""Every kind of damage planted in a tree of RegDB or LLCM: the check names it and its place.

Each function plants one and returns (kind, where) of the finding that must come of it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Tree

Named = tuple[str, str]


def index_gone(root: Tree) -> Named:
    (root / "idx/test_thermal_7.txt").unlink()
    return "missing list", "idx/test_thermal_7.txt"


def index_folder_gone(root: Tree) -> Named:
    shutil.rmtree(root / "idx")
    return "missing folder", "idx"


def index_line_cut(root: Tree) -> Named:
    root.edit("idx/train_visible_2.txt", lambda text: text.replace(" ", "\t?", 1))
    return "line of wrong form", "idx/train_visible_2.txt:1"


def index_leaves_the_root(root: Tree) -> Named:
    root.edit("idx/train_visible_2.txt", lambda text: "../" + text)
    return "path leaves the root", "idx/train_visible_2.txt:1"


def index_image_gone(root: Tree) -> Named:
    name = root.lines("idx/test_visible_1.txt")[1].split()[0]
    (root / name).unlink()
    return "listed image is absent", name


def index_image_twice(root: Tree) -> Named:
    root.edit("idx/test_visible_4.txt", lambda text: text + text.splitlines()[2] + "\n")
    return "image listed twice", "idx/test_visible_4.txt:9"


def index_label(root: Tree) -> Named:
    root.edit("idx/train_thermal_3.txt", lambda text: text.strip()[:-1] + "0\n")
    return "label does not match the folder", "idx/train_thermal_3.txt:8"


def index_of_other_people(root: Tree) -> Named:
    one, other = (root.lines(f"idx/test_{word}_5.txt") for word in ("thermal", "visible"))
    people = [line.split("/")[1] for line in other]
    stranger = next(line for line in root.lines("idx/train_thermal_5.txt") if line.split("/")[1] not in people)
    root.put("idx/test_thermal_5.txt", "\n".join([*one[:-1], stranger]))
    return "lists name different people", "idx/test_*_5.txt"


def index_halves_share_people(root: Tree) -> Named:
    for word in ("visible", "thermal"):
        stranger = root.lines(f"idx/train_{word}_6.txt")[0].rsplit(" ", 1)[0]
        root.edit(f"idx/test_{word}_6.txt", lambda text, stranger=stranger: text + f"{stranger} 9\n")
    return "identity in two splits", f"identity {stranger.split('/')[1]}"


def index_repeated(root: Tree) -> Named:
    for half in ("train", "test"):
        for word in ("visible", "thermal"):
            shutil.copy(root / f"idx/{half}_{word}_2.txt", root / f"idx/{half}_{word}_8.txt")
    return "split repeats another", "idx/test_thermal_8.txt"


def index_of_the_other_modality(root: Tree) -> Named:
    other = root.lines("idx/train_thermal_1.txt")[0]
    root.edit("idx/train_visible_1.txt", lambda text: "\n".join([other, *text.splitlines()[1:]]))
    return "image out of place", "idx/train_visible_1.txt:1"


def thermal_image_among_visible(root: Tree) -> Named:
    name = root.first_image("Thermal/4")
    shutil.move(root / name, root / "Visible/4")
    return "image out of place", name.replace("Thermal", "Visible")


def image_of_another_person(root: Tree) -> Named:
    name = root.first_image("Visible/4")
    shutil.move(root / name, root / "Visible/5")
    return "image out of place", name.replace("/4/", "/5/")


def image_in_no_index(root: Tree) -> Named:
    root.put("Visible/4/male_front_v_99999_4.bmp", (root / root.first_image("Visible/4")).read_bytes())
    return "unlisted image", "Visible/4/male_front_v_99999_4.bmp"


def identity_in_no_index(root: Tree) -> Named:
    root.put("Thermal/99/male_front_t_99999_99.bmp", (root / root.first_image("Thermal/4")).read_bytes())
    return "unlisted identity", "Thermal/99"


def modality_gone(root: Tree) -> Named:
    shutil.rmtree(root / "Thermal")
    return "missing folder", "Thermal"


def camera_folder_gone(root: Tree) -> Named:
    shutil.rmtree(root / "test_nir/cam7")
    return "missing folder", "test_nir/cam7"


def copy_of_a_test_image_gone(root: Tree) -> Named:
    name = root.first_image("test_vis")
    (root / name).unlink()
    return "test copy is absent", name.rpartition("/")[0]


def no_camera_in_the_name(root: Tree) -> Named:
    name = root.lines("idx/train_vis.txt")[0].split()[0]
    (root / name).rename(root / name.replace("_c0", "_x0"))
    root.edit("idx/train_vis.txt", lambda text: text.replace("_c0", "_x0", 1))
    return "image name", "idx/train_vis.txt:1"


def of_another_camera(root: Tree) -> Named:
    name = root.first_image("test_vis")
    camera = int(name.split("/")[1][3:])
    return root.moved(name, name.replace(f"cam{camera}", f"cam{camera % 9 + 1}"))


def of_another_modality(root: Tree) -> Named:
    name = next(line.split()[0] for line in root.lines("idx/train_nir.txt"))
    return root.moved(name, "vis" + name[3:])


def of_another_identity(root: Tree) -> Named:
    name = next(line.split()[0] for line in root.lines("idx/train_nir.txt"))
    return root.moved(name, f"nir/0099/{Path(name).name}")


def infrared_camera_three(root: Tree) -> Named:
    name = root.first_image("test_nir")
    root.put(f"test_nir/cam3/0001/{Path(name).name}", (root / name).read_bytes())
    return "image out of place", "test_nir/cam3/0001"


def trained_and_tested(root: Tree) -> Named:
    pid = root.pids("idx/test_id.txt")[0]
    name = root.first_image(f"vis/{pid:04d}")
    root.edit("idx/train_vis.txt", lambda text: text + f"{name} 99\n")
    return "identity in two splits", f"identity {pid}"


REGDB = [
    index_gone,
    index_folder_gone,
    index_line_cut,
    index_leaves_the_root,
    index_image_gone,
    index_image_twice,
    index_label,
    index_of_other_people,
    index_halves_share_people,
    index_repeated,
    index_of_the_other_modality,
    thermal_image_among_visible,
    image_of_another_person,
    image_in_no_index,
    identity_in_no_index,
    modality_gone,
]
LLCM = [
    camera_folder_gone,
    copy_of_a_test_image_gone,
    no_camera_in_the_name,
    of_another_camera,
    of_another_modality,
    of_another_identity,
    infrared_camera_three,
    trained_and_tested,
]


@pytest.mark.parametrize(
    ("layout", "damage"),
    [*(("regdb", one) for one in REGDB), *(("llcm", one) for one in LLCM)],
    ids=lambda damage: getattr(damage, "__name__", None),
)
def test_planted_damage_is_named_with_its_place(written_tree, layout, damage):
    written_tree(layout).require_named(damage)
