"""Images of one single value and modalities that look swapped: told by the check, and by whoever opens the images."""

from __future__ import annotations

import logging
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bdlf.data import listing, store
from bdlf.data.store import open_store
from bdlf.data.synthetic.drawing import render
from bdlf.data.synthetic.layouts import LAYOUTS
from bdlf.datasets.decoding import RANGES
from bdlf.datasets.marks import CONSTANT, GREY, mark, swapped_modalities

RANDOM = np.random.default_rng(3)


def test_marks_of_an_image():
    plain = np.full((20, 12, 3), 9, np.uint8)
    coloured = np.tile(np.array([9, 80, 200], np.uint8), (20, 12, 1))
    assert (mark(plain), mark(coloured)) == (CONSTANT + GREY, CONSTANT)
    for row, column in ((0, 0), (13, 7), (19, 11)):  # also where GREY does not look
        other = plain.copy()
        other[row, column] = 10
        assert mark(other) == GREY
    levels = np.repeat(RANDOM.integers(0, 250, (20, 12, 1), dtype=np.uint8), 3, axis=2)
    tinted = levels + np.array([0, 2, 1], np.uint8)
    assert (mark(levels), mark(tinted), mark(levels + np.array([0, 0, 3], np.uint8))) == (GREY, GREY, 0)
    assert mark(RANDOM.integers(0, 256, (20, 12, 3), dtype=np.uint8)) == 0
    assert mark(levels[:1, :1]) == CONSTANT + GREY


def colourful(file, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1)).save(file)


def grey(file, seed):
    """In three channels, with what JPEG leaves between them."""
    pixels = np.random.default_rng(seed).integers(0, 250, (6, 4, 1), dtype=np.uint8).repeat(3, axis=2)
    pixels[seed % 6, :, 1] += seed % 3
    Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1)).save(file)


def plain(file, seed):
    Image.new("L", (32, 48), seed).save(file)


@pytest.fixture
def opened(tmp_path, caplog):
    """`opened(vis=[...], ir=[...])`: the warnings of opening a store of images that these functions write."""

    def run(**kinds):
        rows = [(f"{side}{k}.png", side, kind) for side, own in kinds.items() for k, kind in enumerate(own)]
        for k, (name, _, kind) in enumerate(rows):
            if not (tmp_path / name).exists():
                kind(tmp_path / name, k)
        table = pd.DataFrame({"path": [row[0] for row in rows], "modality": [row[1] for row in rows], "pid": 1})
        table = table.assign(camid=1, split="train")
        caplog.clear()
        open_store(table, tmp_path, 12, 8, cache_dir=tmp_path / "cache")
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    return run


def test_images_of_one_value_are_named_from_the_cache_too(opened, monkeypatch):
    kinds = {"vis": [colourful] * 3 + [plain] * 4, "ir": [grey, plain, plain, grey]}
    monkeypatch.setattr(store, "_CHUNK", 4)
    (line,) = opened(**kinds)
    assert line == (
        "6 of 11 images have one single value in all pixels: vis3.png, vis4.png, vis5.png, vis6.png, ir1.png, ...: "
        "restore them from the dataset"
    )
    monkeypatch.setattr(store, "_decode", None)
    assert opened(**kinds) == [line], "without decoding anything"


def test_modalities_that_look_swapped_are_told(opened):
    (line,) = opened(vis=[grey] * 3 + [colourful], ir=[colourful] * 4)
    assert "look swapped: 75 % of the visible images are grey, 100 % of the infrared ones have colours" in line


