"""Tables by any key of the configuration."""

from __future__ import annotations

import pytest

from bdlf.reporting.by import by_table
from bdlf.reporting.gather import gather
from bdlf.reporting.tables import blocks_of
from bdlf.system.errors import InputError


def tables(tmp_path, *keys: str, reference: str | None = None, least: int = 1) -> list[dict[str, str]]:
    blocks = blocks_of(gather(tmp_path), by_table(keys, reference), least=least)
    return [dict(zip(block.table["row"], block.table["runs"], strict=True)) for block in blocks]


def test_two_keys_of_a_sweep(fabricate, configured, tmp_path):
    for lr in (0.1, 0.02):
        for weight in (0.0, 0.5, 1.0):
            for seed in (0, 1):
                fabricate(configured(optimizer__lr=lr, loss__skd__weight=weight, seed=seed), 0.2 + weight / 2)
    (block,) = blocks_of(gather(tmp_path), by_table(["optimizer.lr", "loss.skd.weight"], "0.10,1.0"))
    assert block.keys == ("optimizer.lr", "loss.skd.weight")
    assert block.table[list(block.keys)].apply(tuple, axis=1).tolist() == [
        *(("0.02", "-"), ("0.02", "0.5"), ("0.02", "1"), ("0.1", "-"), ("0.1", "0.5"), ("0.1", "1")),
    ]
    assert set(block.table["runs"]) == {"2 of 2"} and block.reference == "0.1,1"
    assert block.table["mAP_difference"].notna().tolist() == [True] * 5 + [False]
    (other,) = blocks_of(gather(tmp_path), by_table(["loss.skd.weight", "optimizer.lr"], None))
    assert other.reference == other.table["row"][0] == "unused,0.02", "the first row, where none is named"


def test_what_else_differs_is_in_another_block_that_says_so(fabricate, configured, tmp_path):
    for lr in (0.1, 0.02):
        fabricate(configured(optimizer__lr=lr))
        fabricate(configured(optimizer__lr=lr, optimizer__momentum=0.5))
    fabricate(configured(optimizer__lr=0.1, batch__images=2))
    first, second = blocks_of(gather(tmp_path), by_table(["optimizer.lr"], None), least=2)
    different = {note for block in (first, second) for note in block.notes if "differ from" in note}
    assert len(different) == 1 and "optimizer.momentum" in different.pop()
    assert tables(tmp_path, "optimizer.lr", "batch.images", least=2)[0] == {
        "0.02,4": "1 of 1",
        "0.1,2": "1 of 1",
        "0.1,4": "1 of 1",
    }


def test_what_no_run_uses_makes_no_difference(fabricate, configured, tmp_path):
    fabricate(configured(optimizer__lr=0.1, augment__crop=False, augment__pad=3))
    fabricate(configured(optimizer__lr=0.2, augment__crop=False, augment__pad=9))
    assert tables(tmp_path, "optimizer.lr") == [{"0.1": "1 of 1", "0.2": "1 of 1"}]


@pytest.mark.parametrize("switched_off", ["by its weight", "by its switch"])
def test_a_run_without_a_term_is_found_however_the_term_was_switched_off(fabricate, configured, tmp_path, switched_off):
    full = configured()
    off = configured(loss__skd__weight=0.0)
    if switched_off == "by its switch":
        off = configured(loss__skd__enabled=False)
    for config in (off, full):
        fabricate(config)
    assert tables(tmp_path, "loss.skd.weight") == [{"unused": "1 of 1", "1": "1 of 1"}]
    assert tables(tmp_path, "loss.skd.enabled") == [{"off": "1 of 1", "on": "1 of 1"}]


def test_variant_stands_for_what_is_on(table2, tmp_path):
    (rows,) = tables(tmp_path, "variant")
    assert set(rows) == {"baseline", "dfe", "dfe_app", "dfe_skd", "app_orth_skd", "dfe_app_skd", "full"}
    (rows,) = tables(tmp_path, "variant", "dfe.stage")
    assert "baseline,unused" in rows and "full,3" in rows


def test_lists_and_nothing_are_values(fabricate, configured, tmp_path):
    for milestones, clip in (([3, 8], 10.0), ([3], None), ([], 0.5)):
        fabricate(configured(schedule__milestones=milestones, optimizer__clip=clip, schedule__warmup_epochs=1))
    (rows,) = tables(tmp_path, "schedule.milestones", "optimizer.clip")
    assert list(rows) == ["[],0.5", "[3],null", "[3,8],10"]


def test_rows_whose_averages_differ_share_a_block(fabricate, configured, tmp_path):
    fabricate(configured(ema__enabled=False), rows=({"model": "raw"},))
    fabricate(configured(ema__decay=0.99), rows=({"model": "ema"}, {"model": "raw"}))
    assert tables(tmp_path, "ema.enabled", "ema.decay") == [{"false,unused": "1 of 1", "true,0.99": "1 of 1"}]


@pytest.mark.parametrize("reference", ["0.1,0", "0.1,-", "0.10,unused", " 0.1 , 0.0"])
def test_a_reference_is_named_by_its_values_or_by_its_row(fabricate, configured, tmp_path, reference):
    for weight in (0.0, 1.0):
        fabricate(configured(loss__skd__weight=weight))
    (block,) = blocks_of(gather(tmp_path), by_table(["optimizer.lr", "loss.skd.weight"], reference))
    assert block.reference == "0.1,unused"


def test_of_the_selection_rules_only_validation_is_a_row(fabricate, configured, tmp_path):
    for rules in ("last_epoch", ["last_epoch", "validation"]):
        fabricate(configured(selection=rules))
    assert tables(tmp_path, "selection") == [{"unused": "1 of 1", "validation": "1 of 1"}]


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        (["optimizer.learning_rate"], "no such key; did you mean 'optimizer."),
        (["optimizer"], "known below optimizer: optimizer.lr, optimizer.backbone_scale"),
        (["evaluation.flip"], "says how a run is scored"),
        (["label"], "does not decide"),
        (["data.cache"], "does not decide"),
        (["seed"], "frame=true"),
        (["optimizer.lr", "optimizer.lr"], "twice"),
    ],
)
def test_keys_that_make_no_rows_are_refused_in_one_line(keys, part):
    with pytest.raises(InputError, match=r"^by=") as refused:
        by_table(keys, None)
    assert part in str(refused.value) and "\n" not in str(refused.value)


def test_runs_of_a_hand_made_sweep_are_tabulated(tiny_run, tmp_path):
    """Real runs, two of which share one: without skd it does not matter what its weight is."""
    for lr, words in (("0.01", ["loss/skd=off"]), ("0.01", ["loss.skd.weight=0.5"]), ("0.02", ["loss.skd.weight=0"])):
        code, _, err = tiny_run(f"optimizer.lr={lr}", *words, "schedule.epochs=1")
        assert code == 0, err
    code, out, _ = tiny_run("optimizer.lr=0.01", "loss.skd.weight=0", "schedule.epochs=1")
    assert code == 0 and "finished before" in out
    first, second = blocks_of(gather(tmp_path / "out"), by_table(["optimizer.lr", "loss.skd.weight"], None))
    assert "ir_to_vis" in first.title and "vis_to_ir" in second.title
    assert first.table["row"].tolist() == ["0.01,unused", "0.01,0.5", "0.02,unused"]
    assert first.reference == "0.01,unused" and set(first.table["runs"]) == {"1 of 1"}
    assert first.table["mAP_difference"].notna().tolist() == [False, True, True]
    assert first.table["pairs"].tolist()[1:] == [1, 1], "read from the runs' own queries and identities"
