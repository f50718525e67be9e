"""The backbone is torchvision's ResNet, cut anywhere, with the field's last stride and pooling."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock, ResNet

from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.system.errors import InputError

PLAIN = {"resnet50": resnet50, "resnet18": resnet18, "resnet10": lambda: ResNet(BasicBlock, [1, 1, 1, 1])}


def images(rows: int = 3, height: int = 64, width: int = 32) -> torch.Tensor:
    return torch.randn(rows, 3, height, width, generator=torch.Generator().manual_seed(1))


def flops(function, *arguments) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*arguments)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", PLAIN)
def test_is_torchvisions_resnet_without_fc(name):
    plain = PLAIN[name]().eval()
    ours = Backbone(name, last_stride=2, pooling="avg").eval()
    weights = {key: value for key, value in plain.state_dict().items() if not key.startswith("fc.")}
    ours.resnet.load_state_dict(weights)
    plain.fc = torch.nn.Identity()
    with torch.no_grad():
        assert torch.allclose(ours(images()), plain(images()), atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_inference_costs_what_a_plain_resnet_costs(name):
    with torch.device("meta"):  # counting needs no values
        plain = PLAIN[name]().eval()
        plain.fc = torch.nn.Identity()
        model = BDLF(
            Backbone(name, last_stride=2, pooling="avg"),
            identities=5,
            features={"detail", "detail_projected", "projection"},
            logits={"comprehensive", "detail", "base", "fused"},
        ).eval()
    plain, model = plain.to_empty(device="cpu"), model.to_empty(device="cpu")
    spent = flops(model.embed, images(2), "vis")
    assert spent == flops(plain, images(2)) > 0
    assert flops(model, images(2)) > 1.1 * spent  # the count sees the branches that embed() leaves out


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
@pytest.mark.parametrize("last_stride", [1, 2])
def test_shapes_after_each_stage(name, last_stride):
    with torch.device("meta"):
        backbone, batch = Backbone(name, last_stride=last_stride), torch.empty(2, 3, 64, 32)
    sizes = {1: (16, 8), 2: (8, 4), 3: (4, 2), 4: (4, 2) if last_stride == 1 else (2, 1)}
    for stage, size in sizes.items():
        maps = backbone.fore(batch, stage)
        assert maps.shape == (2, backbone.widths[stage - 1], *size)
        assert backbone.rear(maps, stage).shape == (2, backbone.width, *sizes[4])
    assert backbone.widths == ((64, 128, 256, 512) if name == "resnet10" else (256, 512, 1024, 2048))


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_fore_and_rear_of_any_stage_compose_to_the_whole(stage):
    backbone = Backbone("resnet10").eval()
    with torch.no_grad():
        whole = backbone(images())
        assert torch.equal(backbone.pool(backbone.rear(backbone.fore(images(), stage), stage)), whole)


def test_gem_is_the_generalised_mean_of_clamped_activations():
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for p in (1.0, 3.0, 4.5):
        pooled = Backbone("resnet10", gem_p=p).pool(maps)
        for row in range(2):
            for channel in range(3):
                values = [max(v, 1e-6) ** p for v in maps[row, channel].flatten().tolist()]
                assert pooled[row, channel].item() == pytest.approx((sum(values) / 20) ** (1 / p), rel=1e-12)


def test_gem_has_finite_gradients_where_a_channel_is_dead():
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    Backbone("resnet10", gem_p=6.0).pool(maps).sum().backward()
    assert maps.grad is not None and maps.grad.isfinite().all()


@pytest.mark.parametrize("pooling", ["gem", "avg"])
def test_pooling_of_half_precision_maps_is_computed_in_float32(pooling):
    maps = torch.rand(2, 8, 6, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    backbone = Backbone("resnet10", pooling=pooling)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = backbone.pool(maps)
    assert pooled.dtype == torch.float32
    assert torch.allclose(pooled.double(), backbone.pool(maps.double()), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"name": "resnet34"}, "resnet50, resnet18, resnet10"),
        ({"last_stride": 3}, "last_stride=3"),
        ({"pooling": "max"}, "gem, avg"),
        ({"gem_p": 0.0}, "gem_p=0.0"),
        ({"gem_p": float("nan")}, "gem_p=nan"),
    ],
)
def test_unknown_options_are_named(options, named):
    with pytest.raises(InputError, match=named):
        Backbone(**{"name": "resnet10", **options})


@pytest.mark.parametrize("method", ["fore", "rear"])
@pytest.mark.parametrize("stage", [0, 5])
def test_a_stage_that_is_none_is_refused(method, stage):
    with pytest.raises(InputError, match=rf"dfe\.stage={stage}"):
        getattr(Backbone("resnet10"), method)(images(), stage)
