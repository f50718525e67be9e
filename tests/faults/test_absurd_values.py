"""Values that no run can have: each is refused by name before anything is built or written."""

from __future__ import annotations

import math
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from bdlf.commandline.command import _run_job
from bdlf.config import Config, config_folder
from bdlf.train import train

ABSURD = {
    "image.height": [0, -1, 10**5, 10**9],
    "image.width": [0, 10**9],
    "batch.identities": [1, 10**9],
    "batch.images": [0, 10**9],
    "threads": [0, 10**6],
    "data.cache": ["ram"],
    "dfe.blocks": [0, 10**6],
    "augment.pad": [-1, 16, 10**9],
    "schedule.steps_per_epoch": [0, 10**12],
    "schedule.epochs": [0, 10**30],
    "dataset.synthetic.train_identities": [0, 10**12],
    "dataset.split": [2],
    "seed": [-1, 2**63],
    "label": ["x" * 201, "a/b"],
    "output": ["nul\0byte", "\udcff"],
    "optimizer.lr": [0.0, math.inf],
    "optimizer.backbone_scale": [-1.0],
    "optimizer.projection_scale": [-1.0],
    "optimizer.weight_decay": [-1.0, math.nan],
    "ema.decay": [1.0, -0.1],
    "loss.tri.margin": [-0.1],
    "loss.skd.form": ["printed"],
    "loss.skd.delta": [0.0],
    "loss.skd.gamma": [-1.0],
    "loss.fkl.form": ["printed"],
    "loss.dcorr.gamma": [0.0],
    "loss.okl.reduction": ["max"],
    "checkpoint.every_minutes": [math.nan],
}


@cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ABSURD.items() for value in values])
def test_absurd_values_are_refused_by_name(key, value, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = composed(*tiny, "output=out", "data.cache_dir=cache", "dry_run=true").copy()
    OmegaConf.update(config, key, value)
    assert _run_job(config, Config, train) == 2
    _, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 2000
    assert key.rpartition(".")[2].partition("_")[0] in err


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("--json", "unknown flag '--json'; keys are given without dashes, like json=..."),
        ("loss/id=[1,2]", "loss/id=[1,2]"),
        ("optimizer.lr=" + "9" * 400, "optimizer.lr: int too large"),
        ("seed=" + "9" * 5000, "seed=999"),
        ("selection=" + "[" * 2000 + "]" * 2000, "RecursionError"),
        ("seed=" + "x" * 5000, "seed: Value 'xxx"),
        ("optimizer.lr='\udcff'", r"\udcff"),
        ("optimizer.lr='\x1b[31m'", r"\x1b[31m"),
    ],
)
def test_words_that_hydra_cannot_read_end_in_one_line(word, part, command):
    code, _, err = command("train", word, "dry_run=true")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert part in err and len(err) < 2000 and err[:-1].isprintable()


def test_flags_are_taken_wherever_they_stand(command, tiny, tmp_path):
    code, out, err = command("train", *tiny, f"output={tmp_path}", f"--config-dir={tmp_path}", "dry_run=true")
    assert code == 0, err
    assert "dry run: starts" in out
