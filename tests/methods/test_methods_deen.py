"""The blocks of DEEN against slow, literal code and stored values."""

from __future__ import annotations

import math

import pytest
import torch

from bdlf.methods.deen import CNL, DEE, MFA, PNL
from bdlf.networks.backbone import Backbone
from bdlf.networks.two_stream import TwoStream
from bdlf.system.errors import InputError

ATTENTIONS = ["released", "softmax"]
TOKENS = ["pairs", "positions"]
CONVOLUTIONS = {f"{name}.{kind}" for name in ("theta", "phi", "g", "out") for kind in ("weight", "bias")}
NORM = {f"norm.{kind}" for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
LOW = {1: (2, 4, 4, 2), 2: (2, 4, 8, 4)}
"""Shapes of the low map for a high map of 4 x 2 positions, by step."""


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perturbed(module: torch.nn.Module) -> torch.nn.Module:
    """In float64, with every parameter moved away from its initial value, which may be 0 or 1."""
    module.double()
    for k, parameter in enumerate(module.parameters()):
        parameter.data += 0.3 * random(*parameter.shape, seed=100 + k)
    return module


def sines(*shape: int, shift: float = 0) -> torch.Tensor:
    return torch.sin(0.37 * torch.arange(math.prod(shape)).double() + shift).view(shape)


def with_sines(module: torch.nn.Module) -> torch.nn.Module:
    """In float64 and eval mode, with the weights of the stored values."""
    for each in module.double().eval().modules():
        if isinstance(each, torch.nn.Conv2d):
            each.weight.data = torch.sin(1 + torch.arange(each.weight.numel()).double()).view_as(each.weight) / 10
            if each.bias is not None:
                each.bias.data = torch.cos(torch.arange(each.bias.numel()).double()) / 10
        if isinstance(each, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(each.weight)
    return module


@pytest.mark.parametrize(
    ("block", "step", "expected"),
    [
        (lambda: CNL(8, 4, 1), 1, [7.7457611703, 82.0171302907, 0.0483345352]),
        (lambda: CNL(8, 4, 2), 2, [7.7466503715, 82.0108788883, 0.0481218442]),
        (lambda: PNL(8, 4), 1, [7.7621737323, 81.9949963389, 0.0483253756]),
        (lambda: PNL(8, 4), 2, [7.7636233274, 81.9961579467, 0.0482359135]),
    ],
)
def test_stored_values_of_the_released_attention(block, step, expected):
    out = with_sines(block())(sines(2, 8, 4, 2), sines(*LOW[step], shift=1))
    found = [out.sum().item(), out.abs().sum().item(), out[1, 3, 2, 1].item()]
    assert found == pytest.approx(expected, abs=1e-9, rel=0)


def test_stored_values_of_the_released_expansion():
    maps = sines(2, 8, 4, 2)
    same, *added = with_sines(DEE(8))(maps).chunk(3)
    assert torch.equal(same, maps)
    assert sum(each.abs().sum().item() for each in (same, *added)) == pytest.approx(99.3507700644, abs=1e-9, rel=0)
    for branch in added:
        assert branch.sum().item() == pytest.approx(2.6135215654, abs=1e-9, rel=0)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("step", [1, 2])
def test_channels_by_explicit_sums(step, attention):
    block = perturbed(CNL(6, 4, step, attention=attention)).eval()
    high, low = random(2, 6, 4, 2), random(*LOW[step], seed=1)
    with torch.no_grad():
        theta, phi, g = block.theta(high).flatten(2), block.phi(low).flatten(2), block.g(low).flatten(2)
        y = torch.zeros_like(g)
        for row in range(2):
            for a in range(4):
                similar = [sum(theta[row, a, p].item() * phi[row, b, p].item() for p in range(8)) for b in range(4)]
                total = sum(math.exp(each) for each in similar)
                for b in range(4):
                    y[row, a] += (similar[b] / 4 if attention == "released" else math.exp(similar[b]) / total) * g[
                        row, b
                    ]
        expected = high + block.norm(block.out(y.view_as(low)))
        assert torch.allclose(block(high, low), expected, rtol=0, atol=1e-12)
        assert (expected - high).abs().max() > 0.1


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("step", [1, 2])
def test_positions_by_explicit_sums(step, tokens, attention):
    block = perturbed(PNL(6, 4, tokens=tokens, attention=attention)).eval()
    high, low = random(2, 6, 4, 2), random(*LOW[step], seed=1)
    with torch.no_grad():
        theta, phi, g = (each.flatten(2) for each in (block.theta(high), block.phi(low), block.g(low)))
        y = torch.zeros(2, 2, 8, dtype=torch.float64)
        count = {"pairs": 2, "positions": 1}[tokens]  # positions in a token
        many, few = low[0, 0].numel() // count, 8 // count
        for row in range(2):
            for i in range(few):
                query = theta[row, :, i::few]  # (2 channels, positions of the token)
                similar = [(query * phi[row, :, j::many]).sum().item() for j in range(many)]
                total = sum(math.exp(each) for each in similar)
                for j in range(many):
                    weight = similar[j] / many if attention == "released" else math.exp(similar[j]) / total
                    y[row, :, i::few] += weight * g[row, :, j::many]
        expected = high + block.norm(block.out(y.view(2, 2, 4, 2)))
        assert torch.allclose(block(high, low), expected, rtol=0, atol=1e-12)
        assert (expected - high).abs().max() > 0.01


def test_expansion_by_explicit_sums():
    expansion, maps = perturbed(DEE(8)).eval(), random(1, 8, 5, 4)
    padded = torch.nn.functional.pad(maps, (3, 3, 3, 3))[0]
    found = expansion(maps)
    for k, branch in enumerate(expansion.branches, start=1):
        hidden = torch.zeros(2, 5, 4, dtype=torch.float64)
        for dilation, convolution in zip((1, 2, 3), branch.dilated, strict=True):
            for y in range(5):
                for x in range(4):
                    seen = padded[:, y + 3 - dilation : y + 4 + dilation : dilation]
                    seen = seen[:, :, x + 3 - dilation : x + 4 + dilation : dilation]  # (8, 3, 3)
                    hidden[:, y, x] += (convolution.weight * seen).sum((1, 2, 3)) / 3
        expected = torch.einsum("oc,chw->ohw", branch.expand.weight[:, :, 0, 0], hidden.clamp(min=0))
        assert torch.allclose(found[k], expected + branch.expand.bias[:, None, None], rtol=0, atol=1e-12)
    assert found.shape == (3, 8, 5, 4) and not torch.allclose(found[1], found[2])


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("training", [True, False])
def test_a_new_aggregation_is_the_identity_and_learns(training, tokens, attention):
    aggregation = MFA(8, 4, 2, tokens=tokens, attention=attention).train(training)
    high, low = random(2, 8, 4, 2).float(), random(2, 4, 8, 4, seed=1).float()
    out = aggregation(high, low)
    assert torch.equal(out, high)
    (out * random(2, 8, 4, 2, seed=2)).sum().backward()
    assert all(each.norm.weight.grad.abs().max() > 0 for each in (aggregation.cnl, aggregation.pnl))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_aggregation_is_channels_then_positions_with_its_options(tokens, attention):
    aggregation = perturbed(MFA(6, 4, 2, tokens=tokens, attention=attention)).eval()
    channels = CNL(6, 4, 2, attention=attention).double().eval()
    channels.load_state_dict(aggregation.cnl.state_dict())
    positions = PNL(6, 4, tokens=tokens, attention=attention).double().eval()
    positions.load_state_dict(aggregation.pnl.state_dict())
    high, low = random(2, 6, 4, 2), random(2, 4, 8, 4, seed=1)
    with torch.no_grad():
        expected = positions(channels(high, low), low)
        assert torch.equal(aggregation(high, low), expected)
        assert not torch.allclose(channels(positions(high, low), low), expected)


def test_a_new_network_with_aggregation_is_the_two_stream_network():
    images, blocks = random(4, 3, 64, 32).float(), ("vis", "ir")
    net = TwoStream(Backbone("resnet10")).eval()
    widths = (64, *net.widths)  # of the max-pool and of the stages
    with torch.no_grad():
        maps = net.stem(images, blocks)
        for stage in (1, 2, 3):
            aggregation = MFA(widths[stage], widths[stage - 1], 1 if stage == 1 else 2, name=f"mfa{stage}").eval()
            maps = aggregation(net.stages(maps, stage - 1, stage), maps)
        assert torch.equal(maps, net.fore(images, 3, blocks))
        expanded = net.pool(net.rear(DEE(net.widths[2]).eval()(maps), 3))
        assert expanded.shape == (12, net.width)
        assert torch.allclose(expanded[:4], net(images, blocks), atol=1e-6)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("block", ["CNL", "pairs", "positions"])
def test_gradients_of_attention(block, attention):
    built = CNL(4, 2, 2, attention=attention) if block == "CNL" else PNL(4, 2, tokens=block, attention=attention)
    module = perturbed(built)
    high, low = random(2, 4, 2, 1).requires_grad_(), random(2, 2, 4, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: module(high, low), (high, low, *module.parameters()))


def test_gradients_of_expansion():
    expansion, maps = perturbed(DEE(4)).eval(), random(1, 4, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: expansion(maps), (maps, *expansion.parameters()))


@pytest.mark.parametrize(("high", "low"), [((3, 1), (4, 2)), ((4, 2), (3, 3))])
def test_pairs_of_an_odd_number_of_positions_are_refused_in_one_line(high, low):
    maps = random(2, 6, *high).float(), random(2, 4, *low).float()
    with pytest.raises(
        InputError, match=r"deen\.tokens=pairs: a map of 3 x [13] .* use method\.deen\.tokens=positions"
    ) as error:
        PNL(6, 4)(*maps)
    assert "\n" not in str(error.value)
    assert PNL(6, 4, tokens="positions")(*maps).shape == (2, 6, *high)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: CNL(4, 2, 1, attention="dot"), r"deen\.attention='dot' is not known; known: released, softmax"),
        (lambda: PNL(4, 2, attention="dot"), r"deen\.attention='dot' is not known"),
        (lambda: PNL(4, 2, tokens="rows"), r"deen\.tokens='rows' is not known; known: pairs, positions"),
        (lambda: PNL(4, 1), "needs 2 or more"),
        (lambda: DEE(6), "multiple of 4 channels, not 6"),
        (lambda: DEE(0), "multiple of 4 channels, not 0"),
    ],
)
def test_unknown_options_are_named(build, named):
    with pytest.raises(InputError, match=named):
        build()


