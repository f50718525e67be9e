"""A run's configuration is started again with from_run=, and Hydra's flags that look alike are refused."""

from __future__ import annotations

import re

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.active import flat
from bdlf.commandline.saved_run import PRIMARY, check_start, folder_of, store
from bdlf.config import Config, config_folder
from bdlf.runs.folder import read_config
from bdlf.runs.identity import run_hash, values_hash


def told(out: str) -> tuple[str, str, str]:
    """Label, hash and seed of the folder that a dry run names."""
    return re.search(r"starts in \S*/synthetic/(\S+)-([0-9a-f]{8})/(seed\d+)", out).groups()


WORDS = ("optimizer.lr=0.02", "loss/orth=off", "seed=5", "label=mine", "schedule.epochs=1")
"""Of a run that no default gives: its own values, an option of a group, a label."""


@pytest.fixture
def saved(tiny, tmp_path):
    """A folder with the configuration of a run with `WORDS`, and nothing else of the run."""
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        config = OmegaConf.to_object(compose("config", [*tiny, *WORDS, f"data.cache_dir={tmp_path}/cache"]))
    config.dataset.drawn, config.rerun, config.dry_run, config.sweep = False, True, True, "table2"
    folder = tmp_path / "out" / "synthetic" / f"mine-{run_hash(config)}" / "seed5"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    return folder


def test_without_a_change_it_is_the_same_run(command, tiny_run, folder_of, tmp_path, monkeypatch):
    code, _, err = tiny_run(*WORDS, "debug=true")
    saved = folder_of()
    before = {path: path.stat().st_mtime_ns for path in saved.rglob("*")}
    monkeypatch.chdir(tmp_path.parent)  # the run was named by another path then
    code, out, err = command("train", f"from_run={tmp_path.name}/{saved.relative_to(tmp_path)}")
    assert code == 0 and f"finished before: {saved}" in out, err
    assert {path: path.stat().st_mtime_ns for path in saved.rglob("*")} == before


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=6", {}),
        ("loss.skd.weight=0.5", {"loss.skd.weight": 0.5}),
        ("loss/skd=off", {"loss.skd.enabled": False}),
        ("loss/orth=on", {"loss.orth.enabled": True}),  # over the saved value, though it is the command's default
        ("dfe/stage=stage2", {"dfe.stage": 2}),
        ("optimizer.lr=0.1", {"optimizer.lr": 0.1}),
    ],
)
def test_a_changed_word_gives_the_run_that_has_the_saved_values_beside_it(command, saved, word, values):
    code, out, err = command("train", f"from_run={saved}", word, "dry_run=true", "label=other")
    assert code == 0, err
    expected = values_hash(flat(read_config(saved / "config.yaml")) | values)
    assert told(out) == ("other", expected, "seed6" if word == "seed=6" else "seed5")


def test_jobs_of_a_sweep_start_from_a_saved_configuration(command, saved, tmp_path):
    code, out, err = command("train", "-m", f"from_run={saved}", "seed=5,6", "dry_run=true")
    assert code == 0 and "2 would run" in out, err
    estimates = [path.name for path in (tmp_path / "out" / "sweeps").iterdir()]
    assert estimates == ["multirun"], "not the sweep that the run was started by"
    code, _, err = command("train", "-m", f"from_run={saved},other")
    assert code == 2 and err.count("\n") == 1 and "one run folder is needed" in err


def test_what_one_call_did_is_not_what_the_run_is(command, saved):
    (saved / "result.json").write_text("{}")  # with rerun=true nobody would look at it, with dry_run=true neither
    code, _, err = command("train", f"from_run={saved}")
    assert code == 2 and "result.json is not a result" in err


def test_facts_about_files_are_dropped_with_the_files_they_are_of(tmp_path):
    config = Config()
    config.dataset.name, config.dataset.root, config.dataset.drawn = "regdb", "/tree", True
    config.backbone.weights, config.backbone.weights_sha256 = "/file.pth", "ab" * 32
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    store(tmp_path)
    for key, value, kept in [
        ("seed", 3, (True, "ab" * 32)),
        ("dataset.root", "/else", (None, "ab" * 32)),
        ("dataset.name", "llcm", (None, "ab" * 32)),
        ("backbone.weights", "none", (True, None)),
    ]:
        composed = OmegaConf.structured(config)
        OmegaConf.update(composed, "from_run", str(tmp_path))
        OmegaConf.update(composed, key, value)
        check_start(composed, PRIMARY)
        assert (composed.dataset.drawn, composed.backbone.weights_sha256) == kept, key


@pytest.mark.parametrize("flag", ["-cp {run}", "--config-path={run}", "--config-dir={run}", "-cd {run}"])
def test_flags_of_hydra_that_do_not_read_a_saved_run_say_what_does(command, tmp_path, flag):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 3}))
    for more in ([], ["-cn", "config"]):
        code, out, err = command("train", *flag.format(run=tmp_path).split(), *more, "dry_run=true")
        assert code == 2 and "from_run=" in err and err.count("\n") == 1 and not out


def test_the_saved_file_names_its_folder(saved):
    assert folder_of([f"from_run={saved}/config.yaml"]) == folder_of([f"from_run={saved}"]) == saved


@pytest.mark.parametrize("folder", ["nowhere", "out"])
def test_a_folder_that_is_no_run_is_named(command, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    code, _, err = command("train", f"from_run={folder}")
    assert code == 2 and err.startswith(f"error: from_run={folder}: there is no {folder}/config.yaml")


def test_from_run_in_a_file_is_refused(command, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "late.yaml").write_text("# @package _global_\nfrom_run: there\n")
    code, _, err = command("train", f"--config-dir={tmp_path}", "+experiment=late", "dry_run=true")
    assert code == 2 and err == "error: from_run=there has no effect in a file; give it on the command line\n"


def test_a_recipe_needs_the_choices_that_a_saved_configuration_does_not_have(command, saved):
    code, _, err = command("train", f"from_run={saved}", "recipe=published", "dry_run=true")
    assert code == 2 and err.count("\n") == 1 and err.endswith("give method= too\n"), err
