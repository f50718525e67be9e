"""Settings on small listings. The galleries are compared with those that the field's code draws from real folders."""

from __future__ import annotations

import json
import os
import random
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from bdlf.evaluation import Asked, Choice, choices, retrieval_metrics, settings
from bdlf.system.errors import InputError

SYSU_FOLDERS = {  # (camera, identity): images; identity 40 is nowhere in cameras 1 and 2, 6 not in camera 4
    (1, 6): 12, (2, 6): 11, (5, 6): 13, (3, 6): 3, (6, 6): 2,
    (1, 17): 10, (4, 17): 17, (5, 17): 10, (3, 17): 2, (6, 17): 4,
    (4, 40): 11, (5, 40): 12, (6, 40): 2,
    (2, 333): 15, (4, 333): 10, (3, 333): 1,
}  # fmt: skip
VISIBLE = {"all": (1, 2, 4, 5), "indoor": (1, 2)}


def listing_of(paths, parse, seed=0):
    """Rows in random order; `parse` gives (pid, camid, modality, split) of a path."""
    paths = [paths[i] for i in np.random.default_rng(seed).permutation(len(paths))]
    columns = zip(*(parse(path) for path in paths), strict=True)
    return pd.DataFrame({"path": paths, **dict(zip(("pid", "camid", "modality", "split"), columns, strict=True))})


def sysu_listing():
    """The test folders above, and a training identity in every camera."""
    counts = {**SYSU_FOLDERS, **{(camera, 1): 12 for camera in range(1, 7)}}
    paths = [f"cam{c}/{pid:04d}/{n:04d}.jpg" for (c, pid), count in counts.items() for n in range(1, count + 1)]

    def parse(path):
        camid, pid = int(path[3]), int(path[5:9])
        return pid, camid, "ir" if camid in (3, 6) else "vis", "train" if pid == 1 else "test"

    return listing_of(paths, parse)


def llcm_listing():
    """Test identities 8, 90 and 700 in some cameras, and a training image; no infrared camera 3."""
    counts = {("vis", 1, 8): 3, ("vis", 3, 8): 4, ("vis", 9, 90): 5, ("vis", 2, 700): 2, ("vis", 4, 700): 6}
    counts |= {("nir", 1, 8): 4, ("nir", 2, 8): 2, ("nir", 9, 90): 3, ("nir", 4, 700): 5}
    paths = [f"test_{m}/cam{c}/{p:04d}/{p:04d}_c{c}_{i}.jpg" for (m, c, p), n in counts.items() for i in range(n)]

    def parse(path):
        if path == "vis/0001/a.jpg":
            return 1, 1, "vis", "train"
        _, camera, pid, _ = path.split("/")
        return int(pid), int(camera[3:]), "ir" if path.startswith("test_nir") else "vis", "test"

    return listing_of([*paths, "vis/0001/a.jpg"], parse)


def paired_listing(split="test"):
    paths = [f"{folder}/{pid}/{n}.bmp" for folder in ("Visible", "Thermal") for pid in range(6) for n in range(2)]
    return listing_of(
        paths,
        lambda path: (
            int(path.split("/")[1]),
            2 if path.startswith("T") else 1,
            "ir" if path.startswith("T") else "vis",
            split if int(path.split("/")[1]) % 2 else "train",
        ),
    )


def drawn_from_disk(root, listing, cameras, pids, trial):
    """The field's draw: seed with the trial, walk identities as 4-digit text, then cameras, one file per folder."""
    for path in listing["path"]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    random.seed(trial)
    files = []
    for identity in sorted(f"{pid:04d}" for pid in pids):
        for camera in cameras:
            folder = f"{camera}/{identity}"
            if (root / folder).is_dir():
                files.append(f"{folder}/{random.choice(sorted(os.listdir(root / folder)))}")
    return files


def paths_of(listing, rows):
    return listing["path"].to_numpy()[rows].tolist()


def rows_where(listing, condition):
    return listing.index[listing.eval(condition)].tolist()


def options(setting):
    return setting.mode, setting.shots, setting.direction, setting.gallery, setting.reading, setting.rule


