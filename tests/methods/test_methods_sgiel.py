"""SGIEL: private BatchNorms, and what its network makes of images and silhouettes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bdlf.methods.sgiel import SGIEL
from bdlf.networks.backbone import Backbone
from bdlf.system.errors import InputError

N = 4
LABELS = torch.tensor([0, 0, 1, 1]).repeat(4)
FEATURES = ("comprehensive_pooled", "shape", "related", "related_projection")
LOGITS = ("comprehensive", "shape", "erased", "related")


def network(features=FEATURES, logits=LOGITS) -> SGIEL:
    return SGIEL(Backbone("resnet10", seed=0), 5, features=features, logits=logits, seed=0)


def images(rows: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, 3, 32, 16, generator=torch.Generator().manual_seed(seed))


def test_features_are_those_of_the_formulas():
    model = network().train()
    for neck in model.necks.values():
        nn.init.uniform_(neck.weight, 0.5, 2)
    batch = images(4 * N)
    alike = copy.deepcopy(model)
    out = model(batch, LABELS)
    visible, infrared, *silhouettes = batch.chunk(4)
    pooled = [alike.backbone(visible, "vis"), alike.backbone(infrared, "ir"), alike.backbone.shapes(*silhouettes)]
    assert torch.equal(out.comprehensive_pooled, torch.cat(pooled[:2])) and out.blocks == ("vis", "ir")
    z = torch.cat([alike.necks["vis"](pooled[0]), alike.necks["ir"](pooled[1])])
    s = alike.necks["shape"](pooled[2]) @ alike.q
    assert torch.allclose(out.comprehensive, z, atol=1e-5) and torch.allclose(out.shape, s, atol=1e-5)
    assert out.related_projection.shape == (512, 128) and torch.allclose(out.related, z @ alike.p, atol=1e-4)
    erased = z.clone()
    unit = alike.p / alike.p.norm(dim=0)
    for k in range(unit.shape[1]):
        erased = erased - (z @ unit[:, k])[:, None] * unit[:, k]
    expected = {
        "comprehensive": z @ alike.classifier.weight.T,
        "erased": erased @ alike.classifier.weight.T,
        "related": z @ alike.p @ alike.classifier_shape.weight.T,
        "shape": s @ alike.classifier_shape.weight.T,
    }
    assert set(out.logits) == set(expected)
    for name, scores in expected.items():
        assert torch.allclose(out.logits[name], scores, atol=1e-4), name
    assert torch.equal(out.row_labels(LABELS), LABELS[: 2 * N])


def test_the_related_feature_does_not_teach_the_classifier_of_the_shape():
    for name, teaches in (("related", False), ("shape", True)):
        model = network().train()
        model(images(4 * N), LABELS).logits[name].square().sum().backward()
        assert (model.classifier_shape.weight.grad is not None) == teaches


def test_sums_of_the_erased_and_the_related_feature_are_those_of_the_public_code():
    """With P = sin waves, as in the stored values of the losses."""
    i, j = torch.arange(6).double()[:, None], torch.arange(6).double()
    p, f = (torch.sin(1.3 * i + 0.7 * j + 0.1 * i * j + shift) for shift in (0.3, 0.0))
    p, f = p[:, :2], f[:4]
    model = network()
    model.p, model.q = nn.Parameter(p), None
    model.necks = nn.ModuleDict({name: nn.Identity() for name in ("vis", "ir")})
    model.classifier = model.classifier_shape = None
    model._logits = frozenset(("erased",))
    model._scores = lambda name, feature: feature
    out = model.batch({"pooled": torch.cat([f, torch.zeros_like(f)])})
    assert out.logits["erased"].abs().sum().item() == pytest.approx(10.3710806928, abs=1e-9, rel=0)
    assert out.related.abs().sum().item() == pytest.approx(9.8698640690, abs=1e-9, rel=0)


def test_convolutions_are_shared_and_norms_are_private():
    model = network()
    stems, stages = model.backbone.stems, model.backbone.stages
    convolution = "layer3.0.conv1"
    assert stages["vis"].get_submodule(convolution) is stages["ir"].get_submodule(convolution)
    assert stages["vis"].get_submodule(convolution) is stages["shape"].get_submodule(convolution)
    norms = {id(stages[name].get_submodule("layer3.0.bn1")) for name in ("vis", "ir", "shape")}
    assert len(norms) == 3
    assert stems["vis"].conv1 is stems["vis_shape"].conv1 and stems["vis"].conv1 is not stems["ir"].conv1
    assert len({id(stem.bn1) for stem in stems.values()}) == 4
    copied = copy.deepcopy(model)  # as for the average of the weights
    assert copied.backbone.stages["vis"].get_submodule(convolution) is copied.backbone.stages["shape"].get_submodule(
        convolution
    )
    assert sum(one.numel() for one in copied.parameters()) == sum(one.numel() for one in model.parameters())
    plain = sum(one.numel() for one in Backbone("resnet10").parameters())
    assert sum(one.numel() for one in model.backbone.parameters()) < 1.05 * plain


def test_a_batch_moves_the_statistics_of_its_own_norms_alone():
    model = network().train()
    model.rows(images(4 * N))
    means = {name: model.backbone.stages[name].layer4[0].bn2.running_mean.clone() for name in ("vis", "ir", "shape")}
    model.backbone(images(N, seed=3), "vis")
    moved = {
        name: not torch.equal(mean, model.backbone.stages[name].layer4[0].bn2.running_mean)
        for name, mean in means.items()
    }
    assert moved == {"vis": True, "ir": False, "shape": False}


def test_norms_start_with_the_scale_of_the_backbone_and_new_statistics():
    backbone = Backbone("resnet10", seed=0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.7)
            nn.init.constant_(module.running_mean, 3.0)
    model = SGIEL(backbone, 5, features=FEATURES, logits=LOGITS)
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.weight.eq(0.7).all() and norm.running_mean.eq(0).all() for norm in norms)


def test_modalities_are_embedded_alike_before_the_first_step_and_not_after():
    model = network().eval()
    batch = images(3)
    assert torch.equal(model.embed(batch, "vis"), model.embed(batch, "ir"))
    assert torch.equal(model.embed(batch, "ir"), model.embedder(batch, "ir"))
    assert torch.equal(model.necks["ir"](model.embed(batch, "ir", "before_bn")), model.embed(batch, "ir"))
    learned = [parameter for group in model.parameter_groups().values() for parameter in group]
    assert {id(one) for one in learned} == {id(one) for one in model.parameters() if one.requires_grad}
    assert len(learned) == len({id(one) for one in learned})
    optimizer = torch.optim.SGD(learned, lr=0.1)
    out = model.train()(images(4 * N), LABELS)
    (out.logits["comprehensive"].square().mean() + out.comprehensive_pooled[:N].sum()).backward()
    optimizer.step()
    model.eval()
    assert not torch.allclose(model.embed(batch, "vis"), model.embed(batch, "ir"))
    with pytest.raises(InputError, match="modality='shape' is not known; known: vis, ir"):
        model.embed(batch, "shape")
    with pytest.raises(RuntimeError, match="eval"):
        model.train().embed(batch, "vis")


def test_only_what_the_objective_reads_is_built():
    model = network(("comprehensive_pooled",), ("comprehensive",))
    assert model.p is None and model.q is None and model.classifier_shape is None
    out = model(images(4 * N), LABELS)
    assert out.shape is None and set(out.logits) == {"comprehensive"}
    assert F.normalize(network().p, dim=0).shape == (512, 128)
    with pytest.raises(InputError, match="feature='detail' is not known"):
        network(("detail",))
