"""The non-local block against slow, literal code and stored values, and its places in a ResNet."""

from __future__ import annotations

import pytest
import torch

from bdlf.networks.backbone import Backbone
from bdlf.networks.nonlocal_block import NonLocal, insert_nonlocal
from bdlf.system.errors import InputError

NAMES = {
    *(f"{name}.{kind}" for name in ("theta", "phi", "g", "out") for kind in ("weight", "bias")),
    *(f"norm.{kind}" for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perturbed(module: torch.nn.Module) -> torch.nn.Module:
    """In float64, with every parameter moved away from its initial value, which may be 0 or 1."""
    module.double()
    for k, parameter in enumerate(module.parameters()):
        parameter.data += 0.3 * random(*parameter.shape, seed=100 + k)
    return module


def with_sines(module: torch.nn.Module) -> torch.nn.Module:
    """In float64 and eval mode, with the weights of the stored values."""
    for each in module.double().eval().modules():
        if isinstance(each, torch.nn.Conv2d):
            each.weight.data = torch.sin(1 + torch.arange(each.weight.numel()).double()).view_as(each.weight) / 10
            each.bias.data = torch.cos(torch.arange(each.bias.numel()).double()) / 10
        if isinstance(each, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(each.weight)
    return module


def test_stored_values_of_the_released_code():
    maps = torch.sin(0.37 * torch.arange(128).double()).view(2, 8, 4, 2)
    out = with_sines(NonLocal(8))(maps)
    found = [out.sum().item(), out.abs().sum().item(), out[1, 3, 2, 1].item()]
    assert found == pytest.approx([7.7568846670, 81.9950375031, 0.0477791215], abs=1e-9, rel=0)


@pytest.mark.parametrize(("width", "inner"), [("released", 1), ("half", 3)])
def test_every_position_takes_a_sum_over_all_positions_of_its_own_image(width, inner):
    block = perturbed(NonLocal(6, width=width)).eval()
    maps = random(2, 6, 3, 2)
    assert block.g.out_channels == block.theta.out_channels == block.phi.out_channels == inner
    with torch.no_grad():
        theta, phi, g = (layer(maps).flatten(2) for layer in (block.theta, block.phi, block.g))
        summed = torch.zeros(2, inner, 6, dtype=torch.float64)
        for row in range(2):
            for i in range(6):
                for j in range(6):
                    summed[row, :, i] += theta[row, :, i] @ phi[row, :, j] / 6 * g[row, :, j]
        expected = maps + block.norm(block.out(summed.view(2, inner, 3, 2)))
        assert torch.allclose(block(maps), expected, rtol=0, atol=1e-12)
        assert (expected - maps).abs().max() > 0.1


@pytest.mark.parametrize("width", ["released", "half"])
@pytest.mark.parametrize("training", [True, False])
def test_a_new_block_is_the_identity_and_learns(width, training):
    block, maps = NonLocal(6, width=width).train(training), random(2, 6, 4, 2).float()
    out = block(maps)
    assert torch.equal(out, maps)
    (out * random(2, 6, 4, 2, seed=1)).sum().backward()
    assert block.norm.weight.grad.abs().max() > 0 and block.norm.bias.grad.abs().max() > 0


@pytest.mark.parametrize("width", ["released", "half"])
def test_gradients(width):
    block, maps = perturbed(NonLocal(4, width=width)), random(2, 4, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: block(maps), (maps, *block.parameters()))


def test_names_and_options():
    assert NonLocal(4).state_dict().keys() == NAMES
    with pytest.raises(
        InputError, match=r"method\.two_stream\.nonlocal_width='full' is not known; known: released, half"
    ):
        NonLocal(4, width="full")


PLACES = {
    "resnet50": {"layer2.2", "layer2.3", "layer3.3", "layer3.4", "layer3.5"},
    "resnet18": {"layer2.0", "layer2.1", "layer3.0", "layer3.1"},
    "resnet10": {"layer2.0", "layer3.0"},
}


@pytest.mark.parametrize("name", PLACES)
def test_places_in_a_resnet(name):
    with torch.device("meta"):
        plain, backbone = Backbone(name), Backbone(name)
        insert_nonlocal(backbone, width="half")
        assert backbone.fore(torch.empty(2, 3, 64, 32), 3).shape == (2, backbone.widths[2], 4, 2)
    blocks = {f"resnet.{place}.1." for place in PLACES[name]}
    moved = {f"resnet.{place}." for place in PLACES[name]}
    expected = {f"{block}{key}" for block in blocks for key in NAMES}
    for key in plain.state_dict():
        place = next((place for place in moved if key.startswith(place)), "")
        expected.add(f"{place}0.{key.removeprefix(place)}" if place else key)
    assert backbone.state_dict().keys() == expected
    for place in PLACES[name]:
        width = backbone.widths[int(place[5]) - 1]
        assert backbone.get_submodule(f"resnet.{place}.1").theta.weight.shape == (width // 2, width, 1, 1)


def test_a_new_network_with_non_local_blocks_is_the_network_without_them():
    images = random(3, 3, 32, 16).float()
    plain, backbone = Backbone("resnet18", seed=4), Backbone("resnet18", seed=4)
    insert_nonlocal(backbone, seed=4)
    for mode in (True, False):
        with torch.no_grad():
            assert torch.equal(backbone.train(mode)(images), plain.train(mode)(images))


def inserted(name: str, seed: int) -> dict[str, torch.Tensor]:
    backbone = Backbone(name)
    insert_nonlocal(backbone, seed=seed)
    return backbone.state_dict()


def test_random_weights_depend_on_the_seed_and_the_place_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = inserted("resnet18", 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other, shorter = inserted("resnet18", 1), inserted("resnet18", 2), inserted("resnet10", 1)
    assert one["resnet.layer3.0.1.theta.weight"].shape == (1, 256, 1, 1)
    for kind in ("theta.weight", "g.bias", "out.weight"):
        first, second = f"resnet.layer3.0.1.{kind}", f"resnet.layer3.1.1.{kind}"
        assert torch.equal(one[first], again[first]) and torch.equal(one[first], shorter[first])
        assert not torch.equal(one[first], other[first]) and not torch.equal(one[first], one[second])


def test_blocks_are_inserted_once():
    backbone = Backbone("resnet10")
    insert_nonlocal(backbone)
    with pytest.raises(InputError, match="has non-local blocks already"):
        insert_nonlocal(backbone)
