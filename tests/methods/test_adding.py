"""Follows "Adding a loss term" and "Adding a method" of bdlf/methods/README.md in copies of the package."""

from __future__ import annotations

import json

import pandas as pd
import pytest

PAGE = "bdlf/methods/README.md"


@pytest.fixture(scope="module")
def term(follow):
    return follow(PAGE, "Adding a loss term")


@pytest.fixture(scope="module")
def method(follow):
    return follow(PAGE, "Adding a method")


def trained(copy, tiny, *words: str) -> tuple[dict, pd.DataFrame]:
    """The result and the metrics of a tiny run."""
    out = f"out{len(list(copy.home.glob('out*')))}"
    done = copy.run("-m", "bdlf.train", *tiny, *words, f"output={out}", "data.cache_dir=cache")
    assert done.returncode == 0, done.stderr
    (file,) = (copy.home / out).glob("synthetic/*/seed0/result.json")
    return json.loads(file.read_text()), pd.read_csv(file.with_name("metrics.csv"))


def test_a_term_that_is_added_is_off_and_moves_no_hash_until_it_is_switched_on(term, tiny, tiny_run, folder_of):
    (command, words), (report, asked) = term.commands
    assert command == "train" and report == "report"
    tiny_run()
    before = json.loads((folder_of() / "result.json").read_text())
    off, _ = trained(term, tiny)
    assert off["run_id"] == before["run_id"]
    on, metrics = trained(term, tiny, *words)
    assert on["run_id"] != off["run_id"] and (metrics["length"] > 0).all()
    other, others = trained(term, tiny, "loss/length=on", "loss.length.target=3")
    assert other["run_id"] != on["run_id"] and (others["length"] != metrics["length"]).all()
    folders = [str(path) for path in sorted(term.home.glob("out*")) if path.name != "out0"]
    done = term.run("-m", "bdlf.report", *folders, *asked[1:])
    assert done.returncode == 0 and "loss.length.target" in done.stdout, done.stdout + done.stderr


def test_a_method_that_is_added_is_trained_and_opened_by_its_name(method, tiny):
    ((command, words),) = method.commands
    assert command == "train"
    result, metrics = trained(method, tiny, "dfe.blocks=6", *words)
    assert result["label"] == "plain" and result["metrics"]
    assert [name for name in metrics if name in ("id", "tri", "skd")] == ["id", "tri"]
    (folder,) = method.home.glob("out0/synthetic/plain-*/seed0")
    code = (
        "import bdlf, numpy as np; "
        f"run = bdlf.open_run({str(folder)!r}); "
        "print(type(run.network).__name__, run.embed(np.zeros((2, 32, 16, 3), np.uint8) + 9, 'vis').shape)"
    )
    assert method.run("-c", code).stdout == "Plain (2, 512)\n"
    both = method.run(
        "-m", "bdlf.train", *tiny, "-m", "method=bdlf,plain", "dfe.blocks=6", "dry_run=true", "output=swept"
    )
    assert both.returncode == 0 and "plain" in both.stdout and "full" in both.stdout, both.stdout + both.stderr


def test_an_unknown_method_is_named(tiny_run):
    code, _, err = tiny_run("method.name=resnext")
    assert code == 2 and "method.name='resnext' is not known; known: bdlf" in err and err.count("\n") == 1