def test_sysu_draws_the_gallery_as_agw_does(tmp_path):
    listing = sysu_listing()
    found = settings("sysu", listing, Asked())
    assert [options(one) for one in found] == [
        ("all", 1, "ir_to_vis", "agw", None, "sysu"),
        ("indoor", 1, "ir_to_vis", "agw", None, "sysu"),
    ]
    for one in found:
        assert one.dataset == "sysu" and len(one.trials) == 10
        for trial, (queries, gallery) in enumerate(one.trials):
            assert queries.tolist() == rows_where(listing, "split == 'test' and modality == 'ir'")
            assert (np.diff(gallery) > 0).all()
            folders = [f"cam{camera}" for camera in VISIBLE[one.mode]]
            expected = drawn_from_disk(tmp_path, listing, folders, (6, 17, 40, 333), trial)
            assert sorted(paths_of(listing, gallery)) == sorted(expected)
            assert len(expected) == {"all": 10, "indoor": 4}[one.mode]
    (indoor,) = settings("sysu", listing, Asked(mode="indoor", shots=1, direction="ir_to_vis", gallery="agw"))
    assert indoor.mode == "indoor"


def permutation_cells(folders=SYSU_FOLDERS, trials=10, dtype=np.uint8):
    """cells[camera][identity] = trials x images, a random order of 1..images each; empty where there is no folder."""
    rng = np.random.default_rng(5)
    cells = np.empty((6, 1), dtype=object)
    for camera in range(1, 7):
        cells[camera - 1, 0] = np.empty((333, 1), dtype=object)
        for pid in range(1, 334):
            count = folders.get((camera, pid), 0)
            order = [rng.permutation(count) + 1 for _ in range(trials)]
            cells[camera - 1, 0][pid - 1, 0] = np.array(order, dtype=dtype).reshape(trials, count)
    return cells


def write_permutations(root, cells):
    (root / "exp").mkdir(exist_ok=True)
    savemat(root / "exp/rand_perm_cam.mat", {"rand_perm_cam": cells})


@pytest.mark.parametrize(("shots", "dtype"), [(1, np.uint8), (10, np.uint8), (10, np.float64)])
def test_sysu_official_galleries_follow_the_file(tmp_path, shots, dtype):
    listing, cells = sysu_listing(), permutation_cells()
    write_permutations(tmp_path, permutation_cells(dtype=dtype))
    found = settings("sysu", listing, Asked(gallery="official", shots=shots), root=tmp_path)
    assert [options(one) for one in found] == [
        (mode, shots, "ir_to_vis", "official", None, "sysu") for mode in ("all", "indoor")
    ]
    for one in found:
        assert len(one.trials) == 10
        for trial, (queries, gallery) in enumerate(one.trials):
            expected = [
                f"cam{camera}/{pid:04d}/{cells[camera - 1, 0][pid - 1, 0][trial, shot]:04d}.jpg"
                for camera, pid in SYSU_FOLDERS
                if camera in VISIBLE[one.mode]
                for shot in range(shots)
            ]
            assert sorted(paths_of(listing, gallery)) == sorted(expected)
            assert len(expected) == {"all": 10, "indoor": 4}[one.mode] * shots
            assert (np.diff(gallery) > 0).all()
            assert len(queries) == 3 + 2 + 2 + 4 + 2 + 1


def test_a_split_that_a_mode_has_no_gallery_for_is_scored_in_the_others_only():
    seen_by_345 = sysu_listing().query("camid in (3, 4, 5)")
    held_out = seen_by_345.assign(split="val")
    assert [setting.mode for setting in settings("sysu", held_out, Asked(), split="val")] == ["all"]
    with pytest.raises(InputError, match=r"^ir_to_vis indoor .*: it searches cameras 1, 2, which have no test image"):
        settings("sysu", seen_by_345, Asked())
    with pytest.raises(InputError, match="no val image in any camera"):
        settings("sysu", held_out, Asked(mode="indoor"), split="val")