@pytest.mark.parametrize(
    ("vis", "ir", "is_told"),
    [
        ([0] * 5, [GREY] * 5, False),
        ([GREY] * 5, [GREY] * 5, False),  # visible images that were made grey
        ([0] * 5, [0] * 5, False),  # thermal images in false colours
        ([GREY, GREY, 0, 0], [0] * 4, False),  # half of them: visible images at night
        ([GREY] * 3 + [0] * 2, [GREY] * 2 + [0] * 3, True),
        ([GREY] * 3 + [0] * 2, [GREY] * 3 + [0] * 2, False),
        ([GREY + CONSTANT] * 3, [CONSTANT] * 3, True),
        ([GREY] * 3, [], False),
        ([], [0] * 3, False),
    ],
)
def test_most_visible_images_must_be_grey_and_most_infrared_ones_not(vis, ir, is_told):
    modalities = ["vis"] * len(vis) + ["ir"] * len(ir)
    order = RANDOM.permutation(len(modalities))
    message = swapped_modalities([modalities[k] for k in order], np.array(vis + ir, np.uint8)[order])
    assert (message is not None) == is_told


@pytest.mark.parametrize("layout", [*LAYOUTS, "synthetic"])
def test_drawn_sets_are_told_nothing(layouts, layout, tmp_path, caplog):
    drawn = layout == "synthetic"
    synthetic = {"train_identities": 4, "test_identities": 4, "images_per_identity": 2} if drawn else None
    root = None if drawn else layouts / layout
    table = listing(layout, root, synthetic=synthetic)
    images = open_store(table, root, 32, 16, cache_dir=tmp_path, render=render if drawn else None)
    marks = pd.Series([mark(image) for image in images]).groupby(table["modality"]).agg(["min", "max"])
    assert marks.loc["vis"].tolist() == [0, 0] and marks.loc["ir"].tolist() == [GREY, GREY]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_check_tells_both(written_tree):
    tree = written_tree("regdb")
    name = tree.first_image("Thermal")
    Image.new("L", (16, 32), 7).save(tree / name)
    (found,) = tree.inspected()["findings"]
    assert (found["kind"], found["where"]) == ("image of one single value", name)
    sides = [sorted((tree / folder).rglob("*.bmp")) for folder in ("Visible", "Thermal")]
    for visible, infrared in zip(*sides, strict=True):  # the images change places, the names stay
        content = visible.read_bytes()
        visible.write_bytes(infrared.read_bytes())
        infrared.write_bytes(content)
    kinds = {(found["kind"], found["where"]): found["message"] for found in tree.inspected()["findings"]}
    assert len(kinds) == 2 and "100 % of the infrared" in kinds["modalities look swapped", "visible and infrared"]


def test_more_than_8_bits_is_told_with_the_rule_that_applies(tmp_path, caplog):
    for name in ("a.png", "b.png"):
        Image.fromarray(RANDOM.integers(3640, 19256, (12, 8)).astype(np.uint16)).save(tmp_path / name)
    Image.fromarray(RANDOM.integers(0, 256, (12, 8), np.uint8)).save(tmp_path / "8.png")
    table = pd.DataFrame(
        {"path": ["a.png", "8.png", "b.png"], "pid": 1, "camid": 1, "modality": "ir", "split": "train"}
    )

    def told(rows, how) -> list[tuple[int, str]]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "bdlf"):
            open_store(rows, tmp_path, 12, 8, cache_dir=tmp_path / "cache", value_range=how)
        return [(record.levelno, record.getMessage()) for record in caplog.records]

    start = "2 of 3 images have grey values of more than 8 bits; image.range="
    for how, rule in RANGES.items():
        line = (logging.INFO, f"{start}{how}: {rule}")
        assert told(table, how) == [line] == told(table, how), "decoded, and then from the cache"
    assert told(table.iloc[1:2].reset_index(drop=True), "file") == []


def test_check_tells_of_more_than_8_bits_and_finds_nothing_wrong(written_tree):
    tree = written_tree("regdb")
    assert tree.inspected()["notes"] == []
    values = RANDOM.integers(3640, 19256, (32, 16)).astype(np.uint16)
    Image.fromarray(values).save(tree / tree.first_image("Thermal"), format="PNG")
    report = tree.inspected()
    (note,) = report["notes"]
    assert report["ok"] and re.match(r"1 of \d+ images have grey values of more than 8 bits; image\.range=file: ", note)
