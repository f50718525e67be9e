"""Trees in the real layouts: every documented file, readable, consistent, and never half written."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from bdlf.data.synthetic import layouts as synthetic_layouts
from bdlf.data.synthetic.drawing import render
from bdlf.data.synthetic.factors import factor_columns
from bdlf.data.synthetic.layouts import LAYOUTS, write_layout
from bdlf.system.errors import InputError

IDENTITIES, IMAGES, HEIGHT, WIDTH = 13, 3, 32, 16
SIZE = {"identities": IDENTITIES, "images": IMAGES, "height": HEIGHT, "width": WIDTH}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = {layout: tmp_path_factory.mktemp("trees") / layout for layout in LAYOUTS}
    for layout, root in roots.items():
        write_layout(layout, root, seed=7, **SIZE)
    return roots


def files(root: Path) -> dict[str, str]:
    """Relative path -> digest of every file."""
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def images(root: Path) -> list[str]:
    return [name for name in files(root) if name.endswith((".jpg", ".bmp"))]


def id_line(path: Path) -> list[int]:
    """The one comma-separated line of an identity file."""
    (line,) = path.read_text().splitlines()
    return [int(number) for number in line.split(",")]


def index(path: Path) -> list[tuple[str, int]]:
    pairs = [line.split(" ") for line in path.read_text().splitlines()]
    return [(name, int(label)) for name, label in pairs]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_decode_at_their_size_and_infrared_is_grey(layout: str, trees: dict[str, Path]) -> None:
    names = images(trees[layout])
    assert len(names) > IDENTITIES * IMAGES * 2 - 1
    infrared = re.compile(r"^(cam[36]/|Thermal/|nir/|test_nir/)")
    for name in names:
        with Image.open(trees[layout] / name) as image:
            assert image.size == (WIDTH, HEIGHT)
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert (np.ptp(pixels, axis=2).max() < 3) == bool(infrared.match(name)), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_record_counts_what_is_there(layout: str, trees: dict[str, Path]) -> None:
    record = json.loads((trees[layout] / "synthetic.json").read_text())
    assert {key: record[key] for key in ("schema", "layout", "seed", "images", "height", "width")} == {
        "schema": 2,
        "layout": layout,
        "seed": 7,
        "images": IMAGES,
        "height": HEIGHT,
        "width": WIDTH,
    }
    assert sum(record["identities"].values()) == IDENTITIES
    assert set(record["counts"]) == ({"train", "val", "test"} if layout == "sysu" else {"train", "test"})
    total = sum(count for split in record["counts"].values() for count in split.values())
    assert total == len([name for name in images(trees[layout]) if not name.startswith("test_")])
    for split, kinds in record["counts"].items():
        for kind, count in kinds.items():
            by_camera = record["cameras"][split][kind].values()
            assert sum(camera["images"] for camera in by_camera) == count
            assert max(camera["identities"] for camera in by_camera) <= record["identities"][split]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_seed_same_files_other_seed_others(layout: str, trees: dict[str, Path], tmp_path: Path) -> None:
    write_layout(layout, tmp_path / "again", seed=7, **SIZE)
    assert files(tmp_path / "again") == files(trees[layout])
    write_layout(layout, tmp_path / "other", seed=8, **SIZE)
    shared = files(trees[layout]).items() & files(tmp_path / "other").items()
    assert not [name for name, _ in shared if name.endswith((".jpg", ".bmp"))]


def test_files_show_the_factors_of_their_identity(trees: dict[str, Path]) -> None:
    """Lossless RegDB: person 3's second thermal image is exactly what its factors say."""
    keys = {"identity": np.array([2]), "modality": np.array(["ir"]), "camid": np.array([2]), "image": np.array([1])}
    expected = render(factor_columns(seed=7, pool="regdb", **keys).assign(modality="ir"), HEIGHT, WIDTH)[0]
    second = sorted((trees["regdb"] / "Thermal/3").iterdir(), key=lambda path: path.stem.split("_")[3])[1]
    with Image.open(second) as image:
        assert np.array_equal(np.asarray(image), expected)


