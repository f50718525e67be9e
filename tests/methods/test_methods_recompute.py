"""The chain that computes its activations again, compared with the plain chain."""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial

import pytest
import torch

from bdlf.config.schema import Dfe
from bdlf.methods.bdlf import BDLF, InvertedResidual, InvertibleChain
from bdlf.networks.backbone import Backbone


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def pair(blocks: int, *, scale: str = "tanh", dtype: torch.dtype = torch.float64, width: int = 12):
    """A plain and a recomputing chain of the same weights, all of them random."""
    torch.manual_seed(0)
    plain = InvertibleChain(width, blocks=blocks, scale=scale, init="default")
    for k, parameter in enumerate(plain.parameters()):
        parameter.data += 0.3 * random(*parameter.shape, seed=100 + k, dtype=torch.float32)
    again = InvertibleChain(width, blocks=blocks, scale=scale, recompute=True)
    again.load_state_dict(plain.state_dict())
    return plain.to(dtype), again.to(dtype)


def passed(chain: InvertibleChain, maps: torch.Tensor, amp: bool = False):
    """Output, and gradients by name, of a sum of the outputs with unequal weights."""
    maps = maps.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        out = chain(maps)
    (out * random(*out.shape, seed=9, dtype=torch.float32)).sum().backward()
    return out.detach(), {"maps": maps.grad, **{name: each.grad for name, each in chain.named_parameters()}}


def apart(found: dict, expected: dict) -> float:
    """Largest distance of a gradient from the expected one, in terms of its norm."""
    assert found.keys() == expected.keys()
    assert all(each.norm() > 0 for each in expected.values())
    return max(
        ((found[k].double() - each.double()).norm() / each.double().norm()).item() for k, each in expected.items()
    )


@pytest.mark.parametrize("scale", ["tanh", "exp"])
@pytest.mark.parametrize("blocks", [1, 3, 6])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
def test_output_is_the_plain_chains_and_gradients_are_up_to_rounding(scale, blocks, dtype, bound):
    plain, again = pair(blocks, scale=scale, dtype=dtype)
    maps = random(4, 12, 5, 3, seed=1, dtype=dtype)
    (expected, wanted), (out, found) = passed(plain, maps), passed(again, maps)
    assert torch.equal(out, expected)
    assert apart(found, wanted) < bound
    if dtype == torch.float64:
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(3, 1), (1, 1)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_any_size_and_memory_order(size, order):
    plain, again = pair(2)
    maps = random(3, 12, *size, seed=1).contiguous(memory_format=order)
    (expected, wanted), (out, found) = passed(plain, maps), passed(again, maps)
    assert torch.equal(out, expected) and out.stride() == expected.stride()
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert apart(found, wanted) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("inside", [False, True])
def test_under_autocast_it_is_as_near_to_float64_as_the_plain_chain(dtype, inside):
    plain, again = pair(3, dtype=torch.float32, width=32)
    maps = random(4, 32, 5, 3, seed=1, dtype=dtype)
    _, exact = passed(copy.deepcopy(plain).double(), maps.double())
    expected, wanted = passed(plain, maps, amp=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=inside):  # backward inside as well
        out, found = passed(again, maps, amp=True)
    assert torch.equal(out, expected) and out.dtype == expected.dtype
    assert {name: each.dtype for name, each in found.items()} == {name: each.dtype for name, each in wanted.items()}
    assert apart(wanted, exact) > 0.02  # bfloat16 was used
    assert apart(found, wanted) < MEASURED[dtype] and apart(found, exact) < 1.5 * apart(wanted, exact)


MEASURED = {torch.bfloat16: 0.2, torch.float32: 0.05}


def test_what_backward_computes_again_is_in_the_forward_pass_arithmetic():
    _, chain = pair(2, dtype=torch.float32)
    kinds = []
    for module in chain.modules():
        if isinstance(module, InvertedResidual):
            module.register_forward_hook(lambda module, given, out: kinds.append(out.dtype))
    passed(chain, random(2, 12, 4, 2, dtype=torch.float32), amp=True)
    assert kinds == [torch.bfloat16] * 12


