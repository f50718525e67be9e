"""The network of DEEN: its blocks of rows, its vector of inference, and what its options leave out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from bdlf.config.schema import Deen as Options
from bdlf.methods.deen import DEEN
from bdlf.networks.backbone import Backbone
from bdlf.networks.streams import seeded
from bdlf.networks.two_stream import TwoStream
from bdlf.system.errors import InputError

LABELS = torch.tensor([0, 0, 1, 1]).repeat(2)


def network(*, blocks=(), logits=("comprehensive",), pooling="gem", **options) -> DEEN:
    backbone = Backbone("resnet10", pooling=pooling, seed=0)
    needed = {"features": {"comprehensive_pooled"}, "logits": logits, "blocks": blocks}
    return DEEN(backbone, 5, options=Options(**options), seed=0, **needed)


def images(rows: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, 3, 64, 32, generator=torch.Generator().manual_seed(seed))


def test_without_its_expansion_a_new_network_is_the_two_stream_network():
    plain = TwoStream(Backbone("resnet10", pooling="avg", seed=0)).eval()
    batch = images(4)
    with torch.no_grad():
        for aggregation in (True, False):
            model = network(expansion=False, aggregation=aggregation).eval()
            assert torch.allclose(model(batch).comprehensive_pooled, plain(batch, ("vis", "ir")), atol=1e-6)
            assert model(batch).blocks == ("vis", "ir")
            one = model.embed(batch, "ir")
            pooled = plain(batch, ("ir",))
            units = [F.normalize(pooled, dim=1), F.normalize(model.neck(pooled), dim=1)]
            assert torch.allclose(one, torch.cat(units, dim=1), atol=1e-6)


def test_the_rows_are_six_blocks_of_which_the_first_two_are_the_images_own():
    model = network().eval()
    batch = images(8)
    with torch.no_grad():
        out = model(batch, LABELS)
        maps = model.trunk.backbone.fore(batch, 3, ("vis", "ir"))  # a new aggregation is the identity
        expanded = model.trunk.backbone.rear(model.trunk.expansion(maps), 3).mean((2, 3))
    assert out.blocks == ("vis", "ir", "vis_1", "ir_1", "vis_2", "ir_2")
    assert torch.allclose(out.comprehensive_pooled, expanded, atol=1e-6) and len(expanded) == 24
    assert not torch.allclose(expanded[8:16], expanded[16:])
    assert torch.equal(out.comprehensive, model.neck(out.comprehensive_pooled))
    assert out.logits["comprehensive"].shape == (24, 5)
    assert model.rows(batch)["pooled"].shape == (8, 3, 512)  # a row for each image
    assert torch.equal(out.row_labels(LABELS), LABELS[:4].repeat(6))


def test_embed_joins_six_unit_vectors_and_its_cosine_is_the_released_similarity():
    model = network().eval()
    batch = images(5)
    with torch.no_grad():
        vector = model.embed(batch, "vis")
        again = model.embed(batch, "vis")
        pooled = model.trunk(batch, ("vis",))
        kinds = [pooled[:, k] for k in range(3)] + [model.neck(pooled[:, k]) for k in range(3)]
    assert torch.equal(vector, again)  # no dropout
    assert torch.equal(vector, model.embedder(batch, "vis"))
    assert vector.shape == (5, 6 * 512)
    assert torch.allclose(vector.norm(dim=1), torch.full((5,), math.sqrt(6)), atol=1e-5)
    similarity = torch.zeros(5, 5)
    for kind in kinds:
        for i in range(5):
            for j in range(5):
                similarity[i, j] += F.cosine_similarity(kind[i], kind[j], dim=0)
    cosine = F.normalize(vector, dim=1) @ F.normalize(vector, dim=1).T
    assert torch.allclose(6 * cosine, similarity, atol=1e-4)


def test_modalities_are_embedded_alike_before_the_first_step_and_not_after():
    model = network().eval()
    batch = images(4)
    assert torch.equal(model.embed(batch, "vis"), model.embed(batch, "ir"))
    learned = [parameter for group in model.parameter_groups().values() for parameter in group]
    assert {id(one) for one in learned} == {id(one) for one in model.parameters() if one.requires_grad}
    optimizer = torch.optim.SGD(learned, lr=0.1)
    out = model.train()(images(8, seed=2), LABELS)
    (out.comprehensive_pooled[:4].square().sum() + out.logits["comprehensive"].square().mean()).backward()
    optimizer.step()
    model.eval()
    assert not torch.allclose(model.embed(batch, "vis"), model.embed(batch, "ir"))
    with pytest.raises(InputError, match="feature='before_bn' is not known; known: after_bn"):
        model.embed(batch, "vis", "before_bn")
    with pytest.raises(RuntimeError, match="eval"):
        model.train().embed(batch, "vis")


def test_the_dropout_draws_what_the_seed_of_the_batch_says():
    model = network().train()
    batch, cpu = images(8), torch.device("cpu")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    found = []
    for seed in (3, 3, 4):
        with seeded(seed, cpu):
            found.append(model(batch, LABELS).comprehensive_pooled)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_after_stage_2_the_last_stage_is_left_out():
    model = network(stage=2).eval()
    assert model(images(8)).comprehensive_pooled.shape == (24, 256)
    assert not any(".layer4." in name for name in model.state_dict())
    assert sum(name.endswith("cnl.theta.weight") for name in model.state_dict()) == 2
    with pytest.raises(InputError, match=r"method\.deen\.stage=4 is not known; known: 2, 3"):
        network(stage=4)


def test_terms_of_an_expansion_that_is_left_out_are_refused():
    network(blocks={"vis", "ir"}, expansion=False)
    with pytest.raises(InputError, match=r"the block 'ir_1', which method\.deen\.expansion=false leaves out; add loss"):
        network(blocks={"vis", "vis_1", "ir_1"}, expansion=False)
