"""The paper's numbers, their remarks, and when ours may be compared with them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bdlf.reporting.published import SAME, methods, paper, published, remarks

SYSU = {
    "dataset": "sysu", "splits": None, "mode": "all", "shots": 1, "direction": "ir_to_vis", "gallery": "agw",
    "reading": None, "feature": "after_bn", "flip": True, "selection": "last_epoch", "trained_identities": 395,
}  # fmt: skip
REGDB = SYSU | {
    "dataset": "regdb", "splits": set(range(1, 11)), "mode": None, "shots": None, "gallery": "all",
    "trained_identities": 206,
}  # fmt: skip
LLCM = SYSU | {"dataset": "llcm", "mode": None, "reading": "paper", "trained_identities": 713}


@pytest.mark.parametrize(
    ("card", "changes", "protocol"),
    [
        (SYSU, {}, SAME),
        (SYSU, {"mode": "indoor"}, SAME),
        (SYSU, {"gallery": "official"}, "gallery official, not agw"),
        (SYSU, {"flip": False}, "flip false, not true"),
        (SYSU, {"flip": None}, "flip unknown, not true"),
        (SYSU, {"feature": "before_bn"}, "feature before_bn, not after_bn"),
        (SYSU, {"selection": "best_on_test"}, "selection best_on_test, not last_epoch"),
        (
            SYSU,
            {"selection": "validation", "trained_identities": 296},
            "selection validation, not last_epoch; 296 identities trained on, not 395",
        ),
        (SYSU, {"trained_identities": 296}, "296 identities trained on, not 395"),
        (SYSU, {"trained_identities": 395.0, "flip": np.True_}, SAME),
        (SYSU, {"trained_identities": 296.0}, "296 identities trained on, not 395"),
        (SYSU, {"flip": np.False_}, "flip false, not true"),
        (SYSU, {"trained_identities": float("nan")}, "unknown identities trained on, not 395"),
        (SYSU, {"trained_identities": None}, "unknown identities trained on, not 395"),
        (SYSU, {"gallery": "official", "flip": False}, "gallery official, not agw; flip false, not true"),
        (REGDB, {}, SAME),
        (REGDB, {"direction": "vis_to_ir"}, SAME),
        (REGDB, {"splits": {3}}, "split 3 of 10"),
        (REGDB, {"splits": set()}, "splits unknown of 10"),
        (REGDB, {"splits": [2, 1, 10]}, "splits 1, 2, 10 of 10"),
        (REGDB, {"splits": {1, 4}, "flip": False}, "flip false, not true; splits 1, 4 of 10"),
        (REGDB, {"trained_identities": 395}, "395 identities trained on, not 206"),
        (LLCM, {}, SAME),
        (LLCM, {"direction": "vis_to_ir"}, SAME),
        (LLCM, {"trained_identities": 206}, "206 identities trained on, not 713"),
        # Table 1 prints no number of these
        (SYSU, {"shots": 10, "gallery": "official"}, None),
        (SYSU, {"direction": "vis_to_ir"}, None),
        (SYSU, {"dataset": "sysu-synthetic"}, None),
        (REGDB, {"dataset": "regdb-synthetic"}, None),
        (LLCM, {"reading": "released"}, None),
    ],
)  # fmt: skip
def test_only_a_wholly_equal_protocol_is_the_same(card, changes, protocol):
    found = paper("table1", "BDLF", card | changes)
    assert found["paper_protocol"] == protocol
    assert (found["paper_rank1"] is None) == (found["paper_mAP"] is None) == (protocol is None)


@pytest.mark.parametrize(
    ("changes", "protocol"),
    [
        ({}, SAME),
        ({"flip": False}, "flip false, not true"),
        ({"mode": "indoor"}, "sysu ir_to_vis all 1-shot"),
        ({"shots": 10}, "sysu ir_to_vis all 1-shot"),
        ({"dataset": "sysu-synthetic"}, "sysu ir_to_vis all 1-shot"),
        ({"dataset": "synthetic", "shots": None, "gallery": "all"}, "sysu ir_to_vis all 1-shot"),
    ],
)
def test_table2_gives_its_only_number_and_names_its_protocol(changes, protocol):
    found = paper("table2", "dfe_app", SYSU | changes)
    assert found == {"paper_rank1": 75.3, "paper_mAP": 72.1, "paper_protocol": protocol}


def test_the_number_is_that_of_the_protocol():
    numbers = {
        (76.8, 74.6): SYSU, (84.2, 85.8): SYSU | {"mode": "indoor"},
        (94.5, 89.6): REGDB, (94.4, 90.1): REGDB | {"direction": "vis_to_ir"},
        (58.1, 64.5): LLCM, (67.0, 68.9): LLCM | {"direction": "vis_to_ir"},
    }  # fmt: skip
    for printed, card in numbers.items():
        found = paper("table1", "BDLF", card)
        assert (found["paper_rank1"], found["paper_mAP"]) == printed
    nothing = {"paper_rank1": None, "paper_mAP": None, "paper_protocol": None}
    assert paper("table1", "STAR", LLCM) == nothing, "STAR has no LLCM numbers"
    assert paper("table2", "orth", SYSU) == nothing and paper("figure4", "blocks6", SYSU) == nothing


def test_the_numbers_of_table_1_stay_as_printed():
    sgiel = [paper("table1", "SGIEL", SYSU | {"mode": mode})["paper_rank1"] for mode in ("all", "indoor")]
    assert sgiel == [75.2, 78.4] and paper("table1", "MSCLNet", REGDB)["paper_rank1"] == 83.7
    assert [method["row"] for method in methods()][-1] == "BDLF" and len(methods()) == 12
    table = published().query("table != 'roof'")
    assert table.groupby("table").size().to_dict() == {"figure4": 1, "table1": 56, "table2": 7, "table3": 4}
    assert table[table["table"] != "figure4"][["rank1", "mAP"]].notna().all(axis=None)
    assert not table.duplicated(["table", "row", "dataset", "mode", "direction"]).any()


def test_where_another_source_disagrees_with_table_1_a_remark_says_so():
    keys = ["row", "dataset", "mode", "direction", "reading"]
    table = published()
    others, own = (table[table["table"] == name].fillna({"mode": "", "reading": ""}) for name in ("roof", "table1"))
    both = others.merge(own, on=keys, suffixes=("", "_table1"))
    apart = both[(both["rank1"] - both["rank1_table1"]).abs() > 0.051]
    assert len(both) == 8 and list(apart["row"].unique()) == ["SGIEL", "MSCLNet"]
    assert all(str(line.rank1) in line.remark_table1 for line in apart.itertuples())
    assert not others.duplicated(keys).any()
    assert others["row"].str.startswith("AGW").sum() == 11 and others["mAP"].isna().sum() == 2


def test_remarks_are_those_of_the_protocol_and_come_once():
    everywhere = "The public code of CAJ, MMN, LUPI, DEEN and SGIEL keeps the epoch that is best on the test set."
    own = {"all": "77.12", "indoor": "82.07"}
    for mode, figure in own.items():
        found = remarks("table1", SYSU | {"mode": mode})
        assert [figure in one for one in found].count(True) == 1 and found.count(everywhere) == 1
        assert not any(other in one for one in found for key, other in own.items() if key != mode)
    assert any("above BDLF's 76.8" in one for one in remarks("table1", SYSU))
    assert [
        "83.86" in " ".join(remarks("table1", REGDB | {"direction": way})) for way in ("ir_to_vis", "vis_to_ir")
    ] == [
        True,
        False,
    ]
    assert any("newer numbers" in one for one in remarks("table1", LLCM))
    assert not any("newer numbers" in one for one in remarks("table1", SYSU))
    assert remarks("table1", SYSU | {"dataset": "synthetic"}) == [] and remarks("table2", SYSU) == []
    synthetic = SYSU | {"dataset": "synthetic"}
    assert "inferred" in remarks("table3", synthetic)[0] and "no numbers" in remarks("figure4", synthetic)[0]


def test_every_remark_is_a_whole_sentence():
    texts = published()["remark"].dropna()
    assert len(texts) > 20 and not any(pd.isna(text) or not text.endswith(".") or ";" in text for text in texts)
