"""`python -m bdlf.report` from the outside."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

import bdlf.report
from bdlf.reporting.gather import VARIANTS, gather


@pytest.fixture
def report(monkeypatch, capsys, tmp_path):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bdlf.report", *arguments])
        with pytest.raises(SystemExit) as stopped:
            bdlf.report.main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture
def outputs(fabricate, configured, tmp_path):
    for place, name in enumerate(VARIANTS.values()):
        for seed in (0, 1):
            fabricate(configured(name, seed=seed), 0.3 + 0.08 * place)
    for blocks in (1, 3, 8):
        fabricate(configured(dfe__blocks=blocks, seed=0), 0.4)
    return str(tmp_path / "outputs")


def test_one_table_as_csv_is_one_file(report, outputs, tmp_path):
    code, _, err = report(outputs, "--table", "table2", "--format", "csv", "--out", f"{tmp_path}/tables")
    assert code == 0, err
    (file,) = (tmp_path / "tables").iterdir()
    assert file.name == "table2.csv"
    table = pd.read_csv(file, dtype=str)
    assert "block" not in table, "other numbers of blocks are Figure 4's"
    assert table["row"].tolist() == list(VARIANTS.values())
    assert table["paper_rank1"].tolist() == ["72.7", "73.7", "75.3", "73.7", "74.0", "75.5", "76.8"]
    assert table["paper_mAP"].iloc[0] == "68.1"


def test_everything_in_every_format(report, outputs, tmp_path):
    for form in ("md", "tex", "html"):
        code, _, err = report(outputs, "--format", form, "--out", f"{tmp_path}/{form}", "--frame")
        assert code == 0, err
        names = {path.name for path in (tmp_path / form).iterdir()}
        assert names >= {
            f"table1.{form}",
            f"table2.{form}",
            f"figure4.{form}",
            "figure4.png",
            "figure4.svg",
            "frame.csv",
        }
        assert "table3.md" not in names, "a stage alone is no comparison"
    frame = pd.read_csv(tmp_path / "md" / "frame.csv")
    assert len(frame) == 14 + 3 and {"path", "variant", "rank1", "selection", "train_gflops"} <= set(frame)
    with Image.open(tmp_path / "md" / "figure4.png") as picture:
        assert picture.width > 600
    tex = (tmp_path / "tex" / "table2.tex").read_text()
    assert r"dfe\_app\_skd" in tex and tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") and "±" not in tex
    page = (tmp_path / "html" / "table2.html").read_text()
    HTMLParser().feed(page)
    assert "<td>dfe_app</td>" in page and '<meta charset="utf-8">' in page and page.count("<html") == 1
    code, out, _ = report(outputs)
    assert code == 0 and "Table 2" in out and "synthetic" in out and out.count("| full |") >= 1


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["nowhere"], 2, ["nowhere is no folder"]),
        (["{}", "--table", "table9"], 2, ["table9", "table2"]),
        (["{}", "--format", "doc"], 2, ["doc", "md"]),
        (["{}", "--frobnicate"], 2, ["--frobnicate"]),
        (["{}", "--out", __file__], 2, [f"{__file__} cannot be a folder"]),
        (["{}", "--table", "table3"], 0, []),
    ],
)
def test_wrong_options_are_one_line(report, outputs, arguments, code, parts):
    got, _, err = report(*(argument.format(outputs) for argument in arguments))
    assert got == code and all(part in err for part in parts) and err.count("\n") == bool(parts)


def test_a_broken_folder_is_named_and_the_rest_reported(report, outputs):
    next(Path(outputs).glob("synthetic/dfe-*/seed0/result.json")).write_text("{")
    code, out, err = report(outputs, "--table", "table2")
    assert code == 1 and err.count("warning:") == 1 and "dfe-" in err and "| dfe | 1 of 2, seed 0 unreadable |" in out


def test_damaged_figures_of_queries_are_warned_of_once(report, outputs):
    (file,) = Path(outputs).glob("synthetic/full-????????/seed0/per_query.npz")
    file.write_text("no archive")
    code, out, err = report(outputs)
    assert code == 1 and err.count("warning:") == 1 and str(file) in err and "| full | 2 of 2 |" in out


def test_what_is_unfinished_is_listed(report, fabricate, configured, tmp_path):
    path = fabricate(configured(), finished=False)
    code, _, err = report(str(tmp_path))
    assert code == 0 and err == f"unfinished: {path}, epochs done: 1\n"
    code, _, err = report(str(tmp_path), "--table", "table2")
    assert code == 2 and "no finished run" in err


def test_help_ends_in_examples_and_is_quick():
    done = subprocess.run([sys.executable, "-m", "bdlf.report", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.rstrip().rpartition("Examples")[2].strip().splitlines()) == 3


def test_runs_go_to_wandb_one_by_one(report, outputs, monkeypatch):
    from bdlf.runs import tracker

    sent = []
    monkeypatch.setattr(
        tracker, "rebuild", lambda folder: sent.append(folder.path) or "dfe_app-" not in str(folder.path)
    )
    next(Path(outputs).glob("synthetic/baseline-*/seed0/result.json")).write_text("{")  # not sent, and stops no other
    code, out, err = report(outputs, "--to-wandb")
    assert code == 1 and "14 of 16 runs are in W&B" in out and err.count("warning:") == 3 and len(set(sent)) == 16


def test_a_wandb_project_gives_the_same_frame(report, outputs, monkeypatch):
    import wandb

    from bdlf.runs.card import summary
    from bdlf.runs.folder import read_config
    from bdlf.runs.record import read_result

    def run_of(path: Path) -> SimpleNamespace:
        config = {**dataclasses.asdict(read_config(path / "config.yaml")), "_wandb": {}}
        result = read_result(path / "result.json")
        return SimpleNamespace(id=result["run_id"], config=config, summary=summary(result))

    runs = [run_of(path) for path in sorted(Path(outputs).glob("synthetic/*/seed*"))]
    del runs[0].summary["result_rows"]
    broken = SimpleNamespace(id="other", config={"learning_rate": 1}, summary={})
    projects = {"me/bdlf": [*runs, broken], "me/nothing": []}
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(runs=projects.__getitem__))
    code, out, err = report("wandb:me/bdlf", "--table", "figure4")
    assert code == 1 and err.count("warning:") == 1 and "'learning_rate'" in err and "| blocks8 | 1 of" in out

    theirs, ours = gather(["wandb:me/bdlf"]), gather([outputs])
    assert len(theirs.frame) == len(ours.frame) - 1 and theirs.unfinished["run_id"].tolist() == [runs[0].id]
    columns = [name for name in ours.frame if name != "path"]
    kept = ours.frame[ours.frame["run_id"] != runs[0].id]
    by_run = [frame[columns].sort_values("run_id").reset_index(drop=True) for frame in (theirs.frame, kept)]
    pd.testing.assert_frame_equal(*by_run)

    for project, part in {"me/nothing": "holds no run", "me/other": "cannot be read"}.items():
        code, _, err = report(f"wandb:{project}")
        assert code == 2 and part in err and err.count("\n") == 1
