"""The terms of the loss: which are on, their arguments, weights and ramps, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bdlf import losses
from bdlf.active import RAMPED as RAMPED_TERMS
from bdlf.active import TERM_OPTIONS, WATCHED, needs_detail, needs_fusion, needs_projection
from bdlf.config.schema import BDLF_TERMS
from bdlf.networks.embeddings import Embeddings
from bdlf.objective import Objective, correlations
from bdlf.system.errors import InputError
from bdlf.terms import TERMS

PAIRS, WIDTH, IDS = 6, 10, 4
LABELS = torch.tensor([0, 0, 1, 1, 3, 3]).repeat(2)
FEATURES = {
    "comprehensive_pooled": 2 * PAIRS,
    "comprehensive": 2 * PAIRS,
    "detail": 2 * PAIRS,
    "detail_projected": 2 * PAIRS,
    "base": 2 * PAIRS,
    "fused": PAIRS,
    "projection": WIDTH,
}
CLASSIFIED = ("comprehensive", "detail", "detail_projected", "base", "fused")
ALL_ON = dict.fromkeys(BDLF_TERMS, 1.0)


def embeddings(seed: int = 0, **changes: Any) -> Embeddings:
    """Everything a network can provide, random, with a part that both modalities share."""
    generator = torch.Generator().manual_seed(seed)

    def random(rows: int, columns: int) -> Tensor:
        shared = torch.randn(PAIRS, columns, generator=generator).repeat(2, 1)[:rows] if rows % PAIRS == 0 else 0
        return (torch.randn(rows, columns, generator=generator) + shared).double().requires_grad_()

    made: dict[str, Any] = {name: random(rows, WIDTH) for name, rows in FEATURES.items()}
    made["logits"] = {name: random(FEATURES[name], IDS) for name in CLASSIFIED}
    made["attention"] = random(2 * PAIRS, PAIRS).softmax(dim=1)
    return Embeddings(**{**made, **changes})


def by_hand(e: Embeddings) -> dict[str, Tensor]:
    """Every term, written out from the paper's equations."""
    v, i = slice(None, PAIRS), slice(PAIRS, None)
    score = e.logits
    return {
        "id": losses.identity(score["comprehensive"], LABELS),
        "tri": losses.triplet(e.comprehensive_pooled, LABELS),
        "okl": losses.mutual_distillation(score["comprehensive"][v], score["comprehensive"][i]),
        "id_detail": losses.identity(score["detail"], LABELS),
        "odkl": losses.distillation(score["detail"], score["comprehensive"]),
        "id_base": losses.identity(score["base"], LABELS),
        "bkl": losses.mutual_distillation(score["base"][v], score["base"][i]),
        "id_fused": losses.identity(score["fused"], LABELS[v]),
        "fbkl": losses.fused_distillation(score["base"][v], score["base"][i], score["fused"]),
        "fkl": losses.feature_relation(e.detail_projected, e.detail),
        "dkl": losses.distillation(score["detail_projected"], score["detail"]),
        "dcorr": losses.detail_correlation(e.detail_projected[v], e.detail_projected[i], e.detail[v], e.detail[i]),
        "orth": losses.orthogonality(e.projection),
        "skd": losses.specific_shared(e.base[v], e.base[i], e.detail[v], e.detail[i]),
    }


RAMPED = {"okl", "bkl", "fbkl", "odkl", "dkl", "fkl", "dcorr", "skd"}


