"""Which runs belong to which cell, what is missing, and what stands beside it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from bdlf.errors import InputError
from bdlf.reporting.bootstrap import paired_interval, query_values
from bdlf.reporting.gather import VARIANTS, gather
from bdlf.reporting.render import rendered
from bdlf.reporting.tables import blocks_of, published

SYSU = {"dataset": "sysu", "mode": "all", "shots": 1, "gallery": "agw"}


@pytest.fixture
def table2(fabricate, configured):
    """Seven rows, two seeds; row i finds more the later it stands."""
    return {
        (name, seed): fabricate(configured(name, seed=seed), 0.3 + 0.08 * place)
        for place, name in enumerate(VARIANTS.values())
        for seed in (0, 1)
    }


def only(gathered, name="table2"):
    (block,) = blocks_of(gathered, name)
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
    assert runs["dfe"] == "1 of 2" and runs["full"] == "no run" and runs["dfe_app"] == "1 of 2, 1 unfinished"
    assert runs["baseline"] == "2 of 2"
    assert "| full | no run | - |" in rendered([block], "md")


def test_runs_that_differ_in_anything_else_stand_apart(table2, fabricate, configured, tmp_path):
    fabricate(configured("full", seed=0, loss__skd__weight=0.5))
    fabricate(configured("full", seed=0, schedule__epochs=5), rows=({}, {"direction": "vis_to_ir"}))
    fabricate(configured("full", seed=3, dfe__blocks=2))
    fabricate(configured("full", seed=4), rows=({}, {"model": "raw"}, {"selection": "best_on_test"}))
    blocks = list(blocks_of(gather([tmp_path]), "table2"))
    assert len(blocks) == 6
    assert blocks[0].table.set_index("row")["runs"]["full"] == "3 of 3"
    notes = [" ".join(block.notes) for block in blocks]
    assert "loss.skd.weight=0.5 (not 1.0)" in " ".join(notes) and "schedule.epochs=5" in " ".join(notes)
    assert sum("blocks 2" in block.title for block in blocks) == 1
    assert [
        ("best_on_test" in block.title, "CHOSEN ON THE TEST SET" in note)
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
        for block, same in zip(blocks_of(gather([tmp_path]), name), compared, strict=True):
            ours = block.table[block.table["runs"].str.endswith("of 1")].iloc[0]
            paper = {"table1": {"all": 76.8, "indoor": 84.2}, "table2": {"all": 76.8}}[name]
            if same:
                mode = "indoor" if "indoor" in block.title else "all"
                assert ours["rank1_to_paper"] == pytest.approx(ours["rank1"] - paper[mode])
                assert name == "table2" or len(block.table) == 13
            else:
                assert pd.isna(ours["rank1_to_paper"])
    fabricate(configured(seed=1, **sysu), rows=({**SYSU, "dataset": "sysu (synthetic)"},))
    synthetic = [block for block in blocks_of(gather([tmp_path]), "table1") if "(synthetic)" in block.title]
    assert len(synthetic) == 1 and pd.isna(synthetic[0].table["rank1_to_paper"]).all() and len(synthetic[0].table) == 1


def test_splits_of_regdb_are_one_row(fabricate, configured, tmp_path):
    for split in (1, 2, 3):
        fabricate(
            configured(dataset__name="regdb", dataset__split=split),
            0.2 * split,
            dataset="regdb",
            rows=({"mode": None},),
        )
    (block,) = blocks_of(gather([tmp_path]), "table1")
    assert block.table.iloc[-1]["runs"] == "3 of 3" and block.table.iloc[-2]["paper_rank1"] == 94.5


def test_stages_and_blocks(fabricate, configured, tmp_path):
    for stage in (1, 3, 4):
        fabricate(configured(dfe__stage=stage))
    for blocks in (2, 8):
        fabricate(configured(dfe__blocks=blocks))
    gathered = gather([tmp_path])
    stages, figure = (next(blocks_of(gathered, name)).table.set_index("row") for name in ("table3", "figure4"))
    assert stages["runs"].to_dict() == {"stage1": "1 of 1", "stage2": "no run", "stage3": "1 of 1", "stage4": "1 of 1"}
    assert stages["paper_rank1"].tolist() == [59.9, 71.1, 75.8, 73.4]
    assert [row for row, runs in figure["runs"].items() if runs != "no run"] == ["blocks2", "blocks6", "blocks8"]


def test_folders_that_cannot_be_read_stop_no_other(table2, fabricate, configured, tmp_path):
    shutil.copytree(table2["dfe", 0], tmp_path / "outputs" / "copied")
    result = table2["full", 0] / "result.json"
    result.write_text(result.read_text()[:-40])
    older = table2["full", 1] / "result.json"
    older.write_text(older.read_text().replace('"schema": 1', '"schema": 99'))
    (table2["dfe_app", 0] / "config.yaml").write_text("label: ${oc.env:HOME}")
    (table2["dfe_app", 1] / "config.yaml").write_text("surprise: 1")
    (table2["dfe_skd", 0] / "config.yaml").write_text(": : :")
    gathered = gather([tmp_path])
    assert len(gathered.problems) == 6 and all("\n" not in line for line in gathered.problems)
    text = "\n".join(gathered.problems)
    for part in (
        "claims run",
        "not a readable JSON",
        "not a result of this version",
        "interpolation",
        "'surprise'",
        "not the configuration",
    ):
        assert part in text
    assert gathered.frame["path"].nunique() == 14 - 5
    for place, message in {"nowhere": "is no folder", "empty": "holds no run folder"}.items():
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=message):
            gather([tmp_path / place])


def test_the_interval_against_a_loop_and_a_known_answer():
    random = np.random.default_rng(0)
    differences = [random.normal(5, 20, 30), random.normal(9, 20, 30), random.normal(1, 20, 25)]
    differences[0][3] = np.nan
    interval = paired_interval(differences, [1, 1, 2], resamples=3000)
    assert interval.mean == pytest.approx(np.mean([np.nanmean(one) for one in differences]))
    means = []
    for _ in range(3000):
        draws = {1: random.integers(30, size=30), 2: random.integers(25, size=25)}
        resampled = [np.nanmean(differences[run][draws[group]]) for run, group in ((0, 1), (1, 1), (2, 2))]
        means.append(np.mean(random.choice(resampled, 3)))
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.6)
    same = paired_interval([np.full(9, 2.0), np.full(9, 2.0)], [0, 0])
    assert same == pytest.approx((2, 2, 2))
    assert paired_interval(differences, [1, 1, 2]) == paired_interval(differences, [1, 1, 2]), "seeded"


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


def test_queries_without_a_match_have_no_value():
    arrays = {"0.first_match": np.array([[1, 0, 2], [3, 0, 1]]), "0.ap": np.array([[1, np.nan, 0.5], [0.5, np.nan, 1]])}
    values = query_values(arrays, 0)
    np.testing.assert_array_equal(values["rank1"], [50, np.nan, 50])
    np.testing.assert_array_equal(values["mAP"], [75, np.nan, 75])


def test_published_numbers_are_all_there():
    table = published()
    assert table.groupby("table").size().to_dict() == {"table1": 12 * 4 + 4 * 2, "table2": 7, "table3": 4}
    assert table.query("table == 'table1'")["row"].nunique() == 12
    assert table[["rank1", "mAP", "source"]].notna().all(axis=None) and table["rank1"].between(48, 95).all()
    assert set(table.query("dataset == 'llcm'")["reading"]) == {"paper"}
