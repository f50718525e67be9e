"""Which runs belong to which cell of a table, which runs are missing, and what stands beside a cell."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bdlf.reporting.families import TABLES, VARIANTS
from bdlf.reporting.figure import figure4
from bdlf.reporting.gather import gather
from bdlf.reporting.intervals import query_values
from bdlf.reporting.render import rendered
from bdlf.reporting.tables import blocks_of

SYSU = {"dataset": "sysu", "mode": "all", "shots": 1, "gallery": "agw"}


def only(gathered, name="table2"):
    (block,) = blocks_of(gathered, TABLES[name])
    return block


def test_table2_has_the_papers_rows_and_numbers_beside_ours(table2, tmp_path):
    table = only(gather([tmp_path])).table
    assert table["row"].tolist() == list(VARIANTS.values())
    assert table["paper_rank1"].tolist() == [72.7, 73.7, 75.3, 73.7, 74.0, 75.5, 76.8]
    assert table["paper_mAP"].tolist() == [68.1, 69.6, 72.1, 69.0, 70.9, 72.3, 74.6]
    assert set(table["paper_protocol"]) == {"sysu ir_to_vis all 1-shot"}
    assert table["rank1_to_paper"].isna().all(), "synthetic numbers are not compared with SYSU-MM01's"
    for row in table.to_dict("records"):
        ours = [json.loads((table2[row["row"], seed] / "result.json").read_text())["metrics"][0] for seed in (0, 1)]
        values = [one["mean"]["rank1"] for one in ours]
        assert row["rank1"] == pytest.approx(np.mean(values)) and row["rank1_std"] == pytest.approx(
            np.std(values, ddof=1)
        )
        assert row["runs"] == "2 of 2" and row["train_gflops"] == 0.3


def test_a_missing_and_an_unfinished_run_are_seen(table2, tmp_path):
    shutil.rmtree(table2["dfe", 1])
    shutil.rmtree(table2["full", 0])
    shutil.rmtree(table2["full", 1])
    (table2["dfe_app", 0] / "result.json").unlink()
    block = only(gather([tmp_path]))
    runs = dict(zip(block.table["row"], block.table["runs"], strict=True))
    assert runs["dfe"] == "1 of 2" and runs["full"] == "no run"
    assert runs["dfe_app"] == "1 of 2, seed 0 unfinished after 1 epoch"
    assert runs["baseline"] == "2 of 2"
    assert re.search(r"\| ✓ +\| ✓ +\| ✓ +\| ✓ +\| no run +\| +- ", rendered([block], "md"))


def test_runs_that_differ_in_anything_else_stand_apart(table2, fabricate, configured, tmp_path):
    fabricate(configured("full", seed=0, loss__skd__weight=0.5))
    fabricate(configured("full", seed=0, schedule__epochs=5), rows=({}, {"direction": "vis_to_ir"}))
    fabricate(configured("full", seed=3, dfe__blocks=2))
    fabricate(configured("full", seed=4), rows=({}, {"model": "raw"}, {"selection": "best_on_test"}))
    blocks = list(blocks_of(gather([tmp_path]), TABLES["table2"]))
    assert len(blocks) == 5
    assert blocks[0].table.set_index("row")["runs"]["full"] == "3 of 3"
    notes = [" ".join(block.notes) for block in blocks]
    assert "loss.skd.weight=0.5 (not 1)" in " ".join(notes) and "schedule.epochs=5" in " ".join(notes)
    assert not any("blocks 2" in block.title for block in blocks), "alone, and Figure 4's"
    assert [
        ("best_on_test (CHOSEN ON THE TEST SET" in block.title, "CHOSEN ON THE TEST SET" in note)
        for block, note in zip(blocks, notes, strict=True)
    ].count((True, True)) == 1
    assert sum("vis_to_ir" in block.title for block in blocks) == 1


def test_only_real_numbers_of_the_same_protocol_are_compared_with_the_papers(fabricate, configured, tmp_path):
    sysu = {"dataset__name": "sysu"}
    fabricate(
        configured(**sysu),
        rows=(SYSU, {**SYSU, "mode": "indoor"}, {**SYSU, "shots": 10, "gallery": "official"}),
        dataset="sysu",
    )
    for name, compared in {"table1": [True, True, False], "table2": [True, False, False]}.items():
        for block, same in zip(blocks_of(gather([tmp_path]), TABLES[name]), compared, strict=True):
            ours = block.table[block.table["runs"].str.endswith("of 1")].iloc[0]
            paper = {"table1": {"all": 76.8, "indoor": 84.2}, "table2": {"all": 76.8}}[name]
            if same:
                mode = "indoor" if "indoor" in block.title else "all"
                assert ours["rank1_to_paper"] == pytest.approx(ours["rank1"] - paper[mode])
                assert name == "table2" or len(block.table) == 13
            else:
                assert pd.isna(ours["rank1_to_paper"])
    fabricate(configured(seed=1, **sysu), rows=({**SYSU, "dataset": "sysu-synthetic"},))
    synthetic = [block for block in blocks_of(gather([tmp_path]), TABLES["table1"]) if "-synthetic" in block.title]
    assert len(synthetic) == 1 and pd.isna(synthetic[0].table["rank1_to_paper"]).all() and len(synthetic[0].table) == 1


def test_seeds_that_no_row_has_finished_are_missed(changed, fabricate, configured, tmp_path):
    for seed in (0, 1):
        fabricate(configured(seed=seed))
    fabricate(configured(seed=2), finished=False)
    changed(fabricate(configured(seed=3)), schema=99)
    gathered = gather([tmp_path])
    (line,) = only(gathered, "table1").table.to_dict("records")
    assert line["runs"] == "2 of 4, seed 2 unfinished after 1 epoch, seed 3 unreadable"
    assert len(gathered.problems) == 1 and gathered.unfinished["state"].tolist() == ["unfinished", "unreadable"]


def test_other_images_are_never_in_one_cell(changed, table2, tmp_path):
    changed(table2["full", 1], fingerprint="a" * 64)
    blocks = list(blocks_of(gather([tmp_path]), TABLES["table2"]))
    runs = [block.table.set_index("row")["runs"]["full"] for block in blocks]
    assert runs == ["1 of 2", "1 of 1"] and "other images" in blocks[1].title and "other images" not in blocks[0].title
    assert any("aaaaaaaa" in note for note in blocks[1].notes) and pd.isna(blocks[1].table["mAP"].iloc[0])


def test_splits_have_images_of_their_own(changed, fabricate, configured, tmp_path):
    for split in (1, 2):
        for name in ("baseline", "full"):
            run = configured(name, dataset__name="regdb", dataset__split=split)
            changed(fabricate(run, rows=({"mode": None},)), fingerprint=str(split) * 64)
    block = only(gather([tmp_path]))
    assert block.table.set_index("row")["runs"]["full"] == "2 of 2" and block.table["pairs"].iloc[-1] == 2


def test_damaged_figures_of_queries_cost_the_difference_alone(changed, table2, tmp_path):
    file = table2["full", 0] / "per_query.npz"
    file.write_bytes(file.read_bytes()[:300])
    np.savez(table2["dfe", 0] / "per_query.npz", other=np.zeros(3))
    with np.load(table2["dfe_app", 1] / "per_query.npz") as arrays:
        shorter = {name: array[..., :-3] for name, array in arrays.items()}
    np.savez(table2["dfe_app", 1] / "per_query.npz", **shorter)
    (table2["dfe_skd", 0] / "per_query.npz").unlink()
    changed(table2["dfe_app_skd", 0], row__queries=37)
    with np.load(table2["dfe_app_skd", 0] / "per_query.npz") as arrays:  # sound, but of other queries
        shorter = {name: array[..., :-3] for name, array in arrays.items()}
    np.savez(table2["dfe_app_skd", 0] / "per_query.npz", **shorter)
    block = only(gather([tmp_path]))
    table = block.table.set_index("row")
    assert len(block.problems) == 4 and all("\n" not in line and "per_query.npz" in line for line in block.problems)
    pairs = {row: table["pairs"][row] for row in table.index[1:]}
    assert pairs == {**dict.fromkeys(pairs, 1), "app_orth_skd": 2}
    assert set(table["runs"]) == {"2 of 2"} and "difference of full is of 1 of its 2 runs" in " ".join(block.notes)


def test_what_the_paper_does_not_print_is_said(fabricate, configured, tmp_path):
    fabricate(configured())
    notes = {name: " ".join(only(gather([tmp_path]), name).notes) for name in ("table2", "table3", "figure4")}
    assert "no numbers" in notes["figure4"] and "inferred" in notes["table3"] and "of the paper" not in notes["table2"]


def test_splits_of_regdb_are_one_row(fabricate, configured, tmp_path):
    for split in (1, 2, 3):
        fabricate(
            configured(dataset__name="regdb", dataset__split=split),
            0.2 * split,
            dataset="regdb",
            rows=({"mode": None},),
        )
    (block,) = blocks_of(gather([tmp_path]), TABLES["table1"])
    assert block.table.iloc[-1]["runs"] == "3 of 3" and block.table.iloc[-2]["paper_rank1"] == 94.5


def test_stages_and_blocks(fabricate, configured, tmp_path):
    for stage in (1, 3, 4):
        fabricate(configured(dfe__stage=stage))
    for blocks in (2, 8):
        fabricate(configured(dfe__blocks=blocks))
    gathered = gather([tmp_path])
    stages, figure = (next(blocks_of(gathered, TABLES[name])).table.set_index("row") for name in ("table3", "figure4"))
    assert stages["runs"].to_dict() == {"stage1": "1 of 1", "stage2": "no run", "stage3": "1 of 1", "stage4": "1 of 1"}
    assert stages["paper_rank1"].tolist() == [59.9, 71.1, 75.8, 73.4]
    assert [row for row, runs in figure["runs"].items() if runs != "no run"] == ["blocks2", "blocks6", "blocks8"]
    assert len(list(blocks_of(gathered, TABLES["table1"]))) == len(list(blocks_of(gathered, TABLES["table2"]))) == 1, (
        "no ablations"
    )


def test_the_figure_breaks_where_runs_are_missing(fabricate, configured, tmp_path, monkeypatch):
    for blocks in (1, 2, 4):
        for seed in (0, 1):
            fabricate(configured(dfe__blocks=blocks, seed=seed), 0.1 * blocks)
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    block = only(gather([tmp_path]), "figure4")
    figure4(block, "svg")
    (axes,) = drawn[0].axes
    assert "synthetic" in axes.get_title() and axes.get_xlabel() and "percent" in axes.get_ylabel()
    for line, figure in zip(axes.lines, ("rank1", "mAP"), strict=True):
        known = np.isfinite(line.get_ydata().astype(float))
        assert (line.get_xdata() == np.arange(1, 9)).all() and known.tolist() == [True, True, False, True] + [False] * 4
        np.testing.assert_array_equal(line.get_ydata()[known], block.table[figure].dropna())
    assert len(axes.collections) == 2, "a band each"


def test_differences_are_paired_by_seed(table2, tmp_path):
    table = only(gather([tmp_path])).table.set_index("row")
    values = {}
    for name in ("baseline", "full"):
        for seed in (0, 1):
            with np.load(table2[name, seed] / "per_query.npz") as arrays:
                values[name, seed] = query_values(arrays, 0)["mAP"]
    expected = np.mean([(values["full", seed] - values["baseline", seed]).mean() for seed in (0, 1)])
    assert table["mAP_difference"]["full"] == pytest.approx(expected)
    assert table["mAP_low"]["full"] < expected < table["mAP_high"]["full"] and pd.isna(
        table["mAP_difference"]["baseline"]
    )
