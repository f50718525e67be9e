"""The chain that recomputes its activations against the one that keeps them."""

from __future__ import annotations

import copy

import pytest
import torch

from bdlf.models import BDLF, Backbone, DetailOptions, InvertibleChain
from bdlf.objective import TERMS, Objective

WIDTH = 8


def chain(blocks: int = 3, *, scale: str = "tanh", dtype: torch.dtype = torch.float64) -> InvertibleChain:
    """Random everywhere: a block that starts as the identity, or a LayerNorm of ones, would hide mistakes."""
    random = torch.manual_seed(0)
    made = InvertibleChain(WIDTH, blocks=blocks, scale=scale, init="default", recompute=True).to(dtype)
    with torch.no_grad():
        for norm in made.norms:
            norm.weight.copy_(0.6 + torch.rand(WIDTH, generator=random))
            norm.bias.copy_(torch.randn(WIDTH, generator=random))
    return made.train()


def maps(dtype: torch.dtype = torch.float64, rows: int = 3) -> torch.Tensor:
    made = torch.randn(rows, WIDTH, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return made.to(dtype).contiguous(memory_format=torch.channels_last)


def run(made: InvertibleChain, given: torch.Tensor, *, recompute: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Output, and the gradients of the input and of every parameter."""
    made.recompute = recompute
    given = given.clone(memory_format=torch.preserve_format).requires_grad_()
    out = made(given)
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(out.dtype)
    return out.detach(), list(torch.autograd.grad(out, [given, *made.parameters()], towards))


def furthest(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest error of a tensor, relative to its norm."""
    pairs = list(zip(found, expected, strict=True))
    assert all(one.shape == other.shape and one.dtype == other.dtype for one, other in pairs)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


@pytest.mark.parametrize("scale", ["tanh", "exp"])
@pytest.mark.parametrize("blocks", [1, 3, 6])
def test_gradients_are_those_of_the_plain_chain(blocks, scale):
    made = chain(blocks, scale=scale)
    (out, found), (plain, expected) = (run(made, maps(), recompute=one) for one in (True, False))
    assert torch.equal(out, plain) and out.stride() == plain.stride()
    assert furthest(found, expected) < 1e-9
    assert all(gradient.any() for gradient in expected)


def test_float32_within_a_thousandth():
    made = chain(6, dtype=torch.float32)
    (out, found), (plain, expected) = (run(made, maps(torch.float32), recompute=one) for one in (True, False))
    assert torch.equal(out, plain) and furthest(found, expected) < 1e-3


def test_bfloat16_within_its_own_precision():
    """Both are compared with float64; what is recovered from float32 maps is no further off than what was kept."""
    exact = run(chain(3), maps(), recompute=False)[1]
    errors = []
    for recompute in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, found = run(chain(3, dtype=torch.float32), maps(torch.bfloat16), recompute=recompute)
        assert all(gradient.isfinite().all() for gradient in found)
        errors.append(furthest([gradient.double() for gradient in found], exact))
    assert errors[0] < 1.1 * errors[1] < 0.2, errors


@pytest.mark.parametrize("value", [0.0, 1e-3, -0.05])
def test_a_channel_that_layer_norm_all_but_removes_does_no_harm(value):
    """LayerNorm is not inverted: its weights divide nothing."""
    made = chain(4)
    with torch.no_grad():
        made.norms[1].weight[2] = made.norms[1].weight[5] = made.norms[3].weight[0] = value
    (out, found), (plain, expected) = (run(made, maps(), recompute=one) for one in (True, False))
    assert torch.equal(out, plain) and furthest(found, expected) < 1e-9


def test_every_function_is_evaluated_once_each_way():
    made, calls = chain(3), []
    for coupling in made.couplings:
        for name in ("f1", "f2", "f3"):
            getattr(coupling, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    out = made(maps().requires_grad_())
    assert sorted(calls) == sorted(["f1", "f2", "f3"] * 3)
    calls.clear()
    out.sum().backward()
    assert sorted(calls) == sorted(["f1", "f2", "f3"] * 3)


def test_one_map_is_kept_for_each_block():
    made = chain(4)
    own = {parameter.data_ptr() for parameter in made.parameters()}
    saved = made(maps().requires_grad_()).grad_fn.saved_tensors
    assert [tensor.nbytes for tensor in saved if tensor.data_ptr() not in own] == 4 * [maps().nbytes]


def test_the_plain_chain_keeps_many_times_as_much():
    made, sizes = chain(4), {}
    made.recompute = False
    own = {parameter.data_ptr() for parameter in made.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = made(maps().requires_grad_())
    assert sum(size for place, size in sizes.items() if place not in own) > 8 * 4 * maps().nbytes
    out.sum().backward()  # until here it is all held


def test_only_training_recomputes():
    made = chain()
    expected = run(made, maps(), recompute=False)[0]
    made.recompute = True
    assert made(maps().requires_grad_()).grad_fn.name() == "_ChainBackward"
    assert torch.equal(made.eval()(maps()), expected)
    assert made(maps().requires_grad_()).grad_fn.name() != "_ChainBackward"


def test_parameters_that_do_not_learn_are_left_alone():
    made = chain()
    expected = run(made, maps(), recompute=False)[1]
    frozen = made.couplings[1].f2.expand.weight.requires_grad_(False)
    made.recompute = True
    made(maps().requires_grad_()).sum().backward()
    assert frozen.grad is None and made.couplings[1].f2.project.weight.grad is not None
    assert len(expected) == 1 + len(list(made.parameters()))


def test_a_step_of_the_whole_network_has_the_same_gradients():
    torch.manual_seed(0)
    objective = Objective(dict.fromkeys(TERMS, 1.0))
    plain = BDLF(
        Backbone("resnet10"),
        4,
        features=objective.features,
        logits=objective.logits,
        detail=DetailOptions(blocks=2, init="default"),
    ).double()
    other = copy.deepcopy(plain)
    other.detail.chain.recompute = True
    labels = torch.tensor([0, 0, 2, 2, 3, 3]).repeat(2)
    images = torch.randn(12, 3, 32, 16, dtype=torch.float64)
    for network in (plain, other):
        objective(network.train()(images, labels), labels, 1.0).total.backward()
    for (name, one), two in zip(plain.named_parameters(), other.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(
                two.grad, one.grad, rtol=1e-7, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
            )


def test_the_option_arrives():
    made = BDLF(Backbone("resnet10"), 4, features=["detail"], logits=[], detail=DetailOptions(blocks=1, recompute=True))
    assert made.detail.chain.recompute
