"""A configuration gives the parts of a run, and a run folder gives the network of the run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

import bdlf
from bdlf import assembly
from bdlf.assembly import build_objective, build_optimizer
from bdlf.config import Config, config_folder
from bdlf.data import images
from bdlf.experiment import Experiment, prepare
from bdlf.methods import build_network
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.system.device import accelerator
from bdlf.system.errors import InputError


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return OmegaConf.to_object(compose("config", list(overrides)))


def test_validation_identities_are_trained_on_unless_they_choose_the_epoch():
    table = pd.DataFrame({"split": ["test", "train", "val", "test", "train"]})
    for rule, rows in {"last_epoch": [1, 2, 4], "best_on_test": [1, 2, 4], "validation": [1, 4]}.items():
        one = Experiment(composed("dataset=sysu", f"selection={rule}"))
        one.listing = table
        assert one.training_rows.tolist() == rows


def test_rates_of_the_groups_on_the_papers_recipe():
    network = BDLF(Backbone("resnet10"), 4, features={"base", "projection"}, logits={"comprehensive"})
    optimizer = build_optimizer(composed("dataset=regdb"), network)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate_of[id(network.backbone.resnet.conv1.weight)] == pytest.approx(0.01)
    assert rate_of[id(network.classifier.weight)] == pytest.approx(0.1)
    assert rate_of[id(network.projection.P)] == pytest.approx(0.01)
    assert all((g["momentum"], g["nesterov"], g["weight_decay"]) == (0.9, True, 5e-4) for g in optimizer.param_groups)
    assert set(rate_of) == {id(p) for p in network.parameters() if p.requires_grad}


def test_options_reach_the_parts():
    config = composed(
        *("loss.skd.form=literal", "loss.tri.margin=0.7", "loss.okl.reduction=mean", "loss.ramp=0.5", "dfe.blocks=2"),
        *("dfe.stage=2", "dfe.scale=exp", "dfe.norm=shared", "beg=orthogonal", "beg.fusion_scaled=false"),
        *("backbone.pooling=avg", "backbone.last_stride=2", "augment.erase=0.25", "augment.pad=3"),
    )
    objective = build_objective(config)
    assert objective._options["skd"]["form"] == "literal" and objective._options["tri"] == {"margin": 0.7}
    assert objective._options["okl"] == {"reduction": "mean"} and objective._ramp == 0.5
    network = build_network(config, 5, objective, weights="none")
    assert len(network.detail.chain.couplings) == 2 and network.stage == 2 and len(network.detail.norms) == 1
    assert network.detail.chain.couplings[0].scale == "exp" and network.projection.form == "orthogonal"
    assert not network.fusion.scaled and network.backbone.pooling == "avg"
    assert network.backbone.resnet.layer4[0].conv1.stride == (2, 2) and network.classifier.out_features == 5


def test_images_without_room_are_refused_before_they_are_decoded(monkeypatch, tmp_path):
    def decode(*_, **__):
        raise AssertionError("images were decoded")

    monkeypatch.setattr(assembly, "open_store", decode)
    monkeypatch.setattr(images, "available_memory", lambda: 2 * 384 * 144 * 3 - 1)
    one = Experiment(composed("dataset=sysu", "data.cache=host", f"data.cache_dir={tmp_path}"))
    one.listing = pd.DataFrame({"path": ["a", "b"]})
    with pytest.raises(InputError, match=r"data\.cache=host: the images take 0\.3 MiB, .* 0\.3 MiB available: use "):
        one.store(torch.device("cpu"))


def test_preparing_seeds_nothing_and_configures_no_process(tiny, monkeypatch):
    monkeypatch.setattr(np.random, "seed", lambda *_: pytest.fail("numpy.random.seed was called"))
    for name in ("manual_seed", "set_num_threads", "use_deterministic_algorithms"):
        monkeypatch.setattr(torch, name, lambda *_, name=name: pytest.fail(f"torch.{name} was called"))
    before = torch.get_rng_state()
    one = prepare(composed(*tiny))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(one.sampler.pids) == 4 and one.settings["test"] and not one.settings["val"]
    assert one.trained.averaged is None and one.parameters > 4e6
    with pytest.raises(InputError, match="has no run folder yet"):
        _ = one.result


@pytest.fixture(scope="module")
def python(start_python):
    """`python(*arguments, place=...)`: what a process of Python prints."""

    def run(*arguments: str, place: Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        process = start_python(*arguments, place=place, environment=environment)
        out, err = process.communicate()
        assert process.poll() == 0, err
        return out

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, python) -> tuple[Path, Path]:
    """A finished run on a small tree in RegDB's layout, and that tree."""
    place = tmp_path_factory.mktemp("opened")
    tree, out = place / "RegDB", place / "out"
    commands = [
        ["bdlf.synthesize", "layout=regdb", f"root={tree}", "identities=8", "images=2", "height=32", "width=16"],
        ["bdlf.train", "dataset=regdb", f"dataset.root={tree}", f"output={out}", f"data.cache_dir={place}/cache",
         "backbone=resnet10", "backbone.weights=none", "image.height=32", "image.width=16", "batch.identities=2",
         "batch.images=2", "dfe.blocks=1", "schedule.epochs=2", "schedule.steps_per_epoch=2", "tracker=none",
         "devices=cpu", "threads=1"],
    ]  # fmt: skip
    for words in commands:
        python("-m", *words, place=place)
    (folder,) = out.glob("regdb-synthetic/*/seed0")
    return folder, tree