def test_sysu_cameras_and_splits(trees: dict[str, Path]) -> None:
    root = trees["sysu"]
    seen: dict[int, set[int]] = {}
    for name in images(root):
        camera, pid, number = re.fullmatch(r"cam([1-6])/(\d{4})/(\d{4})\.jpg", name).groups()
        assert 1 <= int(number) <= IMAGES
        seen.setdefault(int(pid), set()).add(int(camera))
    splits = [id_line(root / f"exp/{split}_id.txt") for split in ("train", "val", "test")]
    assert sorted(splits[0] + splits[1] + splits[2]) == sorted(seen)
    assert all(own and own == sorted(own) for own in splits)
    assert len(seen) == IDENTITIES
    assert all(cameras & {1, 2, 4, 5} and cameras & {3, 6} for cameras in seen.values())
    assert len({frozenset(cameras) for cameras in seen.values()}) > 2  # not everybody is seen by every camera
    assert max(seen) > IDENTITIES  # numbers have gaps


def test_sysu_permutations_have_the_official_structure(trees: dict[str, Path]) -> None:
    root = trees["sysu"]
    cameras = loadmat(root / "exp/rand_perm_cam.mat")["rand_perm_cam"]
    assert cameras.shape == (6, 1)
    assert cameras.dtype == object
    for camera in range(1, 7):
        cells = cameras[camera - 1][0]
        folders = [int(path.name) for path in (root / f"cam{camera}").iterdir()]
        assert cells.shape == (max(folders), 1)
        assert cells.dtype == object
        for pid in range(1, max(folders) + 1):
            orders = cells[pid - 1][0]
            count = IMAGES if pid in folders else 0
            assert orders.shape == (10, count)
            assert orders.dtype == np.uint8
            assert (np.sort(orders, axis=1) == 1 + np.arange(count)).all()
    orders = np.concatenate([cell[0] for cell in cameras[3][0] if cell[0].size])
    assert len(np.unique(orders, axis=0)) == 6  # every order of three images occurs


def test_regdb_splits(trees: dict[str, Path]) -> None:
    root = trees["regdb"]
    pattern = re.compile(r"(Visible|Thermal)/(\d+)/(?:male|female)_(?:front|back)_([vt])_\d{5}_(\d+)\.bmp")
    assert len(images(root)) == IDENTITIES * 2 * IMAGES
    halves = set()
    for trial in range(1, 11):
        members: dict[str, dict[int, int]] = {}
        for half in ("train", "test"):
            for word, folder, letter in (("visible", "Visible", "v"), ("thermal", "Thermal", "t")):
                lines = index(root / f"idx/{half}_{word}_{trial}.txt")
                assert len({name for name, _ in lines}) == len(lines)
                assert all((root / name).is_file() for name, _ in lines)
                found = [pattern.fullmatch(name).groups() for name, _ in lines]
                assert all(one[0] == folder and one[2] == letter and one[1] == one[3] for one in found)
                labels = {int(one[1]): label for one, (_, label) in zip(found, lines, strict=True)}
                assert sorted(labels.values()) == list(range(len(labels)))
                assert len(lines) == len(labels) * IMAGES
                assert members.setdefault(half, labels) == labels  # the same in both modalities
        assert len(members["train"]) == IDENTITIES // 2
        assert sorted([*members["train"], *members["test"]]) == list(range(1, IDENTITIES + 1))
        halves.add(frozenset(members["train"]))
    assert len(halves) == 10


