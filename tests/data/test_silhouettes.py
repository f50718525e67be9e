"""Silhouettes: drawn ones cover the drawn person and nothing else, and files are known by their content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bdlf.data.listing import listing
from bdlf.data.silhouettes import require_silhouettes, silhouettes_fingerprint
from bdlf.data.synthetic.drawing import render, render_silhouettes
from bdlf.data.synthetic.factors import FACTOR_KINDS, synthetic_listing
from bdlf.data.synthetic.layouts import LAYOUTS, write_layout
from bdlf.system.errors import InputError

SIZE = (64, 32)
BODY = [name for name in FACTOR_KINDS if name.startswith(("colour_", "emissivity_")) and "_bag" not in name]
"""The factors that colour the person."""


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    """People in even light and without noise, of whom two thirds stand behind a pole or a box."""
    table = synthetic_listing(train_identities=24, test_identities=0, images_per_identity=1)
    tints = dict.fromkeys(["tint_red", "tint_green", "tint_blue", "light"], 1.0)
    return table.assign(occluder=np.arange(len(table)) % 3, noise=0.0, light_gradient=0.0, **tints)


@pytest.fixture(scope="module")
def silhouettes(people: pd.DataFrame) -> np.ndarray:
    return render_silhouettes(people, *SIZE)


def drawn(people: pd.DataFrame, **factors: float) -> np.ndarray:
    """Images as numbers that can be subtracted, with some factors of all people changed."""
    return render(people.assign(**factors), *SIZE).astype(int)


def test_a_silhouette_is_as_opaque_as_the_person(people: pd.DataFrame, silhouettes: np.ndarray) -> None:
    """The difference between white and black people is the person's opacity, times the shade of each part, 0.7 to 1."""
    people = people.assign(bag=0)
    difference = drawn(people, **dict.fromkeys(BODY, 1.0)) - drawn(people, **dict.fromkeys(BODY, 0.0))
    assert set(people["modality"]) == {"vis", "ir"}
    assert (difference <= silhouettes.astype(int) + 2).all()
    assert (difference >= 0.7 * silhouettes - 3).all()
    opaque = difference.max(axis=3) > 170
    inside = opaque[:, 1:-1, 1:-1] & opaque[:, :-2, 1:-1] & opaque[:, 2:, 1:-1] & opaque[:, 1:-1, :-2]
    inside &= opaque[:, 1:-1, 2:]
    assert (silhouettes[:, 1:-1, 1:-1][inside] > 240).mean() > 0.95, "arms and legs, which are shaded, are white too"
    assert ((silhouettes > 20) & (silhouettes < 235)).any(axis=(1, 2, 3)).all(), "edges are soft"
    assert silhouettes.dtype == np.uint8 and (silhouettes == silhouettes[..., :1]).all()


def test_what_an_occluder_hides_is_not_in_the_silhouette(people: pd.DataFrame, silhouettes: np.ndarray) -> None:
    hidden = (drawn(people, occluder_shade=1.0) - drawn(people, occluder_shade=0.0)) / 255  # its opacity, 0 to 1
    whole = render_silhouettes(people.assign(occluder=0), *SIZE)
    np.testing.assert_allclose(silhouettes, (1 - hidden) * whole, atol=2)
    for kind in ("vis", "ir"):
        assert (whole[people["modality"] == kind] > silhouettes[people["modality"] == kind] + 200).any()


@pytest.mark.parametrize("name", ["bag", "bag_size", "noise", "light", "background_horizon", *BODY])
def test_a_silhouette_shows_neither_bag_nor_colours_nor_scene(
    name: str, people: pd.DataFrame, silhouettes: np.ndarray
) -> None:
    other = people.assign(**{name: synthetic_listing(train_identities=24, seed=1)[name][: len(people)]})
    assert np.array_equal(render_silhouettes(other, *SIZE), silhouettes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_silhouettes_are_written_under_the_paths_of_the_images(layout: str, tmp_path: Path) -> None:
    size = {"identities": 6, "images": 2, "height": 64, "width": 32}
    write_layout(layout, tmp_path / "plain", **size)
    for _ in range(2):  # the second time, both trees are replaced
        record = write_layout(layout, tmp_path / "tree", silhouettes=tmp_path / "maps", **size)

    def files(root: Path) -> dict[str, str]:
        found = [path for path in root.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    assert files(tmp_path / "tree") == files(tmp_path / "plain"), "the images are the same with and without silhouettes"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "plain", "tree"]
    table = listing(layout, tmp_path / "tree")
    assert set(table["path"]) <= set(files(tmp_path / "maps"))
    assert json.loads((tmp_path / "maps" / "synthetic.json").read_text()) == record
    for path in table["path"][:8]:
        person, image = (np.asarray(Image.open(tmp_path / one / path).convert("RGB")) for one in ("maps", "tree"))
        assert person.shape == image.shape and (person == person[..., :1]).all()
        assert (person > 250).mean() > 0.05 and (person < 5).mean() > 0.4
    plain = {"identities": 4, "images": 1, "height": 16, "width": 8}
    for inner in ("tree", "tree/maps", "."):
        with pytest.raises(InputError, match="name two folders, neither of them in the other"):
            write_layout(layout, tmp_path / "tree", silhouettes=tmp_path / inner, **plain)
    (tmp_path / "maps" / "synthetic.json").unlink()
    with pytest.raises(InputError, match="maps is not empty"):
        write_layout(layout, tmp_path / "new", silhouettes=tmp_path / "maps", **plain)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """A folder of three files, and the listing of the two of them that are trained on."""
    for name in ("a/1.bmp", "a/2.bmp", "b/3.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path, pd.DataFrame({"path": ["a/1.bmp", "a/2.bmp"], "pid": [4, 4]}, index=[7, 3])


def test_files_are_known_by_their_content_wherever_they_lie(maps: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    folder, table = maps
    before = silhouettes_fingerprint(folder, table)
    assert silhouettes_fingerprint(folder, table.iloc[::-1]) == before
    (folder / "b/3.bmp").write_bytes(b"of a test image")
    moved = folder.rename(folder.with_name("moved"))
    assert silhouettes_fingerprint(moved, table) == before
    (moved / "a/2.bmp").write_bytes(b"a/9.bmp")  # of the same size
    assert silhouettes_fingerprint(moved, table) != before


def test_missing_files_are_counted_and_the_first_is_named(maps: tuple[Path, pd.DataFrame]) -> None:
    folder, table = maps
    require_silhouettes(folder, table)
    (folder / "a/2.bmp").unlink()
    for check in (require_silhouettes, silhouettes_fingerprint):
        with pytest.raises(InputError, match=r"a/2\.bmp does not exist \(1 of the 2 silhouettes .*dataset.silhouettes"):
            check(folder, table)
