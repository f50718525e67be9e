"""Private stems are equal before the first step, see their own rows alone, and see all of these as one batch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from bdlf.networks.backbone import Backbone
from bdlf.networks.nonlocal_block import insert_nonlocal
from bdlf.networks.two_stream import STEMS, TwoStream
from bdlf.system.errors import InputError

CUTS = [(stems, private) for stems in (2, 3) for private in (0, 1, 2)]
PRIVATE = ("conv1.", "bn1.", "layer1.", "layer2.")


def images(rows: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, 3, 32, 16, generator=torch.Generator().manual_seed(seed))


def network(stems: int = 2, private_stages: int = 0, **options) -> TwoStream:
    return TwoStream(Backbone("resnet10", seed=3), stems=stems, private_stages=private_stages, **options)


def with_unlike_stems(stems: int, private_stages: int) -> TwoStream:
    """In eval mode, with stems that compute different maps."""
    model = network(stems, private_stages).eval()
    for factor, stem in enumerate(model.stems.values(), start=1):
        stem.conv1.weight.data *= factor
    return model


@pytest.mark.parametrize("private_stages", [0, 1, 2])
def test_one_stem_is_the_backbone(private_stages):
    backbone, model = Backbone("resnet10", seed=3), network(1, private_stages)
    assert {f"shared.{key}" for key in backbone.state_dict()} == model.state_dict().keys()
    for mode in (False, True):
        with torch.no_grad():
            assert torch.equal(model.train(mode)(images(6), ("vis", "ir", "vis")), backbone.train(mode)(images(6)))
    for key, value in backbone.state_dict().items():  # among them the statistics of the training pass
        assert torch.equal(model.state_dict()[f"shared.{key}"], value), key


@pytest.mark.parametrize(("stems", "private_stages"), CUTS)
def test_new_stems_have_the_weights_of_the_backbone_under_torchvisions_names(stems, private_stages):
    plain, model = Backbone("resnet10", seed=3).state_dict(), network(stems, private_stages).state_dict()
    expected = {}
    for key, value in plain.items():
        name = key.removeprefix("resnet.")
        if name.startswith(PRIVATE[: 2 + private_stages]):
            expected |= {f"stems.{stem}.{name}": value for stem in STEMS[:stems]}
        else:
            expected[f"shared.{key}"] = value
    assert model.keys() == expected.keys()
    assert [key for key in model if not torch.equal(model[key], expected[key])] == []


def test_every_stem_has_the_loaded_weights(tmp_path):
    torch.save(Backbone("resnet10", seed=8).resnet.state_dict(), tmp_path / "weights.pt")
    model = TwoStream(Backbone("resnet10", seed=3, weights=tmp_path / "weights.pt"))
    loaded = Backbone("resnet10", seed=8).resnet.conv1.weight
    assert all(torch.equal(model.stems[name].conv1.weight, loaded) for name in ("vis", "ir"))


@pytest.mark.parametrize(("stems", "private_stages"), CUTS)
def test_stems_compute_alike_before_the_first_step_and_differ_after_it(stems, private_stages):
    model, test = network(stems, private_stages), images(seed=2)
    names = STEMS[:stems]
    with torch.no_grad():
        expected = Backbone("resnet10", seed=3).eval()(test)
        assert all(torch.equal(model.eval()(test, (name,)), expected) for name in names)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()(images(2 * stems), names).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    with torch.no_grad():
        after = [model.eval()(test, (name,)) for name in names]
    for k in range(1, stems):
        assert after[k].isfinite().all() and not torch.allclose(after[0], after[k])
        for one, other in zip(model.stems["vis"].parameters(), model.stems[names[k]].parameters(), strict=True):
            assert one is not other and not torch.equal(one, other)


@pytest.mark.parametrize("blocks", [("vis", "ir"), ("ir", "vis", "vis"), ("vis", "intermediate", "ir", "vis")])
def test_each_block_passes_its_stem_and_rows_keep_their_order(blocks):
    model, batch = with_unlike_stems(3, 1), images(2 * len(blocks))
    with torch.no_grad():
        for stage in (1, 2, 4):
            found = model.fore(batch, stage, blocks).chunk(len(blocks))
            for k, name in enumerate(blocks):
                assert torch.allclose(found[k], model.fore(batch[2 * k : 2 * k + 2], stage, (name,)), atol=1e-5)
        pooled = {name: model(batch[:2], (name,)) for name in STEMS}
    assert not torch.allclose(pooled["vis"], pooled["ir"]) and not torch.allclose(pooled["ir"], pooled["intermediate"])


def test_rows_of_one_stem_share_their_statistics_and_all_rows_those_of_the_shared_part():
    model, batch = with_unlike_stems(2, 0), images(6)
    reference = copy.deepcopy(model)
    model.train()(batch, ("vis", "ir", "vis"))
    vis, ir = (reference.stems[name].train() for name in ("vis", "ir"))
    visible, infrared = vis(batch[[0, 1, 4, 5]]), ir(batch[[2, 3]])
    reference.shared.resnet.layer1.train()(torch.cat([visible[:2], infrared, visible[2:]]))
    for name in ("stems.vis.bn1", "stems.ir.bn1", "shared.resnet.layer1.0.bn1"):
        found, expected = model.get_submodule(name), reference.get_submodule(name)
        assert torch.allclose(found.running_mean, expected.running_mean, atol=1e-6)
        assert torch.allclose(found.running_var, expected.running_var, atol=1e-6)
    counted = {key: value.item() for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    assert len(counted) > 10 and set(counted.values()) == {1}


def test_a_block_gives_no_gradient_to_a_stem_that_it_does_not_pass():
    model = network(3)
    model(images(6), ("vis", "ir", "vis"))[2:4].sum().backward()
    gradients = [model.stems[name].conv1.weight.grad for name in STEMS]
    assert gradients[1].abs().max() > 0
    assert gradients[2] is None


@pytest.mark.parametrize("stems", [1, 2])
def test_the_stem_with_and_without_relu(stems):
    net, test = Backbone("resnet10", seed=3).eval().resnet, images()
    with torch.no_grad():
        normed = net.bn1(net.conv1(test))
        with_relu, without = (network(stems, stem_relu=relu).eval().stem(test, ("ir",)) for relu in (True, False))
        assert torch.equal(with_relu, F.max_pool2d(normed.relu(), 3, 2, 1))
        assert torch.equal(without, F.max_pool2d(normed, 3, 2, 1))
        assert without.min() < 0


@pytest.mark.parametrize("private_stages", [0, 1, 2])
def test_stem_stages_and_rear_compose_to_the_whole(private_stages):
    model, blocks = with_unlike_stems(2, private_stages), ("vis", "ir")
    with torch.no_grad():
        maps = model.stem(images(), blocks)
        for stage in range(private_stages + 1, 5):
            maps = model.stages(maps, stage - 1, stage)
            assert maps.shape[1] == model.widths[stage - 1]
            assert torch.equal(maps, model.fore(images(), stage, blocks))
            assert torch.equal(model.pool(model.rear(maps, stage)), model(images(), blocks))
    assert maps.shape[1] == model.width == 512


def test_a_private_stage_has_its_own_non_local_blocks_equal_at_start():
    backbone = Backbone("resnet10", seed=3)
    insert_nonlocal(backbone, seed=3)
    model = TwoStream(backbone, private_stages=2)
    vis, ir = (model.stems[name].layer2[0][1].out.weight for name in ("vis", "ir"))
    assert vis is not ir and torch.equal(vis, ir)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"stems": 0}, "stems=0"), ({"stems": 4}, "known: 1, 2, 3"), ({"private_stages": 3}, "private_stages=3")],
)
def test_unknown_options_are_named(options, named):
    with pytest.raises(InputError, match=named):
        network(**options)


def test_blocks_and_stages_that_cannot_be_are_refused():
    model = network(2, 1)
    with pytest.raises(InputError, match="stem='intermediate' is not known; known: vis, ir"):
        model(images(), ("vis", "intermediate"))
    with pytest.raises(InputError, match="4 images is not 3 equal blocks"):
        model(images(), ("vis", "ir", "vis"))
    with pytest.raises(InputError, match="not 0 equal blocks"):
        model(images(), ())
    for stage in (0, 5):
        with pytest.raises(InputError, match=rf"stage={stage} is not known; known: 1, 2, 3, 4"):
            model.fore(images(), stage, ("vis", "ir"))
    with pytest.raises(InputError, match="stage=0"):
        model.rear(images(), 0)
