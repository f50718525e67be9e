"""The detail branch against slow code that follows the equations literally."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bdlf.config.schema import Dfe
from bdlf.methods.bdlf import CrossAttention, DetailExtractor, InvertedResidual, InvertibleBlock, InvertibleChain
from bdlf.methods.bdlf.dfe import _Pad, _Relu6
from bdlf.system.errors import InputError


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def perturbed(module: torch.nn.Module, by: float = 0.05) -> torch.nn.Module:
    """Every parameter that learns moved away from its initial value, which may be 0 or 1, in float64."""
    module.double()
    for k, parameter in enumerate(each for each in module.parameters() if each.requires_grad):
        parameter.data += by * random(*parameter.shape, seed=100 + k)
    return module


@pytest.mark.parametrize("scale", ["tanh", "exp"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("size", [(4, 2), (3, 1)])
def test_eight_couplings_are_inverted(scale, dtype, bound, size):
    torch.manual_seed(0)
    chain = perturbed(InvertibleChain(16, blocks=8, scale=scale, init="default")).to(dtype)
    maps = start = random(3, 16, *size, dtype=dtype)
    with torch.no_grad():
        for coupling in chain.couplings:
            maps = coupling(maps)
        assert (maps - start).abs().mean() > 0.2  # not the identity
        for coupling in reversed(chain.couplings):
            maps = coupling.inverse(maps)
    assert (maps - start).abs().max() < bound


@pytest.mark.parametrize("scale", ["tanh", "exp"])
def test_coupling_is_equation_3(scale):
    block = perturbed(InvertibleBlock(6, scale=scale), by=0.5)
    maps = random(2, 6, 3, 4)
    a, b = maps[:, :3], maps[:, 3:]
    expected_b = b + block.f1(a)
    s = block.f3(expected_b)
    expected_a = a * torch.exp(torch.tanh(s) if scale == "tanh" else s) + block.f2(expected_b)
    out = block(maps)
    assert torch.allclose(out[:, :3], expected_a) and torch.allclose(out[:, 3:], expected_b)
    assert (torch.tanh(s) - s).abs().max() > 0.1  # the two scales differ here


def test_tanh_bounds_what_one_block_can_do_and_literal_exp_does_not():
    grown = {}
    for scale in ("tanh", "exp"):
        block = InvertibleBlock(4, scale=scale).double()
        block.f3.project.weight.data.fill_(3.0)
        block.f3.expand.weight.data.fill_(1.0)
        block.f3.depthwise.weight.data.fill_(1.0)
        maps = torch.ones(1, 4, 3, 3, dtype=torch.float64)
        grown[scale] = block(maps).max().item()
    assert grown["tanh"] <= math.e
    assert grown["exp"] > 1e6


def test_zero_initialised_chain_is_its_layernorms():
    maps = random(2, 6, 3, 2, dtype=torch.float32)
    chain = InvertibleChain(6, blocks=3)
    expected = maps
    for _ in range(3):
        expected = F.layer_norm(expected.movedim(1, -1), (6,)).movedim(-1, 1)
    assert torch.allclose(chain(maps), expected, atol=1e-6)


def test_each_coupling_is_followed_by_layernorm_over_channels_at_every_position():
    chain = perturbed(InvertibleChain(4, blocks=2, init="default"), by=0.3)
    expected = random(2, 4, 3, 2)
    out = chain(expected)
    for coupling, norm in zip(chain.couplings, chain.norms, strict=True):
        coupled = coupling(expected)
        expected = torch.empty_like(coupled)
        for row in range(2):
            for y in range(3):
                for x in range(2):
                    values = coupled[row, :, y, x]
                    centred = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
                    expected[row, :, y, x] = centred * norm.weight + norm.bias
    assert torch.allclose(out, expected)


@pytest.mark.parametrize(
    ("size", "mode"), [((3, 4), "reflect"), ((2, 2), "reflect"), ((5, 1), "edge"), ((1, 3), "edge")]
)
def test_inverted_residual_by_explicit_sums(size, mode):
    torch.manual_seed(1)
    residual = perturbed(InvertedResidual(3), by=2)
    height, width = size
    maps = random(2, 3, *size)
    expand, depthwise, project = (each.detach().numpy() for each in residual.parameters())
    hidden = np.clip(np.einsum("oc,nchw->nohw", expand[:, :, 0, 0], maps.numpy()), 0, 6)
    padded = np.pad(hidden, ((0, 0), (0, 0), (1, 1), (1, 1)), mode=mode)
    filtered = np.zeros_like(hidden)
    for y in range(height):
        for x in range(width):
            filtered[:, :, y, x] = (padded[:, :, y : y + 3, x : x + 3] * depthwise[:, 0]).sum((2, 3))
    expected = np.einsum("oc,nchw->nohw", project[:, :, 0, 0], np.clip(filtered, 0, 6))
    assert hidden.shape[1] == 6 and hidden.max() == 6 and filtered.max() > 6
    assert np.allclose(residual(maps).detach().numpy(), expected)


def test_padding_leaves_no_gradient_that_cuda_cannot_compute_deterministically():
    def operations(node) -> set[str]:
        return {node.name()}.union(*(operations(each) for each, _ in node.next_functions if each is not None))

    for size in ((3, 4), (1, 1)):
        out = InvertedResidual(2, init="default")(random(1, 2, *size, dtype=torch.float32))
        assert not [name for name in operations(out.grad_fn) if "Pad" in name and name != "_PadBackward"]


@pytest.mark.parametrize("size", [(3, 4), (2, 2), (5, 1), (1, 3), (1, 1)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_padding_and_its_gradient_are_those_of_pytorch(size, order):
    maps = random(2, 3, *size).to(memory_format=order).requires_grad_()
    padded = _Pad.apply(maps)
    expected = F.pad(maps, (1, 1, 1, 1), mode="reflect" if min(size) >= 2 else "replicate")
    assert torch.equal(padded, expected)
    weight = random(*padded.shape)
    (gradient,) = torch.autograd.grad((padded * weight).sum(), maps)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * weight).sum(), maps)[0])


def test_under_autocast_only_the_convolutions_are_in_half_precision():
    chain = InvertibleChain(8, blocks=2, init="default")
    kinds = {}
    for name, module in chain.named_modules():
        module.register_forward_hook(lambda module, given, out, name=name: kinds.update({name: out.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        out = chain(torch.randn(2, 8, 4, 3).bfloat16())
    assert out.dtype == torch.float32
    assert {kinds[f"norms.{k}"] for k in range(2)} == {kinds[f"couplings.{k}"] for k in range(2)} == {torch.float32}
    assert {kinds[f"couplings.1.f{k}.project"] for k in (1, 2, 3)} == {torch.bfloat16}


def test_relu6_and_its_gradient_are_those_of_pytorch_without_a_copy():
    maps = torch.cat([3 + 4 * random(40), torch.tensor([0.0, 6.0, -0.0, torch.inf, -torch.inf, torch.nan])])
    weight = random(46, seed=1)
    found, expected = (maps.clone().requires_grad_() for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        out = _Relu6.apply(copied := found.clone())
    assert [tensor.data_ptr() for tensor in kept] == [out.data_ptr()] == [copied.data_ptr()]
    torch.testing.assert_close(out, F.relu6(expected), rtol=0, atol=0, equal_nan=True)
    assert 5 < (out == 0).sum() < 40 and (out == 6).sum() > 5
    (out * weight).sum().backward()
    (F.relu6(expected) * weight).sum().backward()
    assert torch.equal(found.grad, expected.grad)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_equation_4(scaled, masked):
    torch.manual_seed(0)
    n, width = 6, 5
    attention = CrossAttention(width, scaled=scaled, mask_own_identity=masked).double()
    Wq, Wk, Wv = (linear.weight.detach().T for linear in (attention.query, attention.key, attention.value))
    rows = random(2 * n, width) * 3
    labels = torch.tensor([4, 4, 7, 7, 9, 9, 7, 9, 4, 4, 4, 9])
    with torch.no_grad():
        out, weights = attention(rows, labels)
    for k in range(2 * n):
        others = range(n, 2 * n) if k < n else range(n)
        score = {}
        for other in others:
            if not (masked and labels[other] == labels[k]):
                product = (rows[k] @ Wq) @ (rows[other] @ Wk)
                score[other] = math.exp(product / math.sqrt(width) if scaled else product)
        expected = rows[k].clone()
        for column, other in enumerate(others):
            share = score.get(other, 0.0) / sum(score.values())
            assert weights[k, column].item() == pytest.approx(share)
            expected += share * (rows[other] @ Wv)
        assert torch.allclose(out[k], expected)


def test_literal_attention_is_nearly_one_hot_at_unit_variance():
    torch.manual_seed(0)
    rows = random(64, 1024, dtype=torch.float32)
    largest = {scaled: CrossAttention(1024, scaled=scaled)(rows)[1].amax(dim=1).mean() for scaled in (True, False)}
    assert largest[False] > 0.8
    assert largest[True] < 0.1


def test_zero_value_starts_as_the_identity():
    rows = random(8, 4, dtype=torch.float32)
    attention = CrossAttention(4, zero_value=True)
    out, _ = attention(rows)
    assert torch.equal(out, rows)
    out.sum().backward()
    assert attention.value.weight.grad.abs().max() > 0  # and learns


def test_the_mask_needs_labels_of_two_identities():
    attention = CrossAttention(4, mask_own_identity=True)
    rows = random(4, 4, dtype=torch.float32)
    with pytest.raises(InputError, match="needs the labels"):
        attention(rows)
    with pytest.raises(InputError, match="nothing to attend to"):
        attention(rows, torch.tensor([3, 3, 3, 3]))


def extractor(**options) -> DetailExtractor:
    torch.manual_seed(0)
    return perturbed(DetailExtractor(4, 10, Dfe(blocks=2, init="default", **options)))


def test_detail_is_blocks_pooling_attention_width_and_batchnorm():
    detail, maps = extractor(norm="shared"), random(6, 4, 3, 2)
    out, weights = detail(detail.pool(maps))
    pooled = detail.chain(maps).mean(dim=(2, 3))
    attended, expected_weights = detail.attention(pooled)
    wide = attended @ detail.widen.weight.T
    normalised = (wide - wide.mean(dim=0)) / (wide.var(dim=0, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(out, normalised * detail.norms[0].weight)
    assert torch.equal(weights, expected_weights) and weights.shape == (6, 3)
    assert detail.widen.bias is None and not detail.norms[0].bias.requires_grad


def test_detail_of_a_row_depends_on_the_other_modality_only_through_attention():
    detail, maps = extractor().eval(), random(6, 4, 3, 2)
    changed = maps.clone()
    changed[5] += random(4, 3, 2, seed=9)
    moved = (detail(detail.pool(maps))[0] - detail(detail.pool(changed))[0]).abs().amax(dim=1) > 1e-9
    assert moved.tolist() == [True, True, True, False, False, True]
    kept = (detail.maps(maps) - detail.maps(changed)).flatten(1).abs().amax(dim=1) > 0
    assert kept.tolist() == [False] * 5 + [True]


def test_without_invertible_blocks_there_is_neither_block_nor_attention():
    detail, maps = extractor(enabled=False, norm="shared"), random(6, 4, 3, 2)
    assert {name.partition(".")[0] for name, _ in detail.named_parameters()} == {"widen", "norms"}
    assert torch.equal(detail.maps(maps), maps)
    out, attention = detail(detail.pool(maps))
    wide = maps.mean(dim=(2, 3)) @ detail.widen.weight.T
    expected = F.batch_norm(wide, None, None, detail.norms[0].weight, training=True)
    assert attention is None and torch.allclose(out, expected)


def test_norm_per_modality_removes_each_modalitys_offset():
    maps = random(12, 4, 3, 2)
    maps[:6, 0] += 4
    apart = {}
    for norm in ("shared", "per_modality"):
        detail = extractor(norm=norm, enabled=False)
        visible, infrared = detail(detail.pool(maps))[0].chunk(2)
        apart[norm] = (visible.mean(dim=0) - infrared.mean(dim=0)).abs().max().item()
    assert apart["shared"] > 0.5
    assert apart["per_modality"] < 1e-9


def test_from_the_pooling_on_detail_is_float32_under_autocast():
    detail = extractor().float()
    maps = random(6, 4, 3, 2, dtype=torch.bfloat16)
    detail.maps = lambda intermediate: intermediate  # the part that autocast leaves alone
    with torch.autocast("cpu", torch.bfloat16):
        out, attention = detail(detail.pool(maps))
    exact = detail.double()
    expected, expected_attention = exact(exact.pool(maps.double()))
    assert out.dtype == attention.dtype == torch.float32
    assert torch.allclose(out.double(), expected, atol=1e-4)
    assert torch.allclose(attention.double(), expected_attention, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"blocks": 0}, "dfe.blocks=0"),
        ({"scale": "sigmoid"}, "tanh, exp"),
        ({"init": "ones"}, "zero, default"),
        ({"norm": "none"}, "per_modality, shared"),
    ],
)
def test_unknown_options_are_named(options, named):
    with pytest.raises(InputError, match=named):
        DetailExtractor(4, 10, Dfe(**options))


def test_an_odd_width_cannot_be_halved():
    with pytest.raises(InputError, match="7 is odd"):
        DetailExtractor(7, 10, Dfe())