def test_sysu_official_galleries_that_do_not_fit_are_refused(tmp_path):
    listing = sysu_listing()

    def official(root=tmp_path, **asked):
        return settings("sysu", listing, Asked(gallery="official", **asked), root=root)

    with pytest.raises(InputError, match="root is needed"):
        official(root=None)
    with pytest.raises(InputError, match=r"rand_perm_cam\.mat is missing: .*gallery=agw"):
        official()
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/rand_perm_cam.mat").write_bytes(b"not a MATLAB file")
    with pytest.raises(InputError, match="cannot be read"):
        official()
    savemat(tmp_path / "exp/rand_perm_cam.mat", {"other": np.zeros(3)})
    with pytest.raises(InputError, match="cannot be read"):
        official()
    write_permutations(tmp_path, permutation_cells(trials=9))
    with pytest.raises(InputError, match="9 trials of 12 images for identity 6 in camera 1: 10 of 1 are needed"):
        official(mode="all")
    write_permutations(tmp_path, permutation_cells({**SYSU_FOLDERS, (4, 333): 9}))
    with pytest.raises(InputError, match="10 trials of 9 images for identity 333 in camera 4: 10 of 10 are needed"):
        official(shots=10)
    write_permutations(
        tmp_path, permutation_cells({**SYSU_FOLDERS, (4, 333): 0})
    )  # a folder that the file does not know
    with pytest.raises(InputError, match="10 trials of 0 images for identity 333 in camera 4"):
        official()
    write_permutations(tmp_path, permutation_cells({**SYSU_FOLDERS, (2, 40): 10}))  # a folder that the copy lacks
    with pytest.raises(InputError, match=r"cam2/0040/00..\.jpg, drawn by .*, is not in the listing"):
        official()
    write_permutations(tmp_path, permutation_cells()[:4])
    with pytest.raises(InputError, match="4 of 6 cameras"):
        official()
    cells = permutation_cells()
    cells[4, 0][5, 0] = cells[4, 0][5, 0] + 0.5
    write_permutations(tmp_path, cells)
    with pytest.raises(InputError, match=r"rand_perm_cam\.mat: camera 5, identity 6: no matrix of whole numbers"):
        official()


@pytest.mark.parametrize(("dataset", "mode"), [("regdb", None), ("synthetic", "all")])
def test_regdb_and_synthetic_take_the_whole_test_half(dataset, mode):
    listing = paired_listing()
    found = settings(dataset, listing, Asked())
    assert [options(one) for one in found] == [
        (mode, None, direction, "all", None, "regdb") for direction in ("ir_to_vis", "vis_to_ir")
    ]
    infrared, visible = (rows_where(listing, f"split == 'test' and modality == '{m}'") for m in ("ir", "vis"))
    assert len(infrared) == len(visible) == 6
    for one, sides in zip(found, ((infrared, visible), (visible, infrared)), strict=True):
        assert one.dataset == dataset
        assert [[side.tolist() for side in trial] for trial in one.trials] == [list(sides)]
    (only,) = settings(dataset, listing, Asked(direction="vis_to_ir", gallery="all", mode=mode))
    assert only.direction == "vis_to_ir"


@pytest.mark.parametrize(("direction", "reading"), [*product(("ir_to_vis", "vis_to_ir"), ("paper", "released"))])
def test_llcm_draws_one_image_per_identity_and_camera(tmp_path, direction, reading):
    listing = llcm_listing()
    (one,) = settings("llcm", listing, Asked(direction=direction, reading=reading))
    assert options(one) == (None, 1, direction, "agw", reading, "llcm")
    queried, searched = direction.split("_to_")
    whole = rows_where(listing, f"split == 'test' and modality == '{queried}'")
    cameras = [f"test_{'nir' if searched == 'ir' else 'vis'}/cam{c}" for c in range(1, 10)]
    assert len(one.trials) == 10
    for trial, (queries, gallery) in enumerate(one.trials):
        expected = drawn_from_disk(tmp_path, listing, cameras, (8, 90, 700), trial)
        assert len(expected) == (4 if searched == "ir" else 5)
        drawn, all_images = (
            (queries, gallery) if (direction, reading) == ("vis_to_ir", "released") else (gallery, queries)
        )
        assert all_images.tolist() == whole
        assert sorted(paths_of(listing, drawn)) == sorted(expected)


