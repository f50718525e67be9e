"""The network of BDLF: which parts are built, what they return, and which of them learn."""

from __future__ import annotations

import copy

import onnxruntime
import pytest
import torch

from bdlf.config.schema import Beg, Dfe
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.networks.embeddings import Embeddings
from bdlf.system.errors import InputError

EVERYTHING = {
    "features": {"comprehensive_pooled", "detail", "detail_projected", "base", "projection"},
    "logits": {"comprehensive", "base", "fused", "detail", "detail_projected"},
}


def network(**given) -> BDLF:
    torch.manual_seed(0)
    return BDLF(Backbone("resnet10"), 7, **{**EVERYTHING, "dfe": Dfe(blocks=2), **given})


def images(rows: int = 6) -> torch.Tensor:
    return torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def built(model: BDLF) -> set[str]:
    return {name.partition(".")[0] for name, _ in model.named_parameters()}


def given(embeddings: Embeddings) -> set[str]:
    return {name for name, value in vars(embeddings).items() if isinstance(value, torch.Tensor)}


TRUNK = {"backbone", "neck"}
ALWAYS = {"comprehensive_pooled", "comprehensive"}
PROJECTED = {"projection", "detail_projected", "base"}


@pytest.mark.parametrize(
    ("features", "logits", "modules", "tensors"),
    [
        ({"comprehensive_pooled"}, {"comprehensive"}, {"classifier"}, set()),
        ({"comprehensive_pooled"}, set(), set(), set()),
        (set(), {"detail"}, {"detail", "classifier_detail"}, {"detail", "attention"}),
        ({"projection"}, set(), {"projection"}, PROJECTED),
        (set(), {"base"}, {"projection", "classifier"}, PROJECTED),
        (set(), {"fused"}, {"projection", "fusion", "classifier"}, {*PROJECTED, "fused"}),
        ({"fused"}, set(), {"projection", "fusion"}, {*PROJECTED, "fused"}),
        (set(), {"detail_projected"}, {"projection", "classifier_detail"}, PROJECTED),
        ({"detail", "base"}, set(), {"detail", "projection"}, {*PROJECTED, "detail", "attention"}),
        (
            *EVERYTHING.values(),
            {"detail", "projection", "fusion", "classifier", "classifier_detail"},
            {*PROJECTED, "fused", "detail", "attention"},
        ),
    ],
)
def test_only_what_is_needed_is_built_and_all_of_it_is_given(features, logits, modules, tensors):
    model = network(features=features, logits=logits)
    assert built(model) == TRUNK | modules
    embeddings = model(images())
    assert given(embeddings) == ALWAYS | tensors
    assert embeddings.logits.keys() == logits
    assert features <= given(embeddings)


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_shapes_and_gradients_at_every_stage(stage):
    model = network(dfe=Dfe(stage=stage, blocks=2))
    embeddings = model(images(), torch.tensor([0, 1, 2] * 2))
    rows = dict.fromkeys(("comprehensive_pooled", "comprehensive", "detail", "detail_projected", "base"), 6)
    for name, count in {**rows, "fused": 3, "projection": 512}.items():
        assert getattr(embeddings, name).shape == (count, 512), name
    assert embeddings.attention.shape == (6, 3)
    assert {name: len(value) for name, value in embeddings.logits.items()} == {
        "comprehensive": 6,
        "base": 6,
        "fused": 3,
        "detail": 6,
        "detail_projected": 6,
    }
    sum((value**2).sum() for value in embeddings.logits.values()).backward()
    assert not [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]


def test_features_are_related_as_in_equations_1_and_9_and_classified_by_their_classifier():
    model = network().double().eval()
    model.fusion.Qv.data.normal_()
    out = model(images().double())
    P, Z = out.projection, out.comprehensive
    assert torch.allclose(out.comprehensive_pooled, model.backbone(images().double()))
    assert torch.allclose(Z, model.neck(out.comprehensive_pooled))
    assert torch.allclose(out.detail_projected, Z @ P)
    assert torch.allclose(out.base, Z @ (torch.eye(512).double() - P))
    assert torch.allclose(out.fused, model.fusion(out.base))
    detail, attention = model.detail(model.detail.pool(model.backbone.fore(images().double(), 3)))
    assert torch.allclose(out.detail, detail) and torch.allclose(out.attention, attention)
    for name in ("comprehensive", "base", "fused"):
        assert torch.allclose(out.logits[name], getattr(out, name) @ model.classifier.weight.T)
    for name in ("detail", "detail_projected"):
        assert torch.allclose(out.logits[name], getattr(out, name) @ model.classifier_detail.weight.T)


