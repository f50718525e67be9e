"""Links in a dataset's folders: inside they are followed, outside only where that is asked for."""

from __future__ import annotations

import shutil

import pytest

from bdlf.data import listing
from bdlf.datasets.checking.inspection import walk
from bdlf.datasets.links import links_out
from bdlf.datasets.problems import Collected
from bdlf.system.errors import InputError


@pytest.fixture
def regdb(layouts, tmp_path):
    return shutil.copytree(layouts / "regdb", tmp_path / "data" / "regdb")


def link_away(path, target) -> None:
    """Move what is at `path` to `target` and leave a link."""
    shutil.move(path, target)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "what", ["Visible", "Thermal/{pid}", "Visible/{pid}/{image}", "idx", "idx/train_visible_1.txt"]
)
def test_a_link_that_leads_out_is_refused_unless_allowed(regdb, tmp_path, what):
    person = sorted((regdb / "Visible").iterdir())[0]
    image = sorted(person.iterdir())[0]
    path = what.format(pid=person.name, image=image.name)
    before = listing("regdb", regdb)
    link_away(regdb / path, tmp_path / "elsewhere")
    said = rf"{path} leads out of the dataset's folder \(1 such links\), to .*elsewhere: .*dataset\.follow_links=true"
    with pytest.raises(InputError, match=said):
        listing("regdb", regdb)
    assert listing("regdb", regdb, follow_links=True).equals(before)
    problems = Collected()
    listing("regdb", regdb, problems=problems)
    assert ("link leads out of the root", path) in [(one.kind, one.where) for one in problems.findings]


def test_links_inside_and_a_linked_root_are_followed(regdb, tmp_path):
    before = listing("regdb", regdb)
    person = sorted((regdb / "Visible").iterdir())[0]
    link_away(person, regdb / "kept")
    image = sorted((regdb / "kept").iterdir())[0]
    link_away(image, regdb / "image.bmp")
    (tmp_path / "linked").symlink_to(regdb)
    assert listing("regdb", tmp_path / "linked").equals(before)
    assert links_out(tmp_path / "linked", ["Visible", "Thermal", "idx", "absent"]) == []


def test_the_inspection_does_not_look_through_a_link_that_leads_out(regdb, tmp_path):
    outside = tmp_path / "data" / "regdb-of-another"  # its name starts with that of the root
    outside.mkdir()
    (outside / "secret.bmp").write_bytes(b"x")
    (regdb / "Visible" / "more").symlink_to(outside)
    (regdb / "Visible" / "secret.bmp").symlink_to(outside / "secret.bmp")
    assert not [path for path in walk("regdb", regdb, Collected()).sizes if "secret" in path]
    found = walk("regdb", regdb, Collected(), follow_links=True).sizes
    assert {"Visible/more/secret.bmp", "Visible/secret.bmp"} <= set(found)