def test_llcm_scores_both_directions_as_the_paper_does():
    found = settings("llcm", llcm_listing(), Asked())
    assert [options(one) for one in found] == [
        (None, 1, direction, "agw", "paper", "llcm") for direction in ("ir_to_vis", "vis_to_ir")
    ]


@pytest.mark.parametrize(
    ("dataset", "asked", "message"),
    [
        ("market", {}, "unknown dataset 'market': known are sysu, regdb, llcm, synthetic"),
        ("sysu", {"shots": 10}, "gallery=agw draws one image .*: take gallery=official"),
        ("sysu", {"shots": 10, "gallery": "agw"}, "gallery=agw draws one image"),
        ("sysu", {"shots": 5}, "shots=5: it has 1, 10"),
        ("sysu", {"direction": "vis_to_ir"}, "direction=vis_to_ir: it has ir_to_vis"),
        ("sysu", {"mode": "outdoor"}, "mode=outdoor: it has all, indoor"),
        ("sysu", {"mode": ""}, "mode=: it has all, indoor"),
        ("sysu", {"gallery": "all"}, "gallery=all: it has agw, official"),
        ("sysu", {"reading": "paper"}, "reading=paper: its protocol has no choice of reading"),
        ("regdb", {"mode": "indoor"}, "mode=indoor: its protocol has no choice of mode"),
        ("regdb", {"shots": 1}, "shots=1: its protocol has no choice of shots"),
        ("regdb", {"gallery": "agw"}, "gallery=agw: it has all"),
        ("llcm", {"reading": "printed"}, "reading=printed: it has paper, released"),
        ("llcm", {"shots": 10}, "shots=10: it has 1"),
        ("llcm", {"gallery": "official"}, "gallery=official: it has agw"),
        ("synthetic", {"mode": "indoor"}, "mode=indoor: it has all"),
        ("synthetic", {"direction": "both"}, "direction=both: it has ir_to_vis, vis_to_ir"),
    ],
)
def test_what_a_protocol_does_not_define_is_refused(dataset, asked, message):
    for call in (lambda: settings(dataset, sysu_listing(), Asked(**asked)), lambda: choices(dataset, Asked(**asked))):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "asked"),
    [("sysu", {}), ("sysu", {"mode": "indoor"}), ("llcm", {}), ("llcm", {"reading": "released"}), ("regdb", {}),
     ("regdb", {"direction": "vis_to_ir"}), ("synthetic", {"mode": "all"})],
)  # fmt: skip
def test_choices_are_the_settings_without_their_rows(dataset, asked):
    listing = {"sysu": sysu_listing, "llcm": llcm_listing}.get(dataset, paired_listing)()
    found = settings(dataset, listing, Asked(**asked))
    expected = [Choice(one.dataset, one.mode, one.shots, one.direction, one.gallery, one.reading) for one in found]
    assert choices(dataset, Asked(**asked)) == expected
    assert [one.name for one in found] == [one.name for one in expected]


def test_a_listing_without_test_images_is_refused():
    with pytest.raises(InputError, match="listing of regdb has no test image of modality vis"):
        settings("regdb", paired_listing(split="val"), Asked())
    visible = paired_listing().query("modality == 'vis'").reset_index(drop=True)
    with pytest.raises(InputError, match="listing of synthetic has no test image of modality ir"):
        settings("synthetic", visible, Asked())


def cut_down(dataset):
    """A test half in which no query has a match, by the dataset's rule, and its remedy."""
    if dataset == "sysu":  # identity 6 by cameras 3 and 2, 17 by camera 3 alone, 333 by camera 2 alone
        kept = "(camid == 3 and pid in (6, 17)) or (camid == 2 and pid in (6, 333))"
        return sysu_listing().query(kept), sysu_listing().query(f"{kept} or (camid == 6 and pid == 6)")
    if dataset == "llcm":  # 8 by camera 1 on both sides, 90 by camera 9 on both
        kept = "split == 'train' or (pid == 8 and camid == 1) or pid == 90"
        return llcm_listing().query(kept), llcm_listing().query(f"{kept} or (pid == 8 and camid == 2)")
    kept = "split == 'train' or (modality == 'vis' and pid == 1) or (modality == 'ir' and pid in (3, 5))"
    return paired_listing().query(kept), paired_listing().query(f"{kept} or pid == 5")