def test_llcm_index_files_and_test_folders(trees: dict[str, Path]) -> None:
    root = trees["llcm"]
    pattern = re.compile(r"(vis|nir)/(\d{4})/(\d{4})_c0([1-9])_s\d{6}_f\d+_(vis|nir)\.jpg")
    test_ids = id_line(root / "idx/test_id.txt")
    listed, copies = set(), set()
    infrared_cameras = set()
    for split in ("train", "test"):
        pids = {}
        for word in ("vis", "nir"):
            labels = {}
            for name, label in index(root / f"idx/{split}_{word}.txt"):
                folder, pid, again, camera, modality = pattern.fullmatch(name).groups()
                assert folder == modality == word
                assert pid == again
                labels[int(pid)] = label
                listed.add(name)
                if split == "test":
                    copy = f"test_{word}/cam{camera}/{pid}/{name.rsplit('/', 1)[1]}"
                    assert (root / copy).read_bytes() == (root / name).read_bytes()
                    copies.add(copy)
                if word == "nir":
                    infrared_cameras.add(int(camera))
            assert sorted(labels.values()) == list(range(len(labels)))
            pids[word] = labels
        assert pids["vis"] == pids["nir"]
        assert set(pids["vis"]) == (set(test_ids) if split == "test" else set(range(1, IDENTITIES + 1)) - set(test_ids))
    assert sorted(listed | copies) == images(root)
    assert 3 not in infrared_cameras
    assert test_ids == sorted(test_ids)


def test_llcm_queries_have_another_camera_to_be_found_in(trees: dict[str, Path]) -> None:
    root = trees["llcm"]
    for pid in id_line(root / "idx/test_id.txt"):
        for query, gallery in (("vis", "nir"), ("nir", "vis")):
            asked, kept = (
                {path.parent.name for path in root.glob(f"test_{word}/cam*/{pid:04d}")} for word in (query, gallery)
            )
            assert asked
            assert all(kept - {camera} for camera in asked)


def test_a_tree_of_ours_is_replaced_and_anything_else_refused(tmp_path: Path) -> None:
    root = tmp_path / "deep/tree"
    write_layout("regdb", root, **SIZE)
    before = set(images(root))
    record = write_layout("regdb", root, **SIZE | {"identities": 4})
    assert set(images(root)) < before
    assert [path.name for path in root.parent.iterdir()] == ["tree"]
    assert record == json.loads((root / "synthetic.json").read_text())

    (tmp_path / "empty").mkdir()
    write_layout("regdb", tmp_path / "empty", **SIZE)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "synthetic.json").write_text('{"generator": "another"}')
    (foreign / "keep.txt").write_text("mine")
    with pytest.raises(InputError, match="foreign is not empty"):
        write_layout("regdb", foreign, **SIZE)
    assert sorted(files(foreign)) == ["keep.txt", "synthetic.json"]
    with pytest.raises(InputError, match="is a file"):
        write_layout("regdb", foreign / "keep.txt", **SIZE)


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "tree"
    write_layout("sysu", root, **SIZE)
    before = files(root)
    calls = iter([True, False])

    def fails_at_the_second_chunk(*arguments: object) -> np.ndarray:
        if not next(calls):
            raise KeyboardInterrupt
        return render(*arguments)

    monkeypatch.setattr(synthetic_layouts, "_CHUNK", 8)
    monkeypatch.setattr(synthetic_layouts, "render", fails_at_the_second_chunk)
    with pytest.raises(KeyboardInterrupt):
        write_layout("sysu", root, seed=1, **SIZE)
    assert files(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize(
    ("layout", "options", "word"),
    [
        ("market", {}, "unknown layout 'market': choose one of sysu, regdb, llcm"),
        ("sysu", {"identities": 3}, "identities=3"),
        ("sysu", {"images": 0}, "images=0"),
        ("llcm", {"seed": -1}, "seed -1"),
        ("llcm", {"height": 2}, "2 x 16"),
    ],
)
def test_what_cannot_be_written_is_refused(layout: str, options: dict, word: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=word):
        write_layout(layout, tmp_path / "tree", **SIZE | options)
    assert not list(tmp_path.iterdir())
