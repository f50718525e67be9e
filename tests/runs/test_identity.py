"""What makes two configurations one experiment."""

from __future__ import annotations

import copy
from functools import cache
from itertools import product

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.command import register
from bdlf.config import Config, config_folder
from bdlf.runs.identity import run_hash, run_label

GROUPS = ("ema", "tracker", "variant", "precision", "dataset")


@cache
def _composed(*groups: str) -> Config:
    register(Config, "config")
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return OmegaConf.to_object(compose("config", list(groups)))


def composed(*overrides: str) -> Config:
    """As the command line composes it, but plain keys are set, which is faster."""
    groups = [word for word in overrides if "/" in word.partition("=")[0] or word.partition("=")[0] in GROUPS]
    config = copy.deepcopy(_composed(*groups))
    for word in set(overrides) - set(groups):
        key, _, value = word.partition("=")
        *path, name = key.split(".")
        node = config
        for part in path:
            node = getattr(node, part)
        assert hasattr(node, name)
        setattr(node, name, yaml.safe_load(value))
    return config


def test_hash_is_of_what_changes_the_result():
    full = composed()
    same = [
        *("seed=3", "output=elsewhere", "devices=cpu", "threads=1", "tracker=none", "label=mine", "debug=true"),
        *(
            "loss/fkl=on",
            "loss/detail=on",
            "dfe/stage=stage3",
            "dfe.blocks=6",
            "evaluation.batch=7",
            "evaluation.every=2",
            "data.cache_dir=x",
            "data.cache=host",
        ),
        *("dataset.split=4", "dataset.root=/else", "variant=full", "dry_run=true", "rerun=true", "sweep=x"),
        *("dataset.follow_links=true", "checkpoint.keep=3", "compile=default", "dfe.recompute=true"),
    ]
    for override in same:
        assert run_hash(composed(override)) == run_hash(full), override
    other = [
        "dfe.stage=2",
        "loss/skd=off",
        "loss.skd.weight=0.5",
        "loss.skd.form=literal",
        "optimizer.lr=0.02",
        "ema=off",
    ]
    other += [
        "image.width=48",
        "batch.images=2",
        "dataset.seed=1",
        "deterministic=true",
        "on_nonfinite=skip",
        "precision=bf16-mixed",
        "loss.ramp=0",
    ]
    hashes = [run_hash(composed(override)) for override in other]
    assert len({run_hash(full), *hashes}) == len(other) + 1
    for switch, unused in [("ema=off", "ema.decay=0.5"), ("loss/skd=off", "loss.skd.delta=0.1")]:
        assert run_hash(composed(switch)) == run_hash(composed(switch, unused)) != run_hash(full)
    assert run_hash(composed("dfe.stage=2")) == run_hash(composed("dfe.stage=2", "dfe.recompute=true"))
    for first, second in product(
        ["variant=baseline"], ["dfe.stage=1", "dfe.blocks=2", "dfe.scale=exp", "loss.skd.delta=0.1"]
    ):
        assert run_hash(composed(first)) == run_hash(composed(first, second)), "what is not built does not count"
    for dataset, draws in {"regdb": True, "llcm": True, "sysu": False}.items():
        for option in ("dataset.seed=1", "evaluation.holdout=0.5"):
            pair = [composed(f"dataset={dataset}", "selection=validation", *more) for more in ([], [option])]
            assert (run_hash(pair[0]) != run_hash(pair[1])) == draws, "SYSU-MM01 has its own identities to hold out"
        assert run_hash(composed(f"dataset={dataset}")) == run_hash(composed(f"dataset={dataset}", "dataset.seed=1"))
    assert run_hash(composed("variant=app_orth_skd")) != run_hash(composed("variant=app_orth_skd", "dfe.stage=2"))
    assert run_label(composed("variant=dfe_app", "dfe.stage=2", "dfe.blocks=4")) == "dfe_app-stage2-blocks4"