def test_a_run_is_opened_in_a_fresh_process_without_its_dataset(finished, python, tmp_path):
    folder, tree = finished
    hidden = tree.rename(tree.with_name("hidden"))
    code = f"""
import bdlf, numpy
run = bdlf.open_run({str(folder)!r})
images = numpy.random.default_rng(0).integers(0, 256, (3, 50, 20, 3), dtype=numpy.uint8)
features = run.embed(images, "ir")
facts = run.config.seed, run.result["epochs"], len(run.metrics), type(run.network).__name__
print(features.shape, features.dtype, *facts)
"""
    try:
        assert python("-c", code, place=tmp_path) == "(3, 512) float32 0 2 2 BDLF\n"
    finally:
        hidden.rename(tree)


def test_an_opened_run_embeds_as_evaluation_does(finished, command, tmp_path):
    folder, tree = finished
    run = bdlf.open_run(folder)
    table = run.table[run.table["split"] == "test"]
    code, *_ = command("evaluate", f"run={folder}", "save_features=true", f"output={tmp_path}/scored")
    assert code == 0
    saved = np.load(tmp_path / "scored" / "features.npz")
    for modality in ("vis", "ir"):
        paths = table["path"][table["modality"] == modality].tolist()
        pixels = np.stack([np.asarray(Image.open(tree / path).convert("RGB")) for path in paths])
        expected = saved["features"][[saved["paths"].tolist().index(path) for path in paths]]
        np.testing.assert_allclose(run.embed(pixels, modality), expected, atol=1e-5)
    assert json.loads((tmp_path / "scored" / "result.json").read_text())["run_id"] == run.checkpoint["run_id"]


def test_what_cannot_be_opened_or_embedded_says_so_in_one_line(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(InputError, match="does not exist; run= takes a run folder"):
        bdlf.open_run(tmp_path)
    run = bdlf.open_run(folder)
    with pytest.raises(InputError, match=r"array of float64, shape \(2, 3\); give uint8 RGB images of shape"):
        run.embed(np.zeros((2, 3)), "vis")
    with pytest.raises(InputError, match="modality='nir' is not known"):
        run.embed(np.zeros((2, 32, 16, 3), np.uint8), "nir")


def test_device_names():
    assert accelerator("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="devices=cuda"):
            accelerator("cuda")


@pytest.mark.gpu
def test_auto_takes_the_gpu():
    assert accelerator("auto") == "cuda"
