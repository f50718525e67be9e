"""A cell of a table is the run that has the hash of its configuration, whoever started it, under whatever name."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pandas as pd
import pytest

from bdlf.reporting.comparison import Queries, adjust, compare
from bdlf.reporting.families import TABLES, VARIANTS
from bdlf.reporting.gather import gather
from bdlf.reporting.intervals import difference_interval
from bdlf.reporting.tables import blocks_of

ROWS = list(VARIANTS.values())


def runs(tmp_path, name="table2") -> list[dict[str, str]]:
    """The `runs` column of every block, by row."""
    return [
        dict(zip(block.table["row"], block.table["runs"], strict=True))
        for block in blocks_of(gather(tmp_path), TABLES[name])
    ]


def test_a_second_family_shares_the_rows_in_which_it_does_not_differ(fabricate, configured, tmp_path):
    """Four of Table 2's rows have no skd: their runs stand in the tables of both weights of skd."""
    for name in ROWS:
        fabricate(configured(name), 0.4)
        fabricate(configured(name, loss__skd__weight=0.5), 0.6)
    assert runs(tmp_path) == [dict.fromkeys(ROWS, "1 of 1")] * 2
    first, second = blocks_of(gather(tmp_path), TABLES["table2"])
    assert "loss.skd.weight=1 (not 0.5)" in " ".join(second.notes), "0.5 comes first by its path"
    assert "differ from" not in " ".join(first.notes)
    assert second.table["mAP_difference"].notna().sum() == 6, "the reference row is shared too"
    assert second.table["mAP"][1] == first.table["mAP"][1] and second.table["mAP"][3] != first.table["mAP"][3]


@pytest.mark.parametrize("first", ["by weight", "by name"])
def test_a_term_of_weight_0_is_off_whichever_run_came_first(fabricate, configured, tmp_path, first):
    by_weight = configured("full", loss__skd__weight=0.0, loss__orth__weight=0.0, label="odd")
    names = [configured(name) for name in ROWS if name != "dfe_app"]
    for config in [by_weight, *names] if first == "by weight" else [*names, by_weight]:
        fabricate(config)
    assert runs(tmp_path) == [dict.fromkeys(ROWS, "1 of 1")], "no false `full`, no empty dfe_app"


def test_seven_rows_stay_seven_rows_in_any_order_under_any_label(fabricate, configured, tmp_path):
    random = np.random.default_rng(0)
    for order in range(3):
        place = tmp_path / "outputs"
        shutil.rmtree(place, ignore_errors=True)
        for name in random.permutation(ROWS):
            unused = {"dfe__blocks": int(random.integers(1, 9))} if not configured(name).dfe.enabled else {}
            fabricate(configured(str(name), label=f"x{random.integers(99)}", **unused))
        assert runs(tmp_path) == [dict.fromkeys(ROWS, "1 of 1")], order


def test_a_run_without_skd_is_not_the_whole_method(fabricate, configured, tmp_path):
    for weight in (0.0, 1.0):
        fabricate(configured("full", loss__skd__weight=weight), 0.2 + weight / 2)
    (table1,) = runs(tmp_path, "table1")
    assert table1 == {"this code": "1 of 1"}
    frame = gather(tmp_path).frame
    assert sorted(frame["variant"]) == ["dfe_app_orth", "full"]


def test_a_run_stands_in_several_tables(fabricate, configured, tmp_path):
    fabricate(configured("full"))
    for stage, blocks in itertools.product((1, 3), (2, 6)):
        fabricate(configured("full", dfe__stage=stage, dfe__blocks=blocks))
    assert runs(tmp_path, "table3")[0]["stage1"] == runs(tmp_path, "table3")[0]["stage3"] == "1 of 1"
    assert runs(tmp_path, "figure4")[0]["blocks2"] == runs(tmp_path, "figure4")[0]["blocks6"] == "1 of 1"
    assert [block.title.count("blocks 2") for block in blocks_of(gather(tmp_path), TABLES["table3"])] == [0, 1]


def test_a_cell_that_mixes_code_says_so(changed, table2, tmp_path):
    changed(table2["dfe", 0], commit="a" * 40, versions={"torch": "2.11.0", "numpy": "2.4.6"})
    changed(table2["full", 1], dirty=True)
    (block,) = blocks_of(gather(tmp_path), TABLES["table2"])
    notes = [note for note in block.notes if "code" in note]
    assert notes == [
        "The runs of dfe come from different code: commits aaaaaaaa (1), cccccccc (1); versions torch 2.11.0, numpy "
        "2.4.6 (1), torch 2.14.1, numpy 2.4.6 (1).",
        "The runs of full come from different code: uncommitted changes False (1), True (1).",
        "1 of 14 runs were made with uncommitted changes to the code.",
    ]
    for folder in (table2["dfe", 0], table2["dfe", 1]):
        changed(folder, commit="a" * 40, versions={})
    changed(table2["full", 1], dirty=False)
    (block,) = blocks_of(gather(tmp_path), TABLES["table2"])
    assert [note for note in block.notes if "commit" in note] == [
        "The rows come from different commits: cccccccc, aaaaaaaa."
    ]


