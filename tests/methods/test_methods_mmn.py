"""MMN: middle images, stripes, and the map of the consistency term."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bdlf.config.schema import Mmn as Options
from bdlf.methods.mmn import MMN
from bdlf.networks.backbone import Backbone
from bdlf.system.errors import InputError

LABELS = torch.tensor([0, 0, 1, 1]).repeat(2)


def network(*, features=("parts", "parts_mapped"), logits=("parts",), last_stride=1, **options) -> MMN:
    backbone = Backbone("resnet10", last_stride=last_stride, seed=0)
    return MMN(backbone, 5, features=features, logits=logits, options=Options(**options), seed=0)


def images(rows: int, seed: int = 1, height: int = 64) -> torch.Tensor:
    return torch.randn(rows, 3, height, 32, generator=torch.Generator().manual_seed(seed))


def test_a_middle_image_is_that_of_the_formula():
    model = network()
    middle = model.trunk.middle
    assert all(one.eq(0.333).all() for name, one in middle.named_parameters() if name.endswith("0.weight"))
    for k, parameter in enumerate(middle.parameters()):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k))
    batch = images(3)
    middle.train()
    for modality in ("vis", "ir"):
        first, _, second, _, norm = middle.own[modality]
        third, _ = middle.shared
        u = (batch * first.weight.view(1, 3, 1, 1)).sum(1, keepdim=True).add(first.bias).clamp(min=0)
        v = (u * second.weight.view(()) + second.bias).clamp(min=0)
        t = (v - v.mean()) / (v.var(unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
        expected = (t * third.weight.view(1, 3, 1, 1) + third.bias.view(1, 3, 1, 1)).clamp(min=0)
        assert torch.allclose(middle(batch, modality), expected, atol=1e-5)


@pytest.mark.parametrize("last_stride", [1, 2])
def test_the_rows_are_stripes_of_four_blocks(last_stride):
    model = network(last_stride=last_stride).eval()
    batch = images(8)
    with torch.no_grad():
        out = model(batch, LABELS)
        visible, infrared = batch.chunk(2)
        middle = [model.trunk.middle(visible, "vis"), model.trunk.middle(infrared, "ir")]
        shown = [(visible, "vis"), (middle[0], "vis"), (infrared, "ir"), (middle[1], "ir")]
        maps = torch.cat([model.trunk.backbone.fore(x, 4, (stem,)) for x, stem in shown])
    assert out.blocks == ("vis", "vis_middle", "ir", "ir_middle")
    assert maps.shape[2:] == (4, 2)  # the last stride is 1 in any case
    expected = torch.stack([maps[:, :, k].mean(2) for k in range(4)], dim=1)
    assert torch.allclose(out.parts, expected, atol=1e-5)
    assert torch.equal(out.comprehensive_pooled, out.parts.flatten(1))
    for k in range(4):
        neck = model.necks[k](out.parts[:, k])
        assert torch.equal(out.comprehensive.view(16, 4, -1)[:, k], neck)
        assert torch.equal(out.logits["parts"][:, k], model.classifiers[k](neck))
    assert model.rows(batch)["parts"].shape == (8, 2, 4, 512)  # a row for each image


@pytest.mark.parametrize("learned", [False, True])
def test_the_map_is_that_of_the_formula_and_moves_only_if_it_is_learned(learned):
    model = network(learned_map=learned).train()
    first, norm1, _, second, norm2 = model.map
    out = model(images(8), LABELS)
    _, vm, _, im = out.parts.detach().chunk(4)
    _, mapped_v, _, mapped_i = out.parts_mapped.chunk(4)

    def standard(x, norm):
        return (x - x.mean(0)) / (x.var(0, unbiased=False) + norm.eps).sqrt()

    for k in range(4):
        x = F.normalize(torch.cat([vm[:, k], im[:, k]]), dim=1) @ first.weight.T
        x = standard(x, norm1).clamp(min=0) @ second.weight.T + second.bias
        expected = F.normalize(standard(x, norm2), dim=1)
        assert torch.allclose(torch.cat([mapped_v[:, k], mapped_i[:, k]]), expected, atol=1e-4)
    assert {name for name in model.state_dict() if name.startswith(("map.0", "map.3"))} == {
        "map.0.weight", "map.3.weight", "map.3.bias",
    }  # fmt: skip
    (mapped_v[..., 0] - mapped_i[..., 0]).sum().backward()
    assert (first.weight.grad is not None) == learned
    assert model.trunk.middle.shared[0].weight.grad is not None
    learnt = {id(one) for group in model.parameter_groups().values() for one in group}
    assert learnt == {id(one) for one in model.parameters() if one.requires_grad}
    assert (id(second.weight) in learnt) == learned


def test_embed_is_the_sum_of_the_units_of_the_image_and_its_middle_image():
    model = network().eval()
    batch = images(5)
    assert torch.equal(model.embed(batch, "vis"), model.embed(batch, "ir"))  # before the first step
    torch.nn.init.normal_(model.trunk.middle.own["ir"][0].weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = model(torch.cat([batch, batch]))
        units = F.normalize(out.comprehensive, dim=1).chunk(4)
        for modality, image, middle in (("vis", *units[:2]), ("ir", *units[2:])):
            assert torch.allclose(model.embed(batch, modality), image + middle, atol=1e-5)
            assert torch.allclose(model.embed(batch, modality, "without_middle"), image, atol=1e-5)
            assert torch.equal(model.embed(batch, modality), model.embedder(batch, modality))
    # The inner product of the vectors is the sum of the four similarities of the released code.
    f, m = units[0], units[1]
    four = f @ f.T + f @ m.T + m @ f.T + m @ m.T
    vector = model.embed(batch, "vis")
    assert torch.allclose(vector @ vector.T, four, atol=1e-4)
    assert not torch.allclose(model.embed(batch, "vis"), model.embed(batch, "ir"))
    with pytest.raises(InputError, match="feature='before_bn' is not known; known: after_bn, without_middle"):
        model.embed(batch, "vis", "before_bn")
    with pytest.raises(RuntimeError, match="eval"):
        model.train().embed(batch, "vis")


def test_parts_that_nobody_reads_are_not_built_and_wrong_ones_are_refused():
    model = network(features=("parts",), logits=())
    assert model.map is None and len(model.classifiers) == 0
    assert model(images(8)).parts_mapped is None
    with pytest.raises(InputError, match=r"method\.mmn\.parts=0: give a number from 1"):
        network(parts=0)
    with pytest.raises(
        InputError, match=r"method\.mmn\.parts=3: the last map has 4 rows, which 3 stripes cannot share"
    ):
        network(parts=3)(images(8))
