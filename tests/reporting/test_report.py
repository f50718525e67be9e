"""`python -m bdlf.report` from the outside."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

import bdlf.report
from bdlf.config import Config, config_folder
from bdlf.reporting.families import VARIANTS
from bdlf.reporting.gather import gather
from bdlf.runs.identity import run_hash


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
    code, _, err = report(outputs, "table=table2", "format=csv", f"out={tmp_path}/tables")
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
        code, _, err = report(outputs, f"format={form}", f"out={tmp_path}/{form}", "frame=true")
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
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") > 2 and "±" not in tex
    page = (tmp_path / "html" / "table2.html").read_text()
    HTMLParser().feed(page)
    assert "Table 2, components" in page and '<meta charset="utf-8">' in page and page.count("<html") == 1
    code, out, _ = report(outputs)
    assert code == 0 and "Table 2" in out and "synthetic" in out and "Table 1, the whole method" in out


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["nowhere"], 2, ["nowhere is no folder"]),
        ([], 2, ["no folder is given"]),
        (["{}", "table=table9"], 2, ["table9", "table2"]),
        (["{}", "table=table2\r"], 2, [r"table=table2\r is not known"]),  # of a script from Windows
        (["{}", "format=doc"], 2, ["doc", "md"]),
        (["{}", "--frobnicate"], 2, ["--frobnicate", "by="]),
        (["{}", "--table", "table2"], 2, ["--table is written table=... now"]),
        (["{}", "--format=csv"], 2, ["--format=csv is written format=... now"]),
        (["{}", "--to-wandb"], 2, ["--to-wandb is written to_wandb=true now"]),
        (["{}", "tabel=table2"], 2, ["unknown option 'tabel'; did you mean 'table='", "reference="]),
        (["{}", "format=md", "format=csv"], 2, ["format= is given twice"]),
        (["{}", "frame=yes"], 2, ["frame=yes", "full"]),
        (["{}", "out="], 2, ["out= has no value"]),
        (["{}", "to_wandb=1"], 2, ["to_wandb=1"]),
        (["{}", f"out={__file__}"], 2, [f"out={__file__} cannot be a folder"]),
        (["{}", "by=dfe.stge"], 2, ["by=dfe.stge", "did you mean 'dfe.stage'"]),
        (["{}", "by=dfe.stage", "table=table2"], 2, ["by= and table="]),
        (["{}", "by=dfe.blocks", "reference=7"], 2, ["reference=7 is no row with runs; the rows are 1 | 3 | 6 | 8"]),
        (["{}", "reference=full"], 2, ["reference=full", "table="]),
        (["{}", "table=table2", "reference=best"], 2, ["reference=best", "baseline, dfe, dfe_app"]),
        (["{}", "table=table1", "reference=full"], 2, ["reference=full"]),
        (["{}", "plan=much"], 2, ["plan=much", "plan=2.0"]),
        (["{}", "table=table3"], 0, []),
    ],
)
def test_wrong_options_are_one_line(report, outputs, arguments, code, parts):
    got, _, err = report(*(argument.format(outputs) for argument in arguments))
    assert got == code and all(part in err for part in parts) and err.count("\n") == bool(parts), err


def test_a_folder_may_look_like_an_option(report, outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(outputs).rename(tmp_path / "lr=0.1")
    assert report("lr=0.1", "table=table2")[0] == 0


def test_a_table_by_keys_with_another_reference(report, outputs):
    code, out, err = report(outputs, "by=variant,dfe.blocks", "reference=full,6")
    assert code == 0 and "By variant, dfe.blocks" in out and "Difference to full,6" in out, err
    code, out, _ = report(outputs, "table=table2", "reference=dfe")
    assert code == 0 and "Difference to dfe, in points" in out


def test_the_frame_has_every_key_on_request(report, outputs, tmp_path):
    for kind in ("true", "full"):
        assert report(outputs, f"frame={kind}", f"out={tmp_path}/{kind}")[0] == 0
    plain, full = (pd.read_csv(tmp_path / kind / "frame.csv") for kind in ("true", "full"))
    assert set(plain) < set(full) and {"loss.skd.weight", "optimizer.lr", "dfe.stage"} <= set(full) - set(plain)
    skd = full.set_index("variant")["loss.skd.weight"]
    assert skd["baseline"].isna().all() and (skd["full"] == 1).all(), "empty where a run does not use the key"


def words_of(line: str) -> list[str]:
    return [word for word in shlex.split(line) if word not in ("python", "-m", "bdlf.train")]


def asked(words: list[str], *more: str) -> Config:
    """The configuration of a job of a printed command; the values of its sweep are given by `more`."""
    swept = ("sweeps=", "seed=", "dataset.split=")
    plain = [word for word in words if not word.startswith(swept)]
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return OmegaConf.to_object(compose("config", [*plain, *more]))


def test_the_plan_names_the_runs_that_are_missing(report, outputs, monkeypatch, tmp_path):
    code, out, err = report(outputs, "table=table2", "plan=2.0")
    assert code == 0 and "out of reach with these 10 test identities" in out, err
    code, out, err = report(outputs, "table=table2", "plan=45")
    assert code == 0, err
    (command,) = [line.strip() for line in out.splitlines() if "python -m" in line]
    needed = int(out.split("needs about ")[1].split(" pairs")[0])
    assert needed > 2 and command.startswith("python -m bdlf.train sweeps=table2 ")
    assert command.endswith(f" seed={','.join(str(seed) for seed in range(2, needed))}"), "seeds 0 and 1 are there"
    assert f"{7 * (needed - 2)} runs are missing" in out and f" output={outputs} " in command
    groups = {path.name.rpartition("-")[2] for path in Path(outputs).glob("synthetic/*")}
    for name in VARIANTS.values():
        assert run_hash(asked(words_of(command), f"variant={name}")) in groups, "the very runs that the table asks for"
    monkeypatch.chdir(tmp_path)
    assert " output=" not in report("outputs", "table=table2", "plan=45")[1], "the default place"


def test_the_plan_starts_from_the_seeds_that_are_there(report, fabricate, configured, tmp_path):
    for lr in (0.1, 0.03):
        fabricate(configured(optimizer__lr=lr, seed=10))
    fabricate(configured(optimizer__lr=0.1, seed=12))
    code, out, err = report(str(tmp_path), "by=optimizer.lr", "plan=5")
    commands = [line for line in out.splitlines() if "python -m" in line]
    assert code == 0 and "  1 run is missing, about " in out and len(commands) == 1, err
    assert commands[0].endswith(" seed=12") and " optimizer.lr=0.03 " in commands[0]


def test_the_plan_keeps_what_the_runs_were_trained_and_scored_with(report, fabricate, configured, tmp_path):
    root = tmp_path / "a tree, drawn"
    root.mkdir()
    (root / "synthetic.json").write_text("{}")
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"w")
    changes = {"dataset__name": "regdb", "dataset__root": str(root), "backbone__weights": str(weights)}
    changes |= {"selection": ["last_epoch", "validation"], "evaluation__holdout": 0.3, "loss__fkl__enabled": False}
    rows = ({"flip": False, "mode": None, "dataset": "regdb-synthetic"},)
    folders = [fabricate(configured(name, **changes), rows=rows) for name in ("baseline", "full")]
    code, out, err = report(str(tmp_path), "table=table2", "plan=5")
    (command,) = [line.strip() for line in out.splitlines() if "python -m" in line]
    words = words_of(command)
    assert code == 0 and "evaluation.flip=false" in words and "dataset.split=1" in words, err
    hashes = {run_hash(asked(words, f"variant={name}")) for name in ("baseline", "full")}
    assert hashes == {folder.parent.name.rpartition("-")[2] for folder in folders}


def test_the_plan_of_a_table_by_keys_is_a_command_for_each_row(report, fabricate, configured, tmp_path):
    for lr, quality in ((0.1, 0.5), (0.03, 0.6)):
        fabricate(configured(optimizer__lr=lr, seed=0), quality)
    code, out, err = report(str(tmp_path), "by=optimizer.lr", "plan=5")
    commands = [line.strip() for line in out.splitlines() if "python -m" in line]
    assert code == 0 and "nothing is known of the noise" in out and len(commands) == 2, err
    assert all(line.startswith("python -m bdlf.train -m ") and line.endswith("seed=1") for line in commands)
    assert [" optimizer.lr=0.03 " in line for line in commands] == [True, False]


def test_a_broken_folder_is_named_and_the_rest_reported(report, outputs):
    next(Path(outputs).glob("synthetic/dfe-*/seed0/result.json")).write_text("{")
    code, out, err = report(outputs, "table=table2")
    assert (
        code == 1
        and err.count("warning:") == 1
        and "dfe-" in err
        and re.search(r"\| ✓ +\| +\| +\| +\| 1 of 2 \(1\) ", out)
        and "1 of 2, seed 0 unreadable" in out
    )


def test_damaged_figures_of_queries_are_warned_of_once(report, outputs):
    (file,) = Path(outputs).glob("synthetic/full-????????/seed0/per_query.npz")
    file.write_text("no archive")
    code, out, err = report(outputs)
    assert (
        code == 1
        and err.count("warning:") == 1
        and str(file) in err
        and re.search(r"\| ✓ +\| ✓ +\| ✓ +\| ✓ +\| 2 of 2 ", out)
    )


def test_what_is_unfinished_is_listed(report, fabricate, configured, tmp_path):
    path = fabricate(configured(), finished=False)
    code, _, err = report(str(tmp_path))
    assert code == 0 and err == f"unfinished: {path}, epochs done: 1\n"
    code, _, err = report(str(tmp_path), "table=table2")
    assert code == 2 and "no finished run" in err


def test_help_ends_in_examples_and_is_quick():
    done = subprocess.run([sys.executable, "-m", "bdlf.report", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.rstrip().rpartition("Examples")[2].strip().splitlines()) == 5


def test_runs_go_to_wandb_one_by_one(report, outputs, monkeypatch):
    from bdlf.runs import tracker

    sent = []
    monkeypatch.setattr(
        tracker, "rebuild", lambda folder: sent.append(folder.path) or "dfe_app-" not in str(folder.path)
    )
    next(Path(outputs).glob("synthetic/baseline-*/seed0/result.json")).write_text("{")  # not sent, and stops no other
    code, out, err = report(outputs, "to_wandb=true")
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
    code, out, err = report("wandb:me/bdlf", "table=figure4")
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