def test_embed_is_z_row_by_row_in_any_number_and_order():
    model = network().eval()
    model.neck.running_mean.normal_()
    with torch.no_grad():
        out = model(images())
        for feature, expected in {"after_bn": out.comprehensive, "before_bn": out.comprehensive_pooled}.items():
            for rows in ([4], [5, 0, 2]):
                assert torch.allclose(model.embed(images()[rows], "ir", feature), expected[rows], atol=1e-5)
    with pytest.raises(InputError, match="modality='nir' is not known; known: vis, ir"):
        model.embed(images(), "nir")
    with pytest.raises(InputError, match="after_bn, before_bn"):
        model.embed(images(), "ir", "middle")
    with pytest.raises(RuntimeError, match="eval"):
        model.train().embed(images(), "vis")


def test_embed_evaluates_neither_branch_nor_heads():
    model = network().eval()
    whole = model.embed(images(), "vis")
    model.detail = model.projection = model.fusion = model.classifier = model.classifier_detail = None
    assert torch.equal(model.embed(images(), "vis"), whole)


def test_labels_reach_the_mask_of_the_attention():
    torch.manual_seed(0)
    masked = Dfe(blocks=1, mask_own_identity=True)
    model = BDLF(Backbone("resnet10"), 7, features={"detail"}, logits=set(), dfe=masked)
    attention = model(images(), torch.tensor([3, 5, 5] * 2)).attention
    own = torch.eye(3) + torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert torch.equal((attention == 0).float(), own.repeat(2, 1))


def test_options_reach_the_branches():
    torch.manual_seed(0)
    model = BDLF(
        Backbone("resnet10"),
        7,
        **EVERYTHING,
        dfe=Dfe(
            blocks=3,
            scale="exp",
            init="default",
            attention_scaled=False,
            attention_zero_value=True,
            mask_own_identity=True,
            norm="shared",
        ),
        beg=Beg(projection="orthogonal", fusion_scaled=False, fusion_zero_value=False),
    )
    chain, attention = model.detail.chain, model.detail.attention
    assert len(chain.couplings) == 3 and chain.couplings[2].scale == "exp"
    assert all(f.project.weight.any() for f in (chain.couplings[0].f1, chain.couplings[1].f2, chain.couplings[2].f3))
    assert attention.factor == 1 and attention.mask_own_identity and not attention.value.weight.any()
    assert len(model.detail.norms) == 1
    assert model.projection.form == "orthogonal" and not model.fusion.scaled and model.fusion.Pv.any()
    kaiming = network(features={"projection"}, logits=set(), beg=Beg(init="kaiming")).projection()
    assert (kaiming - kaiming.T).abs().max() > 0.01


def test_defaults_are_the_stable_forms():
    model = BDLF(Backbone("resnet10"), 7, **EVERYTHING)
    assert model.stage == 3 and len(model.detail.chain.couplings) == 6
    for block in model.detail.chain.couplings:
        assert block.scale == "tanh"
        assert not any(f.project.weight.any() for f in (block.f1, block.f2, block.f3))
    assert model.detail.attention.factor == pytest.approx(256**-0.5) and not model.detail.attention.mask_own_identity
    assert model.detail.attention.value.weight.any() and len(model.detail.norms) == 2
    assert model.projection.form == "free" and model.fusion.scaled
    assert not model.fusion.Pv.any() and not model.fusion.Qv.any()