def test_expansion_drops_a_hundredth_of_all_values_while_it_is_trained():
    maps = torch.ones(4, 8, 40, 40)
    expansion = DEE(8)
    torch.manual_seed(0)
    dropped = [(part == 0).double().mean().item() for part in expansion(maps).chunk(3)]
    assert all(0.008 < each < 0.012 for each in dropped)
    assert expansion(maps)[:4].max().item() == pytest.approx(1 / 0.99)
    assert (expansion.eval()(maps) != 0).all()


def test_convolutions_of_the_expansion_start_kaiming_normal_by_fan_in():
    for branch in DEE(256).branches:
        for convolution, inputs in ((branch.dilated[0], 9 * 256), (branch.dilated[2], 9 * 256), (branch.expand, 64)):
            weight = convolution.weight
            assert weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.03)
            assert weight.abs().max() > 3 * weight.std()  # a uniform draw would end at 1.7


def test_random_weights_depend_on_the_seed_and_the_name_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = MFA(8, 4, 2, seed=5, name="mfa2").state_dict()
    expanded = DEE(8, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = MFA(8, 4, 2, tokens="positions", attention="softmax", seed=5, name="mfa2").state_dict()
    assert all(torch.equal(one[key], again[key]) for key in one)
    for other in (MFA(8, 4, 2, seed=6, name="mfa2"), MFA(8, 4, 2, seed=5, name="mfa3")):
        assert not any(
            torch.equal(one[f"{part}.phi.weight"], other.state_dict()[f"{part}.phi.weight"]) for part in ("cnl", "pnl")
        )
    assert all(torch.equal(value, expanded[key]) for key, value in DEE(8, seed=5).state_dict().items())
    assert not torch.equal(expanded["branches.0.expand.weight"], expanded["branches.1.expand.weight"])
    assert not torch.equal(expanded["branches.0.expand.weight"], DEE(8, seed=6).branches[0].expand.weight)


def test_names():
    assert CNL(8, 4, 2).state_dict().keys() == PNL(8, 4).state_dict().keys() == CONVOLUTIONS | NORM
    parts = {f"{part}.{name}" for part in ("cnl", "pnl") for name in CONVOLUTIONS | NORM}
    assert MFA(8, 4, 2).state_dict().keys() == parts
    branch = {"expand.weight", "expand.bias", *(f"dilated.{k}.weight" for k in range(3))}
    assert DEE(8).state_dict().keys() == {f"branches.{k}.{name}" for k in range(2) for name in branch}