def test_total_is_the_hand_sum_and_values_are_the_bare_terms() -> None:
    weights = {name: 0.3 + 0.1 * k for k, name in enumerate(BDLF_TERMS)}
    e = embeddings()
    total, values = Objective(weights, ramp=0.5)(e, LABELS, progress=0.2)
    hand = by_hand(e)
    assert list(values) == list(hand) == list(BDLF_TERMS)
    for name, value in hand.items():
        assert values[name].item() == pytest.approx(value.item(), rel=1e-12), name
        assert not values[name].requires_grad
    expected = sum(weights[name] * (0.4 if name in RAMPED else 1) * value for name, value in hand.items())
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    tensors = [getattr(e, name) for name in FEATURES] + list(e.logits.values())
    wanted = torch.autograd.grad(expected, tensors, allow_unused=True)
    for got, want in zip(torch.autograd.grad(total, tensors, allow_unused=True), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_options_reach_their_term() -> None:
    options = {"okl": {"reduction": "mean"}, "tri": {"margin": 5.0}, "skd": {"form": "outside", "gamma": 0.4}}
    plain = Objective(ALL_ON)(embeddings(), LABELS, 1.0).values
    tuned = Objective(ALL_ON, options=options)(embeddings(), LABELS, 1.0).values
    assert {name for name in BDLF_TERMS if plain[name] != tuned[name]} == set(options)
    assert tuned["okl"].item() == pytest.approx(plain["okl"].item() / 2)


@pytest.mark.parametrize(
    ("ramp", "progress", "factor"),
    [(0.3, 0.0, 0.0), (0.3, 0.1, 1 / 3), (0.3, 0.3, 1.0), (0.3, 1.0, 1.0), (0.0, 0.0, 1.0), (1.0, 0.25, 0.25)],
)
@pytest.mark.parametrize("name", BDLF_TERMS)
def test_the_ramp_scales_distillation_terms_only(name: str, ramp: float, progress: float, factor: float) -> None:
    losses = Objective({name: 2.0}, ramp=ramp)(embeddings(), LABELS, progress)
    expected = 2 * losses.values[name] * (factor if name in RAMPED else 1)
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", BDLF_TERMS)
def test_a_term_needs_what_it_declares_and_nothing_else(name: str) -> None:
    objective = Objective({**dict.fromkeys(TERMS, 0.0), name: 1.0})
    full = embeddings()
    assert objective.terms == (name,)
    kept = {
        field.name: getattr(full, field.name) for field in dataclasses.fields(full) if field.name in objective.features
    }
    logits = {feature: full.logits[feature] for feature in objective.logits}
    # The two fields that are never None in Embeddings are made useless instead.
    unusable = dict.fromkeys(("comprehensive_pooled", "comprehensive"), torch.full((2 * PAIRS, 1), torch.nan))
    alone = Embeddings(**{**unusable, **kept, "logits": logits})
    total, values = objective(alone, LABELS, 1.0)
    assert list(values) == [name]
    assert total.item() == pytest.approx(by_hand(full)[name].item())
    for feature in objective.logits:
        fewer = {other: scores for other, scores in logits.items() if other != feature}
        with pytest.raises(InputError, match=f"logits '{feature}'.*needs it"):
            objective(dataclasses.replace(alone, logits=fewer), LABELS, 1.0)
    for feature in objective.features - {"comprehensive_pooled"}:
        with pytest.raises(InputError, match=f"feature '{feature}'.*needs it"):
            objective(dataclasses.replace(alone, **{feature: None}), LABELS, 1.0)


def test_what_is_needed_is_the_union_over_the_terms_that_are_on() -> None:
    objective = Objective({"skd": 1.0, "dkl": 0.5, "id": 1.0, "orth": 0.0}, options={"tri": {"margin": 0.5}})
    assert objective.terms == ("id", "dkl", "skd")
    assert objective.features == {"base", "detail"}
    assert objective.logits == {"comprehensive", "detail", "detail_projected"}


def test_what_the_identity_of_a_run_counts_of_a_term_is_what_the_term_reads() -> None:
    projected = {"detail_projected", "base", "fused", "projection"}
    for name, term in TERMS.items():
        reads = {*term.features, *term.logits}
        assert needs_detail([name]) == ("detail" in reads), name
        assert needs_projection([name]) == (not projected.isdisjoint(reads)), name
        assert needs_fusion([name]) == ("fused" in reads), name
        assert (name in RAMPED_TERMS) == term.ramped, name
        assert set(TERM_OPTIONS[name]) == set(term.options), name
    assert set(TERM_OPTIONS) == set(TERMS)


def test_every_term_states_its_equation_meaning_and_options() -> None:
    assert {name: term.equation for name, term in TERMS.items()} == {
        "id": "22", "tri": "22", "okl": "21", "id_detail": "6", "odkl": "7", "id_base": "20", "bkl": "18",
        "id_fused": "19", "fbkl": "17", "fkl": "11, 12", "dkl": "13", "dcorr": "14", "orth": "10, 20", "skd": "2",
        "wrt": "AGW", "sqd": "CAJ", "tri_dual": "LUPI", "colour_free": "LUPI", "cpm": "DEEN", "ort": "DEEN",
        "id_parts": "MMN", "tri_middle": "MMN", "dcl": "MMN", "id_shape": "SGIEL", "id_erased": "SGIEL",
        "kl_erased": "SGIEL", "related": "SGIEL", "ortho": "SGIEL",
    }  # fmt: skip
    assert len({term.meaning for term in TERMS.values()}) == len(TERMS)
    assert {name: term.options for name, term in TERMS.items() if term.options} == {
        "tri": {"margin": 0.3},
        "okl": {"reduction": "sum"},
        "bkl": {"reduction": "sum"},
        "fbkl": {"reduction": "sum"},
        "fkl": {"form": "normalized", "detach": True},
        "dcorr": {"gamma": 1.01, "clamp": False, "detach": True},
        "skd": {"form": "stable", "delta": 0.01, "gamma": 0.1},
        "wrt": {"form": "softmax"},
        "sqd": {"form": "softmax", "cut": 88.0},
        "tri_dual": {"margin": 0.3},
        "colour_free": {"factor": 10.0},
        "cpm": {"margin": 0.2, "form": "released"},
        "tri_middle": {"margin": 0.3},
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": {"idd": 1.0}}, "unknown loss term: 'idd'; known: id, tri, okl,.* skd"),
        ({"weights": {"id": 1.0}, "options": {"app": {}}}, "unknown loss term: 'app'; known: id, tri"),
        (
            {"weights": {"id": 1.0}, "options": {"tri": {"margins": 1}}},
            "option of loss term 'tri': 'margins'.*: margin$",
        ),
        ({"weights": {"id": 1.0}, "options": {"id": {"labels": 1}}}, "option of loss term 'id': 'labels'; known: none"),
        ({"weights": {"id": 1.0, "skd": -0.5}}, "weight of loss term 'skd' is -0.5"),
        ({"weights": {"id": float("nan")}}, "weight of loss term 'id' is nan"),
        ({"weights": {"id": float("inf")}}, "weight of loss term 'id' is inf"),
        ({"weights": {"id": 0.0}}, "no loss term is on"),
        ({"weights": {}}, "no loss term is on"),
        ({"weights": {"id": 1.0}, "ramp": 1.5}, "loss.ramp is 1.5"),
        ({"weights": {"id": 1.0}, "ramp": float("nan")}, "loss.ramp is nan"),
    ],
)
def test_a_wrong_objective_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Objective(**arguments)