@pytest.mark.parametrize(
    ("dataset", "asked", "words"),
    [
        ("sysu", {}, "ir_to_vis all 1-shot agw: .* 1 identities in both, a query of camera 3 does not see .* camera 2"),
        ("sysu", {"mode": "indoor"}, "ir_to_vis indoor 1-shot agw: .* restore the test images"),
        ("llcm", {}, "ir_to_vis 1-shot agw paper: .* 2 identities in both, a query does not see .* own camera"),
        ("llcm", {"direction": "vis_to_ir", "reading": "released"}, "vis_to_ir 1-shot agw released: .* own camera"),
        ("regdb", {}, "ir_to_vis all: .* the 2 identities of the queries and the 1 of the gallery have none in common"),
        ("regdb", {"direction": "vis_to_ir"}, "vis_to_ir all: .* the 1 identities of the queries and the 2 of the"),
        ("synthetic", {}, "ir_to_vis all.*: no query of trial 0 has a match in the gallery"),
    ],
)
def test_a_protocol_without_any_match_is_refused_and_one_match_is_enough(dataset, asked, words):
    without, with_one = cut_down(dataset)
    with pytest.raises(InputError, match=f"^{words}") as caught:
        settings(dataset, without, Asked(**asked))
    assert "\n" not in str(caught.value)
    found = settings(dataset, with_one, Asked(**asked))
    for setting in found:  # as the metrics see it, which raise where no query has a match
        for queries, gallery in setting.trials:
            sides = (with_one.loc[side, column] for column in ("pid", "camid") for side in (queries, gallery))
            similarity = np.zeros((len(queries), len(gallery)))
            scored = retrieval_metrics(similarity, *(side.to_numpy() for side in sides), protocol=setting.rule)
            assert scored.valid_queries > 0


def test_identities_that_are_held_out_need_a_match_too():
    without, with_one = cut_down("llcm")
    with pytest.raises(InputError, match=r"no query of trial 0 has a match .* restore the val images"):
        settings("llcm", without.replace({"split": {"test": "val"}}), Asked(), split="val")
    assert settings("llcm", with_one.replace({"split": {"test": "val"}}), Asked(), split="val")


def test_the_commands_tell_a_protocol_without_a_match_before_anything_is_trained(layouts, command, tmp_path):
    root = Path(shutil.copytree(layouts / "regdb", tmp_path / "regdb"))
    for word, kept in (("visible", 0), ("thermal", 1)):  # of the four test identities, two on each side
        file = root / f"idx/test_{word}_1.txt"
        lines = file.read_text().splitlines()
        people = sorted({line.split("/")[1] for line in lines})
        file.write_text("\n".join(line for line in lines if people.index(line.split("/")[1]) % 2 == kept))
    where = ["dataset=regdb", f"dataset.root={root}"]
    told = "no query of trial 0 has a match in the gallery: the 2 identities of the queries and the 2 of the gallery"
    code, out, _ = command("check", *where, "dataset.split=1", "fast=true", "json=true")
    findings = json.loads(out)["findings"]
    named = [finding["where"] for finding in findings if told in finding["message"]]
    assert code == 1 and named == ["split 1: ir_to_vis all", "split 1: vis_to_ir all"]
    where += [f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache", "backbone=resnet10", "tracker=none"]
    for more in ([], ["dry_run=true"]):
        code, _, err = command("train", *where, "devices=cpu", "threads=1", *more)
        assert code == 2 and f"ir_to_vis all: {told}" in err and err.count("\n") == 1
        assert not [*(tmp_path / "out").rglob("seed0")] and not (tmp_path / "cache").exists()
