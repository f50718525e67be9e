"""What `explain` says, held against what is scored."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bdlf.data import listing
from bdlf.datasets import DATASETS
from bdlf.datasets.choices import Asked, choices
from bdlf.datasets.explain import explain
from bdlf.evaluation import settings
from bdlf.system.errors import InputError


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", DATASETS)
def test_every_setting_its_trials_and_the_rule_are_said(name, layouts):
    drawn = {"test_identities": 4, "train_identities": 2, "images_per_identity": 2}
    has_files = DATASETS[name].has_files
    table = listing(name, layouts / name if has_files else None, synthetic=None if has_files else drawn)
    for options in ({}, {"direction": "ir_to_vis"}):
        text = flat(explain(name, Asked(**options)))
        scored = settings(name, table, Asked(**options))
        assert text.count(" Setting ") == len(scored) == len(choices(name, Asked(**options)))
        for setting in scored:
            assert (
                f" Setting {setting.name}. Queries: all {'infrared' if setting.direction[0] == 'i' else 'visible'}"
                in text
            )
            assert f" Trials {len(setting.trials)} for each setting." in text
        ranked = DATASETS[name].protocol.rule.ranks
        assert f" CMC It ranks {ranked}" in text
        assert ("Hidden Nothing: every query sees the whole gallery." in text) is (ranked == "images")


def test_no_line_is_wider_than_the_page():
    for name in DATASETS:
        assert max(map(len, explain(name, Asked()).splitlines())) <= 110


def test_llcm_is_explained_in_both_readings():
    text = flat(explain("llcm", Asked()))
    assert "ir_to_vis 1-shot agw paper. Queries: all infrared test images (7,166 as published)." in text
    assert "vis_to_ir 1-shot agw paper. Queries: all visible test images (8,680 as published)." in text
    assert "Gallery: 1 image of each test identity and camera, of the infrared images" in text
    assert "does not see the gallery images of its own identity and its own camera number" in text
    assert "Python's random.Random(t), seeded with the number of the trial" in text
    text = flat(explain("llcm", Asked(reading="released", direction="vis_to_ir")))
    assert "Queries: 1 image of each test identity and camera, of the infrared images" in text
    assert "Gallery: all visible test images (8,680 as published)." in text
    assert "Queries: all infrared test images (7,166" in flat(explain("llcm", Asked(reading="released")))


def test_sysus_modes_shots_and_galleries_are_told_apart():
    text = flat(explain("sysu", Asked()))
    assert "of the visible images of cameras 1, 2, 4, 5 (301 as published)" in text
    assert "of the visible images of cameras 1, 2 (112 as published)" in text
    assert "A query of camera 3 does not see any gallery image of camera 2, of any identity" in text
    assert "train 296 identities in 30,213 images, val 99 identities in 3,954 images, test 96" in text
    assert "rand_perm_cam" not in text
    text = flat(explain("sysu", Asked(gallery="official", shots=10, mode="indoor")))
    assert "10 images of each test identity and camera" in text and "(1,120 as published)" in text
    assert "exp/rand_perm_cam.mat" in text and "random.Random" not in text and "cameras 1, 2, 4, 5" not in text


def test_regdb_says_that_its_splits_have_models_of_their_own():
    text = flat(explain("regdb", Asked()))
    assert "dataset.split=1..10" in text and "papers give the mean of the ten" in text


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("market", {}, "unknown dataset 'market': known are sysu, regdb, llcm, synthetic"),
        ("regdb", {"mode": "indoor"}, "regdb is not scored with mode=indoor: its protocol has no choice of mode"),
        ("sysu", {"shots": 10}, "shots=10 is undefined: take gallery=official"),
    ],
)
def test_what_is_not_defined_is_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        explain(name, Asked(**options))


def test_it_needs_no_data_and_no_heavy_import():
    code = (
        "import sys; from bdlf.datasets.choices import Asked; "
        "from bdlf.datasets.explain import explain; explain('llcm', Asked()); "
        "sys.exit(bool({'numpy', 'pandas', 'torch', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