@pytest.mark.parametrize("labels", [9, 0, 5])
def test_labels_that_are_not_whole_blocks_are_refused(labels: int) -> None:
    with pytest.raises(InputError, match=f"{labels} labels for 12 rows in 2 blocks: each block needs its labels"):
        Objective(ALL_ON)(embeddings(), LABELS[:labels], 0.5)


@pytest.mark.parametrize("given", [1, 4])
def test_the_labels_of_any_number_of_views_serve_the_blocks_that_come_out(given: int) -> None:
    e, objective = embeddings(), Objective(ALL_ON)
    labels = LABELS[:PAIRS].repeat(given)
    assert objective(e, labels, 0.5).total.item() == objective(e, LABELS, 0.5).total.item()
    assert correlations(e, labels) == correlations(e, LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fused": torch.ones(2 * PAIRS, IDS)}, "logits 'fused' of shape .12, 4.: 12 labels need 6 rows"),
        ({"base": torch.ones(PAIRS, IDS)}, "logits 'base' of shape .6, 4.: 12 labels need 12 rows"),
        ({"detail": torch.ones(2 * PAIRS, IDS + 1)}, "logits of different widths: .*'detail': 5"),
    ],
)
def test_misshapen_logits_are_refused(changes: dict[str, Tensor], message: str) -> None:
    e = embeddings()
    with pytest.raises(InputError, match=message):
        Objective(ALL_ON)(dataclasses.replace(e, logits={**e.logits, **changes}), LABELS, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detail": torch.ones(2 * PAIRS, WIDTH, 1)}, "feature 'detail' of shape .12, 10, 1."),
        ({"detail": torch.ones(2 * PAIRS, 1)}, "feature of different widths: .*'detail': 1"),
        ({"projection": torch.ones(WIDTH, WIDTH + 1)}, "feature 'projection' of shape .10, 11."),
    ],
)
def test_misshapen_features_are_refused(changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Objective(ALL_ON)(embeddings(**changes), LABELS, 0.5)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_outside_the_run_is_refused(progress: float) -> None:
    with pytest.raises(InputError, match="progress is"):
        Objective(ALL_ON)(embeddings(), LABELS, progress)


def test_correlations_see_through_a_constant_offset_between_the_modalities() -> None:
    e = embeddings()
    offset = 5 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    detail = torch.cat([e.detail[:PAIRS] + offset, e.detail[PAIRS:] - offset]).detach()
    watched = correlations(dataclasses.replace(e, detail=detail), LABELS)
    halves = detail[:PAIRS], detail[PAIRS:]
    centred = (half - half.mean(dim=0) for half in halves)
    assert watched["corr_base"].item() == pytest.approx(losses.correlation(e.base[:PAIRS], e.base[PAIRS:]).item())
    assert watched["corr_detail"].item() == pytest.approx(losses.correlation(*halves).item())
    assert watched["corr_detail_centred"].item() == pytest.approx(losses.correlation(*centred).item())
    assert watched["corr_detail"] < -0.5 < 0.2 < watched["corr_detail_centred"]
    assert not any(value.requires_grad for value in watched.values())


def test_attention_on_the_own_identity_equals_the_loop() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 3]).repeat(2)
    e = embeddings()
    mass = 0.0
    for row, weights in enumerate(e.attention.tolist()):
        columns = labels[PAIRS:] if row < PAIRS else labels[:PAIRS]
        mass += sum(weight for weight, label in zip(weights, columns, strict=True) if label == labels[row])
    assert correlations(e, labels)["attention_own"].item() == pytest.approx(mass / (2 * PAIRS))
    half = correlations(dataclasses.replace(e, attention=e.attention.bfloat16()), labels)["attention_own"]
    assert half.dtype == torch.float32


