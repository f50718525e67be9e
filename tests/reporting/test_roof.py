"""Table 1 with the methods as they are trained here, and the published numbers beside it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from bdlf.reporting.by import by_table
from bdlf.reporting.composed import composed, method_names, with_method
from bdlf.reporting.families import ROOF, TABLES
from bdlf.reporting.gather import gather
from bdlf.reporting.planning import overrides
from bdlf.reporting.render import FORMATS, rendered
from bdlf.reporting.roof import published_blocks
from bdlf.reporting.tables import blocks_of

SYSU = {"dataset": "sysu", "mode": "all", "shots": 1, "gallery": "agw"}
LLCM = {"dataset": "llcm", "mode": None, "shots": 1, "gallery": "agw", "reading": "paper", "direction": "vis_to_ir"}
SOME = ("bdlf", "agw", "lupi", "deen")


@pytest.fixture
def of_method(configured):
    """`of_method(name, recipe, **changes)`: what `method=` and `recipe=` give on the synthetic set."""

    def make(name: str, recipe: str = "shared", **changes):
        keys = {key.replace(".", "__"): value for key, value in composed("synthetic", name, recipe).items()}
        return configured(**{**keys, **changes})

    return make


@pytest.fixture
def roof(fabricate, of_method):
    """Four methods, two seeds each."""
    for place, name in enumerate(SOME):
        for seed in (0, 1):
            fabricate(of_method(name, seed=seed), 0.3 + 0.15 * place)


def here(tmp_path, **changes) -> list:
    table = dataclasses.replace(TABLES[ROOF], **changes)
    return [block for block in blocks_of(gather(tmp_path), table) if "published:" not in block.title]


def rows_of(block) -> dict[str, str]:
    """The `runs` of the rows that have runs."""
    runs = dict(zip(block.table["row"], block.table["runs"], strict=True))
    return {row: text for row, text in runs.items() if text != "no run"}


def test_every_method_is_a_row_and_is_compared_with_the_papers(roof, tmp_path):
    (block,) = here(tmp_path)
    assert block.table["row"].tolist() == list(method_names()) and method_names()[0] == "bdlf"
    assert {"agw", "caj", "lupi", "deen", "mmn", "sgiel"} < {*method_names()}
    assert rows_of(block) == dict.fromkeys(SOME, "2 of 2")
    table = block.table.set_index("row")
    assert block.reference == "bdlf" and table["mAP_difference"].notna().sum() == table["mAP_p"].notna().sum() == 3
    assert table.loc["deen", "mAP_low"] < table.loc["deen", "mAP_difference"] < table.loc["deen", "mAP_high"]
    assert table.loc["lupi", ["train_gflops", "inference_gflops", "images_per_second"]].tolist() == [0.3, 0.1, 200.0]
    assert any("tuned for BDLF" in note for note in block.notes)
    assert "Except: deen and lupi with optimizer.backbone_scale=0.1 in place of 1.0." in block.notes


def test_without_the_papers_method_the_first_one_is_the_reference(fabricate, of_method, tmp_path):
    for name in ("lupi", "agw"):
        fabricate(of_method(name))
    assert here(tmp_path)[0].reference == "agw"
    assert here(tmp_path, reference="lupi")[0].reference == "lupi"


def test_a_run_with_an_option_of_its_own_is_no_row(fabricate, of_method, tmp_path):
    fabricate(of_method("agw"))
    for changes in ({"method__two_stream__nonlocal_width": "half"}, {"loss__wrt__weight": 0.5}):
        fabricate(of_method("agw", seed=1, **changes))
    fabricate(of_method("bdlf", dfe__blocks=2))
    fabricate(of_method("bdlf", seed=3, loss__skd__weight=0.5))
    (block,) = here(tmp_path)
    assert rows_of(block) == {"agw": "1 of 1"}


def test_runs_of_another_recipe_are_compared_among_themselves(roof, fabricate, of_method, tmp_path):
    for name in ("lupi", "bdlf"):
        fabricate(of_method(name, optimizer__lr=0.05))
    first, second = here(tmp_path)
    assert len(rows_of(first)) == 4 and rows_of(second) == {"bdlf": "1 of 1", "lupi": "1 of 1"}
    assert any("differ from those of the first block in optimizer.lr=0.05" in note for note in second.notes)


def test_the_methods_own_recipes_have_blocks_of_their_own(roof, fabricate, of_method, tmp_path):
    for name in ("bdlf", "agw", "lupi", "deen"):
        given = composed("synthetic", name, "published")
        row = {"flip": given["evaluation.flip"], "model": "ema" if given["ema.enabled"] else "raw"}
        for seed in (0, 1):
            fabricate(of_method(name, "published", seed=seed), 0.5, rows=(row,))
    first, *own = here(tmp_path)
    assert rows_of(first) == dict.fromkeys(SOME, "2 of 2") and "one recipe" in first.title
    assert all("each method with its own recipe" in block.title for block in own) and len(own) == 2
    both = {row: runs for block in own for row, runs in rows_of(block).items()}
    assert both == rows_of(first) and sum(len(block.table) for block in own) == 4, "no gap for the other flip's rows"
    assert not any("differ from those of the first block" in note for block in own for note in block.notes)
    (flipped,) = [block for block in own if "flip averaging off" not in block.title]
    assert {"bdlf", "deen"} == {*rows_of(flipped)}, "an averaged and a raw model stand in one block"
    assert any("keep one, else the raw one" in note for note in flipped.notes)


def test_published_numbers_stand_beside_with_their_sources(fabricate, of_method, tmp_path):
    for name in ("bdlf", "agw"):
        fabricate(of_method(name, dataset__name="sysu"), rows=(SYSU,), dataset="sysu")
    blocks = list(blocks_of(gather(tmp_path), TABLES[ROOF]))
    (sysu,) = (block.table for block in blocks if "published:" in block.title)
    rank1 = {(row.method, row.source): row.paper_rank1 for row in sysu.itertuples()}
    assert rank1["SGIEL", "its own paper"] == 77.12 and rank1["SGIEL", "BDLF's Table 1"] == 75.2
    assert rank1["AGW", "README of AGW's code"] == 47.5 and rank1["AGW + erasing", "baseline of MSCLNet"] == 59.8
    assert {"FMCNet", "STAR", "ReViT"} <= {*sysu["method"][~sysu["here"].astype(bool)]} and sysu["here"].any()
    ours = next(block.table.set_index("row") for block in blocks if "here" in block.title and "sysu" in block.title)
    assert ours.loc["agw", "rank1_to_paper"] == pytest.approx(ours.loc["agw", "rank1"] - 47.5)
    assert "rank1" not in sysu and "rank1_to_paper" not in sysu


def test_both_readings_of_llcm_are_published_numbers():
    (block,) = published_blocks([SimpleNamespace(card=card) for card in (LLCM, LLCM | {"reading": "released"})])
    caj = block.table[block.table["method"] == "CAJ"].set_index("reading")["paper_rank1"].to_dict()
    assert caj == {"paper": 56.5, "released": 63.73} and "reading" in block.keys
    assert any("newer numbers" in note for note in block.notes)


def test_drawn_images_are_never_compared_with_published_numbers(roof, tmp_path):
    block, published = blocks_of(gather(tmp_path), TABLES[ROOF])
    assert block.table["rank1_to_paper"].isna().all() and block.table["paper_rank1"].isna().all()
    assert published.title == "Table 1, published: sysu, ir_to_vis all 1-shot"
    assert any("no measure of the runs" in note for note in published.notes)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_both_blocks(roof, tmp_path, form):
    text = rendered(list(blocks_of(gather(tmp_path), TABLES[ROOF])), form)
    for part in ("Table 1, here, one recipe", "Table 1, published", "deen", "MSCLNet", "77.1"):
        assert part in text
    if form == "md":
        assert "| venue " in text and "Published numbers:" in text and max(map(len, text.splitlines())) <= 100


def test_tables_of_the_paper_take_no_run_of_another_method(roof, tmp_path):
    for name in ("table1", "table2", "table3", "figure4"):
        (block,) = blocks_of(gather(tmp_path), TABLES[name])
        ours = [runs for runs in block.table["runs"] if runs != "no run" and "of" in runs]
        assert ours == ["2 of 2"], name


def test_by_the_name_of_the_method_its_own_options_follow(roof, fabricate, of_method, tmp_path):
    for name in ("agw", "lupi"):  # both leave the value that method=lupi and method=agw give, in opposite directions
        given = composed("synthetic", name)["method.two_stream.stem_relu"]
        fabricate(of_method(name, method__two_stream__stem_relu=not given))
    (block,) = blocks_of(gather(tmp_path), by_table(["method.name"], "bdlf"), least=2)
    assert rows_of(block) == dict.fromkeys(sorted(SOME), "2 of 2") and block.reference == "bdlf"
    both = by_table(["method.name", "method.two_stream.stem_relu"], None)
    (block,) = blocks_of(gather(tmp_path), both, least=2)
    assert {row: runs for row, runs in rows_of(block).items() if row.startswith(("agw", "lupi"))} == {
        "agw,false": "1 of 2", "agw,true": "2 of 2", "lupi,false": "2 of 2", "lupi,true": "1 of 2"
    }  # fmt: skip


def test_methods_share_a_block_also_where_not_every_combination_can_be_asked_for(roof, tmp_path, monkeypatch):
    monkeypatch.setattr("bdlf.reporting.by._MOST_QUESTIONS", 0)
    (block,) = blocks_of(gather(tmp_path), by_table(["method.name"], None), least=2)
    assert rows_of(block) == dict.fromkeys(sorted(SOME), "2 of 2")


def test_the_weight_of_another_methods_term_makes_a_table(roof, fabricate, of_method, tmp_path):
    for weight in (0.0, 0.4):
        fabricate(of_method("deen", loss__cpm__weight=weight))
    (block,) = blocks_of(gather(tmp_path), by_table(["loss.cpm.weight"], None), least=2)
    usual = f"{composed('synthetic', 'deen')['loss.cpm.weight']:g}"
    assert rows_of(block) == {"unused": "1 of 2", "0.4": "1 of 2", usual: "2 of 2"}


def test_another_method_takes_what_was_changed_and_leaves_the_rest_behind():
    changed = {**composed("synthetic", "lupi"), "optimizer.lr": 0.5, "seed": 7}
    found = with_method(changed, "agw")
    assert {key for key, value in found.items() if value != composed("synthetic", "agw")[key]} == {
        "optimizer.lr",
        "seed",
    }
    assert with_method(found, "lupi") == changed


def test_the_words_of_a_row_name_its_method_and_recipe():
    values = {**composed("synthetic", "deen", "published"), "loss.cpm.weight": 0.4, "dfe.blocks": 2}
    assert overrides(values) == ["method=deen", "recipe=published", "loss.cpm.weight=0.4"]


def test_a_method_that_is_gone_is_left_out_of_the_table(roof, fabricate, of_method, tmp_path):
    fabricate(of_method("agw", method__name="gone"))
    (block,) = here(tmp_path)
    assert len(rows_of(block)) == 4 and "gone" not in {*block.table["row"]}