def test_rows_that_were_added_later_have_a_commit_of_their_own(changed, fabricate, configured, tmp_path):
    changed(
        fabricate(configured(), rows=({}, {"flip": False})),
        additions=[{"rows": [1], "commit": "b" * 40, "dirty": True, "versions": {"torch": "3.0"}, "device": "cpu"}],
    )
    frame = gather(tmp_path).frame.set_index("flip")
    assert frame["commit"].to_dict() == {True: "c" * 40, False: "b" * 40}
    assert frame["versions"][False] == "torch 3.0" and frame["dirty"].tolist() == [False, True]


def test_other_images_are_named_in_one_line(changed, table2, tmp_path):
    changed(table2["full", 1], fingerprint="a" * 64)
    blocks = list(blocks_of(gather(tmp_path), TABLES["table2"]))
    (problem,) = [line for block in blocks for line in block.problems]
    assert "other images" in problem and "aaaaaaaa" in problem and "\n" not in problem


def test_a_run_without_the_identities_of_its_queries_costs_its_difference(table2, tmp_path):
    file = table2["full", 0] / "per_query.npz"
    with np.load(file) as arrays:
        kept = {name: array for name, array in arrays.items() if "pids" not in name}
    np.savez(file, **kept)
    (block,) = blocks_of(gather(tmp_path), TABLES["table2"])
    (problem,) = block.problems
    assert str(file) in problem and "identities of its queries" in problem and "rerun=true" in problem
    row = block.table.set_index("row").loc["full"]
    assert row["pairs"] == 1 and row["runs"] == "2 of 2"
    alone = "A single pair of runs stands behind the interval of full: the noise of training is not in it."
    assert alone in block.notes


def queries(random, pids, shift=0.0) -> Queries:
    values = {figure: random.normal(50 + shift, 20, len(pids)) for figure in ("rank1", "mAP")}
    values["mAP"][0] = np.nan
    return Queries(values, pids)


def test_splits_have_identities_of_their_own_and_foreign_queries_are_no_partners():
    random = np.random.default_rng(1)
    pids = {1: np.repeat(np.arange(8), 3), 2: np.repeat(np.arange(4, 13), 2)}
    own = {(seed, split): queries(random, pids[split], 9.0) for seed in (0, 1) for split in (1, 2)}
    other = {key: queries(random, pids[key[1]]) for key in own}
    line, found = compare(own, other)
    differences = np.full((4, 24 + 18), np.nan)
    for row, (split, seed) in enumerate(itertools.product((1, 2), (0, 1))):
        part = slice(0, 24) if split == 1 else slice(24, 42)
        differences[row, part] = own[seed, split].values["mAP"] - other[seed, split].values["mAP"]
    expected = difference_interval(differences, np.concatenate([pids[1], 100 + pids[2]]))
    assert (line["mAP_difference"], line["mAP_low"], line["mAP_high"]) == pytest.approx(tuple(expected))
    assert line["pairs"] == found["mAP"].runs == 4
    other[0, 1] = Queries(other[0, 1].values, pids[1][::-1].copy())
    other[1, 1] = None
    assert compare(own, other)[0]["pairs"] == 2
    assert compare({(0, 0): own[0, 1]}, {(1, 0): own[0, 1]}) == ({"pairs": 0}, {})


def test_p_values_are_adjusted_over_all_differences_of_a_table():
    lines = [{"rank1_p": 0.01, "mAP_p": 0.02}, {}, {"rank1_p": 0.04, "mAP_p": 0.5}]
    adjust(lines)
    assert lines == [
        {"rank1_p": pytest.approx(0.04), "mAP_p": pytest.approx(0.06)},
        {},
        {"rank1_p": pytest.approx(0.08), "mAP_p": pytest.approx(0.5)},
    ]


def test_a_reference_row_without_runs_is_one_note_and_the_rest_is_shown(table2, tmp_path):
    for seed in (0, 1):
        shutil.rmtree(table2["baseline", seed])
    (block,) = blocks_of(gather(tmp_path), TABLES["table2"])
    assert "The row baseline has no run, so no difference is formed." in block.notes
    assert block.table.set_index("row")["runs"]["full"] == "2 of 2" and "mAP_difference" not in block.table


def test_one_run_alone_is_shown_without_spread_or_difference(fabricate, configured, tmp_path):
    fabricate(configured())
    (block,) = blocks_of(gather(tmp_path), TABLES["table2"])
    row = block.table.set_index("row").loc["full"]
    assert row["runs"] == "1 of 1" and pd.isna(row["mAP_std"]) and not block.problems
