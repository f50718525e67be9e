"""AGW, CAJ and LUPI: their blocks, their stems, and runs of them."""

from __future__ import annotations

import pytest
import torch

from bdlf.active import TWO_STREAM
from bdlf.config.schema import TwoStream as Options
from bdlf.methods import two_stream
from bdlf.methods.two_stream import VIEWS, TwoStreamNetwork
from bdlf.networks.backbone import Backbone
from bdlf.system.errors import InputError

PAPERS_BLOCKS = "dfe.blocks=6"  # a tiny run has 1, which another method refuses


def network(method: str, **options) -> TwoStreamNetwork:
    needed = {"features": {"comprehensive_pooled"}, "logits": {"comprehensive"}}
    stream = Options(stem_relu=method != "lupi")
    return two_stream.build(
        method, Backbone("resnet10", seed=0), 5, **{**needed, "options": stream, "seed": 0, **options}
    )


def images(rows: int) -> torch.Tensor:
    return torch.randn(rows, 3, 32, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", VIEWS)
def test_a_batch_has_a_block_for_each_view(method):
    model, blocks = network(method), len(VIEWS[method])
    out = model(images(4 * blocks), torch.tensor([0, 0, 1, 1]).repeat(blocks))
    assert out.blocks == tuple(view.name for view in VIEWS[method]) and len(out.blocks) == blocks
    assert out.comprehensive.shape == (4 * blocks, 512) and out.logits["comprehensive"].shape == (4 * blocks, 5)
    with pytest.raises(InputError, match=f"is not {blocks} equal blocks"):
        model(images(4 * blocks + 1))


@pytest.mark.parametrize("method", VIEWS)
def test_modalities_are_embedded_alike_before_the_first_step_and_not_after(method):
    model = network(method).eval()
    batch = images(3)
    assert torch.equal(model.embed(batch, "vis"), model.embed(batch, "ir"))
    assert torch.equal(model.embed(batch, "ir"), model.embedder(batch, "ir"))
    assert torch.equal(model.neck(model.embed(batch, "ir", "before_bn")), model.embed(batch, "ir"))
    blocks = len(VIEWS[method])
    learned = [parameter for group in model.parameter_groups().values() for parameter in group]
    assert {id(one) for one in learned} == {id(one) for one in model.parameters() if one.requires_grad}
    optimizer = torch.optim.SGD(learned, lr=0.1)
    out = model.train()(images(4 * blocks), None)
    (out.logits["comprehensive"].square().mean() + out.comprehensive_pooled[:4].sum()).backward()
    optimizer.step()
    model.eval()
    assert not torch.allclose(model.embed(batch, "vis"), model.embed(batch, "ir"))
    with pytest.raises(InputError, match="modality='intermediate' is not known; known: vis, ir"):
        model.embed(batch, "intermediate")


def test_only_lupi_has_a_private_first_stage_and_a_third_stem():
    private = {"conv1", "bn1"}
    stems, parts = {}, {}
    for method in VIEWS:
        model = network(method)
        stems[method] = list(model.backbone.stems)
        names = [name for name in model.state_dict() if name.startswith("backbone.stems.vis.")]
        parts[method] = {name.split(".")[3] for name in names}
    assert stems == {"agw": ["vis", "ir"], "caj": ["vis", "ir"], "lupi": ["vis", "ir", "intermediate"]}
    assert parts == {"agw": private, "caj": private, "lupi": private | {"layer1"}}


def test_the_methods_that_share_the_network_are_those_whose_options_count():
    assert tuple(VIEWS) == TWO_STREAM


def test_both_visible_views_of_caj_pass_the_visible_stem():
    model = network("caj").eval()
    with torch.no_grad():
        model.backbone.stems["vis"].conv1.weight.zero_()
        pooled = model.rows(images(6))["pooled"]
    assert torch.equal(pooled[0], pooled[1]) and torch.equal(pooled[0], pooled[3])
    assert not torch.allclose(pooled[4], pooled[5])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["method=agw", "variant=dfe"], "variant=dfe"),
        (["method=agw", "dfe.stage=2"], "dfe.stage=2"),
        (["method=caj", "beg.fusion_scaled=false"], "beg.fusion_scaled=false"),
        (["method=lupi", "loss.skd.weight=2"], "loss.skd.weight=2"),
        (["method=agw", "loss.sqd.cut=10"], "loss.sqd.cut=10"),
        (["method=agw", "loss/tri=off"], "loss.tri.enabled=false"),
        (["loss.wrt.form=released"], "loss.wrt.form=released"),
        (["method.two_stream.stem_relu=false"], "method.two_stream.stem_relu=false"),
        (["method=caj", "method.deen.stage=2"], "method.deen.stage=2"),
        (["method=deen", "backbone.pooling=avg"], "backbone.pooling=avg"),
        (["method=mmn", "method.sgiel.balanced=false"], "method.sgiel.balanced=false"),
    ],
)
def test_options_of_another_method_are_refused(tiny_run, words, named):
    code, _, err = tiny_run(PAPERS_BLOCKS, *words)
    assert code == 2 and err.count("\n") == 1 and f"error: {named} changes nothing of method=" in err, err


def test_an_unknown_term_of_a_method_is_named(tiny_run):
    code, _, err = tiny_run("method.terms=[id,hope]")
    assert code == 2 and "method.terms='hope' is not known; known: id, tri" in err and err.count("\n") == 1
