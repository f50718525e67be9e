"""Two networks of one seed have the same initial weights in all parts that they share."""

from __future__ import annotations

from functools import cache
from itertools import combinations, count

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.assembly import build_objective
from bdlf.config import Config, config_folder
from bdlf.methods import build_network

VARIANTS = ("baseline", "dfe", "dfe_app", "dfe_skd", "app_orth_skd", "dfe_app_skd", "full")
DRAWN = ("dfe.init=default", "beg.fusion_zero_value=false")
"""With these, every matrix of the whole network starts at random numbers."""
_STATES = count(1)


def composed(*words: str) -> Config:
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return OmegaConf.to_object(compose("config", ["dataset=synthetic", *words]))


def built(config: Config):
    return build_network(config, 7, build_objective(config), weights=config.backbone.weights)


@cache
def initial(*words: str) -> dict[str, torch.Tensor]:
    """Names and values of a network as training starts with it, built under another global generator each time."""
    config = composed(*words)
    torch.manual_seed(next(_STATES))
    return built(config).state_dict()


def parts(names) -> set[str]:
    return {name.partition(".")[0] for name in names}


def assert_alike(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
    shared = first.keys() & second.keys()
    assert [name for name in sorted(shared) if not torch.equal(first[name], second[name])] == []
    return shared


def test_baseline_and_full_share_backbone_neck_classifier_and_projection():
    baseline, full = initial("variant=baseline"), initial("variant=full")
    assert assert_alike(baseline, full) == baseline.keys() != full.keys()
    assert parts(baseline) == {"backbone", "neck", "classifier", "projection", "fusion"}
    assert parts(full) == parts(baseline) | {"detail", "classifier_detail"}


def test_every_two_rows_of_table_2_start_alike():
    rows = {variant: initial(f"variant={variant}", "seed=3") for variant in VARIANTS}
    for one, other in combinations(VARIANTS, 2):
        assert {"backbone", "classifier", "projection"} <= parts(assert_alike(rows[one], rows[other]))
    row_5 = assert_alike(rows["app_orth_skd"], rows["full"])  # pools Z^M without blocks and attention
    assert {"detail.widen.weight", "classifier_detail.weight"} <= row_5


def test_a_chain_starts_as_the_first_blocks_of_a_longer_one():
    one, two, six = (initial("dfe.init=default", f"dfe.blocks={blocks}") for blocks in (1, 2, 6))
    assert assert_alike(one, six) == one.keys()
    assert assert_alike(two, six) == two.keys()
    assert sum(name.startswith("detail.chain.couplings.") for name in one) == 9


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["beg.fusion_zero_value=false"], {"fusion.Pv", "fusion.Qv"}),
        (["dfe.attention_zero_value=true"], {"detail.attention.value.weight"}),
        (["beg.init=kaiming"], {"projection.P"}),
        (["loss/cmf=off"], set()),
        (["loss/detail=off", "loss/app=off"], set()),
        (["dfe.norm=shared"], set()),
    ],
)
def test_an_option_changes_the_start_of_its_own_part_alone(words, changed):
    first, second = initial(), initial(*words)
    assert {name for name in first.keys() & second.keys() if not torch.equal(first[name], second[name])} == changed


def test_a_constructed_projector_starts_where_the_free_one_does():
    found = []
    for form in ("free", "orthogonal"):
        config = composed(f"beg={form}", "seed=4")
        found.append(built(config).projection().detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_another_seed_changes_every_random_value():
    first, second = initial(*DRAWN, "seed=0"), initial(*DRAWN, "seed=1")
    same = {name for name in first if torch.equal(first[name], second[name])}
    norms = ("bn", "downsample.1", "norms", "neck")  # start at constants
    assert all(any(f".{norm}" in f".{name}" for norm in norms) for name in same), sorted(same)
    assert len(first) - len(same) == 12 + 54 + 3 + 1 + 1 + 6 + 2  # backbone, couplings, attention, width map, P, fusion


def test_no_two_parts_start_from_the_same_random_numbers():
    """No two matrices are equal or proportional, as they would be if they shared their random numbers."""
    begun = {name: value.flatten()[:16] for name, value in initial(*DRAWN).items() if value.dim() > 1}
    assert len(begun) == 79
    for one, other in combinations(begun, 2):
        assert not torch.allclose(begun[one] / begun[one][0], begun[other] / begun[other][0], rtol=1e-3), (one, other)


def test_building_leaves_the_global_generator_alone():
    config = composed("beg=orthogonal", *DRAWN)
    objective = build_objective(config)
    before = torch.get_rng_state()
    build_network(config, 7, objective, weights=config.backbone.weights)
    assert torch.equal(before, torch.get_rng_state())