@pytest.mark.parametrize("weight", [0.0, 1e-30, 1e-3])
def test_small_weights_of_layernorm_do_no_harm(weight):
    plain, again = pair(3, dtype=torch.float32)
    for chain in (plain, again):
        for norm in chain.norms:
            norm.weight.data[3:9] = weight
    maps = random(4, 12, 5, 3, seed=1, dtype=torch.float32)
    (_, wanted), (_, found) = passed(plain, maps), passed(again, maps)
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 5e-6 * gradient.norm(), name


def test_each_function_runs_once_in_each_direction():
    _, chain = pair(3)
    runs = Counter()
    for name, module in chain.named_modules():
        if isinstance(module, InvertedResidual):
            module.register_forward_hook(lambda module, given, out, name=name: runs.update([name]))
    maps = random(2, 12, 4, 2).requires_grad_()
    out = chain(maps)
    assert len(runs) == 9 and set(runs.values()) == {1}
    out.sum().backward()
    assert len(runs) == 9 and set(runs.values()) == {2}


def saved(chain: InvertibleChain, maps: torch.Tensor) -> int:
    """Elements, other than of parameters, that a forward pass keeps for the gradients."""
    own = {each.data_ptr() for each in chain.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = chain(maps)
    assert out.requires_grad
    return sum(kept.values())


def test_one_map_of_a_block_is_kept():
    maps = random(2, 12, 8, 6, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    for blocks in (1, 3, 6):
        plain, again = pair(blocks, dtype=torch.float32)
        assert saved(again, maps) == blocks * maps.numel()
        assert saved(plain, maps) > 8 * blocks * maps.numel()


@pytest.mark.parametrize("frozen", ["f2", "norms", "couplings", ""])
@pytest.mark.parametrize("learning", [True, False])
def test_only_what_learns_gets_a_gradient(frozen, learning):
    gradients = []
    for chain in pair(2):
        for name, parameter in chain.named_parameters():
            parameter.requires_grad_(not (frozen and frozen in name))
        maps = random(2, 12, 4, 2).requires_grad_(learning)
        chain(maps).square().sum().backward()
        gradients.append({"maps": maps.grad, **{name: each.grad for name, each in chain.named_parameters()}})
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None), name
        assert gradient is None or torch.allclose(gradients[1][name], gradient), name


def test_without_training_it_is_the_plain_chain(monkeypatch):
    _, chain = pair(2)
    maps = random(2, 12, 4, 2).requires_grad_()
    assert "_Chain" in chain(maps).grad_fn.name()
    assert "_Chain" not in chain.eval()(maps).grad_fn.name()
    monkeypatch.setattr("bdlf.methods.bdlf.dfe.recomputed", None)
    with torch.no_grad():
        chain.train()(maps)


def test_weights_changed_before_the_backward_pass_are_noticed():
    _, chain = pair(1)
    out = chain(random(2, 12, 4, 2))
    with torch.no_grad():
        chain.couplings[0].f1.project.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("amp", [False, True])
def test_a_step_of_the_whole_model(amp):
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = BDLF(
            Backbone("resnet10"),
            7,
            features={"detail"},
            logits={"comprehensive", "detail", "base"},
            dfe=Dfe(blocks=2, init="default", recompute=recompute),
        )
        assert model.detail.chain.recompute == recompute
        images = random(6, 3, 32, 32, seed=1, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            out = model(images)
        sum((value**2).sum() for value in out.logits.values()).backward()
        gradients.append({name: each.grad for name, each in model.named_parameters() if each.requires_grad})
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        gradients[-1]["a stepped weight"] = model.detail.chain.couplings[0].f1.expand.weight.detach()
    chain = partial(filter, lambda name: "detail.chain" in name)
    assert len(list(chain(gradients[0]))) == 2 * (9 + 2)
    assert apart(gradients[1], gradients[0]) < (0.1 if amp else 1e-4)