@pytest.mark.parametrize("form", ["free", "orthogonal"])
def test_parameter_groups_are_disjoint_and_complete(form):
    model = network(beg=Beg(projection=form))
    groups = model.parameter_groups()
    assert list(groups) == ["backbone", "heads", "projection"]
    grouped = [id(parameter) for group in groups.values() for parameter in group]
    learnt = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == learnt
    assert [id(p) for p in groups["backbone"]] == [id(p) for p in model.backbone.parameters()]
    expected = [*model.projection.parameters(), *model.fusion.parameters()]
    assert {id(p) for p in groups["projection"]} == {id(p) for p in expected} and len(expected) == 7
    assert network(features=set(), logits={"comprehensive"}).parameter_groups()["projection"] == []


def test_bn_necks_have_a_scale_but_no_shift_to_learn_and_classifiers_no_bias():
    model = network()
    for neck in (model.neck, *model.detail.norms):
        assert not neck.bias.requires_grad and not neck.bias.any()
        assert neck.weight.requires_grad and (neck.weight == 1).all()
    for head in (model.classifier, model.classifier_detail):
        assert head.bias is None and head.weight.std().item() == pytest.approx(0.001, rel=0.1)


def test_autocast_leaves_projection_fusion_and_heads_in_float32():
    model = network().eval()
    model.fusion.Qv.data.normal_()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = model(images())
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        fused = exact.fusion(out.base.double())
        base = out.comprehensive.double() @ (torch.eye(512).double() - exact.projection())
        scores = exact.classifier(out.base.double())
    assert torch.allclose(out.base.double(), base, atol=1e-5 * base.abs().max().item())
    assert torch.allclose(out.fused.double(), fused, atol=1e-5 * fused.abs().max().item())
    assert torch.allclose(out.logits["base"].double(), scores, atol=1e-5 * scores.abs().max().item())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"features": {"attention"}}, "feature='attention'.*comprehensive_pooled, comprehensive, base, fused"),
        ({"logits": {"projection"}}, "logits='projection'.*detail_projected"),
        ({"dfe": Dfe(stage=5)}, "dfe.stage=5"),
    ],
)
def test_unknown_names_are_listed_with_the_known(options, named):
    with pytest.raises(InputError, match=named):
        network(**options)


def test_an_odd_batch_has_no_halves():
    with pytest.raises(InputError, match="5 images"):
        network()(images(5))


def test_rows_act_on_each_image_and_the_rest_on_the_whole_batch():
    model = network().eval()
    with torch.no_grad():
        whole = model.rows(images())
        assert {name: len(rows) for name, rows in whole.items()} == {"pooled": 6, "detail": 6}
        shares = [model.rows(images()[rows]) for rows in ([0, 3], [1, 2, 4, 5])]
        for name, rows in whole.items():
            order = torch.tensor([0, 3, 1, 2, 4, 5]).argsort()
            assert torch.allclose(torch.cat([share[name] for share in shares])[order], rows, atol=1e-5)
        labels = torch.tensor([0, 1, 2] * 2)
        together, at_once = model.batch(whole, labels), model(images(), labels)
    for name in given(at_once):
        assert torch.equal(getattr(together, name), getattr(at_once, name)), name
    assert together.blocks == tuple(view.name for view in BDLF.views) == ("vis", "ir")


def test_the_embedder_is_inference_alone_and_shares_its_weights():
    model = network().eval()
    embedder = model.embedder
    assert {name.partition(".")[0] for name in embedder.state_dict()} == {"backbone", "neck"}
    assert not embedder.training and embedder.neck is model.neck
    assert {id(one) for one in embedder.parameters()} <= {id(one) for one in model.parameters()}
    assert "embedder" not in dict(model.named_modules())


def test_the_embedder_is_exported_by_torch():
    embedder = network().eval().embedder
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(embedder, (images(2),), dynamic_shapes=({0: batch},))
    assert {name.partition(".")[0] for name in program.state_dict} == {"backbone", "neck"}
    with torch.no_grad():
        assert torch.allclose(program.module()(images(5)), embedder(images(5)), atol=1e-5)


def test_the_embedder_is_exported_to_onnx(tmp_path):
    embedder = network().eval().embedder
    file = tmp_path / "embedder.onnx"
    axis = {0: torch.export.Dim("batch", min=1, max=64)}
    torch.onnx.export(embedder, (images(2),), str(file), dynamic_shapes=(axis,), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images(5).numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), embedder(images(5)), atol=1e-4)
