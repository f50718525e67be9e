"""The benchmark runs, and its numbers are consistent. No test depends on how fast anything is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bdlf.methods import METHODS

SMALL = ["batch=16", "height=32", "width=16", "repeats=1", "devices=cpu", "threads=1"]


@pytest.fixture(scope="module")
def measured_before() -> dict[tuple[str, ...], dict]:
    """The benchmarks that `measured` has run, by overrides."""
    return {}


@pytest.fixture
def measured(command, tmp_path, measured_before, monkeypatch):
    """`measured(*overrides)`: the JSON of a small benchmark, its measurements by name. No benchmark is run twice.

    The timed trials have the cameras of the datasets, and few images.
    """
    from bdlf.benchmarking import suites

    small = {
        name: replace(one, timed=one.timed and one.timed._replace(queries=60, gallery=30, identities=9))
        for name, one in suites.DATASETS.items()
    }
    monkeypatch.setattr(suites, "DATASETS", small)

    def run(*overrides: str) -> dict:
        if overrides in measured_before:
            return measured_before[overrides]
        code, out, err = command("benchmark", *SMALL, f"json={tmp_path}/b.json", *overrides)
        assert code == 0, err
        record = json.loads((tmp_path / "b.json").read_text())
        assert all(one["what"] in out for one in record["measurements"])
        record["measurements"] = {one["what"]: one for one in record["measurements"]}
        measured_before[overrides] = record
        return record

    return run


@pytest.mark.slow
def test_steps_are_compared_with_a_plain_one_and_grow(measured):
    record = measured("suite=step", "blocks=2")
    rows = record["measurements"]
    plain, full = rows["plain ResNet-50, last stride 1"], rows["BDLF, stage 3, 2 blocks"]
    assert full["note"].startswith(f"{full['milliseconds'] / plain['milliseconds']:.2f} x plain")
    assert full["per_second"] == pytest.approx(16e3 / full["milliseconds"])
    assert plain["gflops"] < full["gflops"] < rows["batch 16, 8 blocks"]["gflops"] * 2
    assert rows["batch 16, 1 block"]["gflops"] < rows["batch 16"]["gflops"] < rows["batch 16, 8 blocks"]["gflops"]
    assert record["configuration"]["blocks"] == 2 and record["versions"]["torch"]


@pytest.mark.parametrize(("suite", "count"), [("input", 6), pytest.param("evaluation", 8, marks=pytest.mark.slow)])
def test_growth_can_be_left_out(measured, suite, count):
    assert len(measured(f"suite={suite}")["measurements"]) == count
    assert len(measured(f"suite={suite}", "growth=false")["measurements"]) == {"input": 3, "evaluation": 5}[suite]


def test_embedding_is_compared_with_the_network_alone(measured):
    rows = measured("suite=evaluation", "growth=false")["measurements"]
    bare, found = rows["ResNet-50, 64 views of 32 images"], rows["features of 32 images, flip-averaged"]
    assert bare["items"] == found["items"] == 32
    assert found["note"].startswith(f"{bare['milliseconds'] / found['milliseconds']:.0%} of the bare")


def check_methods(rows: dict[str, dict], names: tuple[str, ...]) -> None:
    first = rows[f"{names[0]}, training step"]
    assert list(rows) == [f"{name}, {kind}" for name in names for kind in ("training step", "inference")]
    for name in names:
        step, inference = (rows[f"{name}, {kind}"] for kind in ("training step", "inference"))
        assert step["items"] == inference["items"] == 16 and step["parameters"] == inference["parameters"] > 2e7
        assert step["gflops"] > inference["gflops"] > 0 and step["gib"] and inference["gib"] is None
        assert step["note"].endswith(f" {step['milliseconds'] / first['milliseconds']:.2f} x the time of {names[0]}")
        assert f"{step['gflops'] / 16:.2f} GFLOP per image" in step["note"]


def test_methods_are_compared_per_sampled_image(measured, monkeypatch):
    """CAJ trains AGW's network on a second view of each visible image, which makes three blocks of two."""
    names = ("agw", "caj")
    monkeypatch.setattr("bdlf.benchmarking.methods.METHODS", names)
    rows = measured("suite=methods")["measurements"]
    check_methods(rows, names)
    agw, caj = (rows[f"{name}, training step"] for name in names)
    assert caj["gflops"] == pytest.approx(1.5 * agw["gflops"]) and caj["parameters"] == agw["parameters"]
    assert rows["caj, inference"]["gflops"] == rows["agw, inference"]["gflops"]


@pytest.mark.slow
def test_every_method_is_measured(measured):
    rows = measured("suite=methods", "height=64", "width=32")["measurements"]
    check_methods(rows, METHODS)
    assert rows["deen, inference"]["gflops"] > 2 * rows["agw, inference"]["gflops"], "it expands at test too"


@pytest.mark.slow
def test_startup(measured):
    assert list(measured("suite=startup")["measurements"]) == [
        "imports, in a new process", "listing of 34,167 files", "warm image cache of them"
    ]  # fmt: skip


BAD = {
    "suite=speed": "known: input, step",
    "batch=24": "multiple of 16",
    "repeats=0": "1 or more",
    "precision=8-bit": "bf16-mixed",
    "blocks=1000": "dfe.blocks=1000",
    "threads=100000": "at most",
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_options_are_one_line(command, bad):
    code, _, err = command("benchmark", "suite=step", bad)
    assert code == 2 and BAD[bad] in err and err.count("\n") == 1
