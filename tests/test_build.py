"""From the configuration to the parts."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf import build
from bdlf.config import Config, config_folder
from bdlf.data import images
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.system.errors import InputError


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return OmegaConf.to_object(compose("config", list(overrides)))


def test_validation_identities_are_trained_on_unless_they_choose_the_epoch():
    table = pd.DataFrame({"split": ["test", "train", "val", "test", "train"]})
    for rule, rows in {"last_epoch": [1, 2, 4], "best_on_test": [1, 2, 4], "validation": [1, 4]}.items():
        partition = build.build_partition(composed("dataset=sysu", f"selection={rule}"), table)
        assert build.training_rows(partition).tolist() == rows


def test_rates_of_the_groups_on_the_papers_recipe():
    config = composed("dataset=regdb")
    network = BDLF(Backbone("resnet10"), 4, features={"base", "projection"}, logits={"comprehensive"})
    optimizer = build.build_optimizer(config.optimizer, network)
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
    objective = build.build_objective(config)
    assert objective._options["skd"]["form"] == "literal" and objective._options["tri"] == {"margin": 0.7}
    assert objective._options["okl"] == {"reduction": "mean"} and objective._ramp == 0.5
    network = build.build_model(config, 5, objective)
    assert len(network.detail.chain.couplings) == 2 and network.stage == 2 and len(network.detail.norms) == 1
    assert network.detail.chain.couplings[0].scale == "exp" and network.projection.form == "orthogonal"
    assert not network.fusion.scaled and network.backbone.pooling == "avg"
    assert network.backbone.resnet.layer4[0].conv1.stride == (2, 2) and network.classifier.out_features == 5
    augmentation = build.build_augmentation(config)
    assert (augmentation.erase, augmentation.pad) == (0.25, 3)


def test_images_without_room_are_refused_before_they_are_decoded(monkeypatch, tmp_path):
    def decode(*_, **__):
        raise AssertionError("images were decoded")

    monkeypatch.setattr(build, "open_store", decode)
    monkeypatch.setattr(images, "available_memory", lambda: 2 * 384 * 144 * 3 - 1)
    config = composed("dataset=sysu", "data.cache=host", f"data.cache_dir={tmp_path}")
    with pytest.raises(InputError, match=r"data\.cache=host: the images take 0\.3 MiB, .* 0\.3 MiB available: use "):
        build.build_store(config, pd.DataFrame({"path": ["a", "b"]}), torch.device("cpu"))


def test_device_names():
    assert build.accelerator("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="devices=cuda"):
            build.accelerator("cuda")


@pytest.mark.gpu
def test_auto_takes_the_gpu():
    assert build.accelerator("auto") == "cuda"
