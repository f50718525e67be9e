"""Words of the command line: a text stays as it was typed, and a word that would change nothing is refused."""

from __future__ import annotations

import pytest

from bdlf.commandline.typed_values import keep_typed
from bdlf.config import Config, EvaluateConfig


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("label=3e563", "label='3e563'"),
        ("label=7e5,true,x,null", "label='7e5','true',x,null"),
        ("++output=1_000", "++output='1_000'"),
        ("dataset.root=0", "dataset.root='0'"),
        ("backbone.weights=.5", "backbone.weights='.5'"),
        ("label=choice(1e5, x)", "label=choice('1e5', x)"),
        ("seed=1e5", "seed=1e5"),  # a number in the schema
        ("label='1e5'", "label='1e5'"),
        ("label=null", "label=null"),
        ("label=", "label="),
        ("label=a=1", "label=a=1"),  # Hydra refuses it
        ("selection=[validation]", "selection=[validation]"),
        ("~label", "~label"),
        ("loss/skd=off", "loss/skd=off"),
    ],
)
def test_quotes_keep_a_text_that_hydra_would_read_as_something_else(word, kept):
    assert keep_typed([word], Config) == [kept]


def test_the_schema_of_the_command_says_what_is_text():
    assert keep_typed(["run=1e5", "label=1e5"], EvaluateConfig) == ["run='1e5'", "label=1e5"]


def test_a_label_and_an_output_are_those_that_were_typed(command, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("train", *tiny, "label=3e563", "output=1e3", "dry_run=true")
    assert code == 0 and "starts in 1e3/synthetic/3e563-" in out, err


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("~loss/skd", "loss/skd=off"),
        ("~ema=on", "ema=off"),
        ("~tracker", "tracker=none"),
        ("tracker=null", "tracker=none"),
        ("~dfe/stage", "give dfe/stage= one of stage1, stage2, stage3, stage4"),
    ],
)
def test_a_group_without_an_option_changes_nothing_and_is_refused(command, word, remedy):
    code, out, err = command("train", word)
    assert code == 2 and err.startswith(f"error: {word} changes nothing") and remedy in err and not out
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [("-m", "loss/skd=on,null"), ("--config-dir={own}", "+experiment=nothing")])
def test_a_sweep_over_no_option_is_refused_too(command, tmp_path, words):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {loss/skd: 'on,null'}}}\n"
    (tmp_path / "experiment" / "nothing.yaml").write_text(text)
    code, out, err = command("train", *(word.format(own=tmp_path) for word in words), f"output={tmp_path}/out")
    assert code == 2 and "loss/skd=on,null changes nothing" in err and err.count("error:") == 1 and not out


def test_a_group_whose_default_is_no_option_may_have_none(command):
    code, _, err = command("check", "dataset=null", "~dataset")
    assert code == 2 and "changes nothing" not in err


@pytest.mark.parametrize("key", ["output", "sweep", "sweeps"])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_sweep_over_what_all_its_jobs_share_is_one_line_before_anything_starts(command, tmp_path, key, in_file):
    values = "table2,table3" if key == "sweeps" else "one,two"
    words = ["-m", f"{key}={values}"]
    if in_file:
        (tmp_path / "sweeps").mkdir()
        text = f"# @package _global_\nhydra: {{mode: MULTIRUN, sweeper: {{params: {{{key}: '{values}'}}}}}}\n"
        (tmp_path / "sweeps" / "own.yaml").write_text(text)
        words = [f"--config-dir={tmp_path}", "sweeps=own"]
    code, out, err = command("train", *words, f"hydra.sweep.dir={tmp_path}/records")
    assert code == 2 and err.startswith(f"error: {key}={values}: ") and err.count("\n") == 1 and not out
    assert not (tmp_path / "records").exists()


def test_paths_mean_the_folder_of_the_command_whatever_folder_hydra_works_in(
    command, tiny, tmp_path, monkeypatch, layouts
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(layouts / "regdb")
    there = ["hydra.job.chdir=true", "hydra.run.dir=elsewhere", "data.cache_dir=cache"]
    words = [
        "dataset=regdb",
        "dataset.root=images",
        "schedule.epochs=1",
        "output=out",
        "backbone=resnet10",
        "backbone.weights=none",
    ]
    code, _, err = command("train", *tiny, *words, "schedule.epochs=1", "output=out", *there)
    assert code == 0, err
    (run,) = (tmp_path / "out" / "regdb-synthetic").glob("*/seed0")
    code, _, err = command("evaluate", f"run={run.relative_to(tmp_path)}", "output=scored", "devices=cpu", *there)
    assert code == 0 and (tmp_path / "scored" / "result.json").is_file(), err
    assert not list((tmp_path / "elsewhere").iterdir())