def test_correlations_of_half_features_are_computed_in_float32() -> None:
    half = embeddings().detail.bfloat16()
    got, wanted = (correlations(embeddings(detail=detail), LABELS) for detail in (half, half.float()))
    for name in ("corr_detail", "corr_detail_centred"):
        assert got[name].dtype == torch.float32
        assert got[name] == wanted[name]


def test_correlations_are_those_that_can_be_had() -> None:
    nothing = {"base": None, "detail": None, "attention": None}
    assert correlations(embeddings(**nothing), LABELS) == {}
    assert list(correlations(embeddings(base=None, attention=None), LABELS)) == ["corr_detail", "corr_detail_centred"]
    assert list(correlations(embeddings(detail=None), LABELS)) == ["corr_base", "attention_own"]


def test_what_is_watched_is_what_the_record_has_columns_for() -> None:
    assert tuple(correlations(embeddings(), LABELS)) == WATCHED


def test_terms_of_other_methods_get_their_blocks() -> None:
    """In a batch of three blocks, in the order of LUPI: visible, infrared, intermediate."""
    n, blocks = 6, ("vis", "ir", "intermediate")
    pooled = torch.randn(3 * n, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels = LABELS[:n].repeat(3)
    e = Embeddings(pooled, torch.full((1, 1), torch.nan), blocks=blocks)
    v, i, z = pooled.split(n)
    hand = {
        "wrt": losses.weighted_triplet(pooled, labels),
        "sqd": losses.squared_difference(pooled, labels),
        "tri_dual": losses.dual_triplet(v, i, z, LABELS[:n]),
        "colour_free": losses.colour_free(v, z),
    }
    found = Objective(dict.fromkeys(hand, 1.0))(e, labels, 1.0)
    assert {name: value.item() for name, value in found.values.items()} == {k: v.item() for k, v in hand.items()}
    assert found.total.item() == pytest.approx(sum(value.item() for value in hand.values()))


def test_terms_of_deen_and_mmn_get_their_blocks_in_order() -> None:
    n = 6
    pooled = torch.randn(6 * n, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    parts = torch.randn(4 * n, 3, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scores = torch.randn(4 * n, 3, IDS, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    own = LABELS[:n]
    v, i, v1, i1, v2, i2 = pooled.split(n)
    deen = Embeddings(pooled, pooled, blocks=("vis", "ir", "vis_1", "ir_1", "vis_2", "ir_2"))
    found = Objective({"cpm": 1.0, "ort": 1.0})(deen, own.repeat(2), 1.0).values
    assert found["cpm"].item() == losses.centre_pair_mining(v, i, v1, i1, v2, i2, own).item()
    assert found["ort"].item() == losses.branch_orthogonality(v1, i1, v2, i2).item()
    mmn = Embeddings(
        parts.flatten(1),
        parts.flatten(1),
        parts=parts,
        parts_mapped=parts,
        logits={"parts": scores},
        blocks=("vis", "vis_middle", "ir", "ir_middle"),
    )
    found = Objective(dict.fromkeys(("id_parts", "tri_middle", "dcl"), 1.0))(mmn, own.repeat(2), 1.0).values
    v, vm, i, im = parts.split(n)
    assert found["tri_middle"].item() == losses.middle_triplet(v, vm, i, im, own).item()
    assert found["dcl"].item() == losses.consistency(vm, im).item()
    each = [losses.identity(scores[:, k], own.repeat(4)).item() for k in range(3)]
    assert found["id_parts"].item() == pytest.approx(sum(each) / 3, rel=1e-12)


SGIEL = ("id_shape", "id_erased", "kl_erased", "related", "ortho")


def shapes(seed: int, pooled: Tensor | None = None) -> Embeddings:
    """What SGIEL's network provides; with `pooled`, its own features are functions of it."""
    random = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    z = drawn(2 * PAIRS, WIDTH) if pooled is None else pooled @ drawn(WIDTH, WIDTH)
    logits = {name: drawn(2 * PAIRS, IDS) for name in ("comprehensive", "shape")}
    logits |= {name: z.sin() @ drawn(WIDTH, IDS) for name in ("erased", "related")}
    return Embeddings(
        z if pooled is None else pooled,
        z,
        shape=drawn(2 * PAIRS, 3),
        related=z @ drawn(WIDTH, 3),
        related_projection=drawn(WIDTH, 3),
        logits=logits,
    )


def test_terms_of_sgiel_read_the_teacher_only_where_they_say_so() -> None:
    student, teacher = shapes(1), shapes(2)
    student.teacher = teacher
    objective = Objective(dict.fromkeys(SGIEL, 1.0))
    assert objective.teacher and not Objective(dict.fromkeys(set(SGIEL) - {"related"}, 1.0)).teacher
    assert objective.features == {"shape", "related", "related_projection"}
    assert objective.logits == {"shape", "erased", "related"}
    found = objective(student, LABELS.repeat(2), 1.0).values
    v, i = slice(None, PAIRS), slice(PAIRS, None)
    scores, shape = student.logits, student.shape
    hand = {
        "id_shape": losses.identity(scores["shape"], LABELS),
        "id_erased": losses.identity(scores["erased"], LABELS),
        "kl_erased": losses.erased_distillation(
            shape[v], shape[i], scores["erased"][v], scores["erased"][i], LABELS[:PAIRS]
        ),
        "related": losses.related(student.related, teacher.shape, scores["related"], teacher.logits["shape"]),
        "ortho": losses.column_orthogonality(student.related_projection),
    }
    assert {name: value.item() for name, value in found.items()} == {name: x.item() for name, x in hand.items()}
    student.teacher = None
    with pytest.raises(InputError, match=r"feature 'teacher\.shape': a loss term that is on needs it"):
        objective(student, LABELS, 1.0)


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_balanced_groups_are_weighted_by_the_norms_of_their_gradients(progress: float) -> None:
    pooled = embeddings().comprehensive_pooled.detach().requires_grad_()
    student = shapes(1, pooled)
    student.teacher = shapes(2)
    weights = {"related": 0.5, "id_erased": 2.0, "kl_erased": 1.0, "ortho": 1.0}
    balance = (("related",), ("id_erased", "kl_erased"))
    found = Objective(weights, balance=balance)(student, LABELS, progress)
    plain = Objective(weights)(student, LABELS, progress)
    assert found.values == plain.values
    one = {name: Objective({name: weights[name]}, ramp=0.0)(student, LABELS, 1.0).total for name in weights}
    norms = []
    for group in balance:
        (gradient,) = torch.autograd.grad(sum(one[name] for name in group), pooled, retain_graph=True)
        norms.append(sum(math.sqrt(sum(x * x for x in row)) for row in gradient.tolist()) / len(gradient))
    ramp = min(progress / 0.3, 1)
    first, second = (2 * norm / sum(norms) for norm in norms)
    expected = first * ramp * one["related"] + second * (one["id_erased"] + ramp * one["kl_erased"]) + one["ortho"]
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-9)
    assert abs(first - 1) > 0.1 and found.total.item() != pytest.approx(plain.total.item(), rel=1e-3)
    # The factors themselves have no gradient.
    (gradient,) = torch.autograd.grad(found.total, pooled, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected, pooled)
    assert torch.allclose(gradient, wanted, rtol=1e-9)


def test_a_group_that_is_off_leaves_the_others_unbalanced() -> None:
    student = shapes(1, embeddings().comprehensive_pooled)
    weights = {"id_erased": 2.0, "kl_erased": 1.0}
    balanced = Objective(weights, balance=(("related",), ("id_erased", "kl_erased")))(student, LABELS, 1.0)
    assert balanced.total.item() == Objective(weights)(student, LABELS, 1.0).total.item()
