from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bdlf.data import check, fingerprint, is_synthetic, listing
from bdlf.data.synthetic import drawing as synthetic_drawing
from bdlf.system.errors import InputError

SMALL = {"train_identities": 3, "test_identities": 2, "images_per_identity": 2}


def table(**columns) -> pd.DataFrame:
    rows = {
        "path": ["a", "b", "c", "d"],
        "pid": [4, 4, 9, 9],
        "camid": [1, 2, 1, 2],
        "modality": ["vis", "ir", "vis", "ir"],
        "split": ["train", "train", "test", "test"],
    }
    return pd.DataFrame({**rows, **columns})


@pytest.mark.parametrize(("name", "folder"), [("sysu", "SYSU-MM01"), ("regdb", "RegDB"), ("llcm", "LLCM")])
def test_an_absent_root_is_one_line_with_both_ways_to_set_it(tmp_path, name, folder):
    (tmp_path / "file").write_text("x")
    for root, tried in ((tmp_path / "no where", "no where'"), (tmp_path / "file", "file'"), (None, "is not set")):
        with pytest.raises(InputError, match=rf"{tried}: set dataset\.root=FOLDER, .* BDLF_DATA .* {folder}$"):
            listing(name, root)


def test_options_of_another_dataset_are_refused_not_dropped(sysu_root):
    with pytest.raises(InputError, match="unknown dataset 'market': choose one of sysu, regdb, llcm, synthetic"):
        listing("market", sysu_root)
    with pytest.raises(InputError, match=r"sysu has one split only, so dataset\.split=2"):
        listing("sysu", sysu_root, split=2)
    with pytest.raises(InputError, match="sysu takes no options of the synthetic dataset: leave seed out"):
        listing("sysu", sysu_root, synthetic={"seed": 1})


def test_the_synthetic_listing_gets_its_options_and_keeps_its_factors():
    small = listing("synthetic", None, synthetic=SMALL)
    assert small.groupby("split")["pid"].nunique().to_dict() == {"test": 2, "train": 3}
    assert len(small.columns) > 5


def test_a_whole_table_passes():
    check(table(), "regdb")
    check(table(split=["train", "train", "val", "val"]), "regdb")
    check(table(modality=["vis", "ir", "ir", "ir"]), "regdb")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (table().drop(columns="camid"), "lacks the column camid"),
        (table(modality=["vis", "nir", "vis", "ir"]), "modality 'nir' in the listing: use one of vis, ir"),
        (table(split=["train", "train", "query", "test"]), "split 'query' in the listing: use one of train, val, test"),
        (table(path=["a", "b", "b", "d"]), "b is listed twice"),
        (table(pid=[4, 4, 4, 9]), "identity 4 is in two splits"),
        (table(split=["test"] * 4), "no training image"),
        (table(modality=["vis", "vis", "vis", "ir"]), r"1 training identities have no infrared image \(4\)"),
        (table(modality=["ir", "ir", "vis", "ir"]), r"1 training identities have no visible image \(4\)"),
        (table(split=["train", "train", "val", "val"], modality=["vis", "ir", "ir", "ir"]), r"no visible image \(9\)"),
    ],
)
def test_a_broken_promise_of_the_table_is_named(wrong, message):
    with pytest.raises(InputError, match=message):
        check(wrong, "regdb")


def test_many_incomplete_identities_are_counted_and_the_first_named():
    wrong = pd.DataFrame({"path": [*"abcdefg"], "pid": range(7), "camid": 1, "modality": "vis", "split": "train"})
    with pytest.raises(InputError, match=r"7 training identities have no infrared image \(0, 1, 2, 3, 4, \.\.\.\)"):
        check(wrong, "regdb")


def test_the_fingerprint_is_of_the_sorted_rows(regdb_root):
    whole = listing("regdb", regdb_root)
    print_ = fingerprint(whole, regdb_root)
    lines = ["path,pid,camid,modality,split,size"]
    for path, *rest in sorted(whole.itertuples(index=False, name=None)):
        lines.append(",".join(map(str, [path, *rest, (regdb_root / path).stat().st_size])))
    assert print_ == hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
    shuffled = whole.sample(frac=1, random_state=0)
    assert fingerprint(shuffled, regdb_root) == print_
    assert fingerprint(whole, regdb_root.rename(regdb_root.with_name("elsewhere"))) == print_


def test_the_fingerprint_notices_sizes_and_every_column_but_not_times(regdb_root):
    whole = listing("regdb", regdb_root)
    prints = {fingerprint(whole, regdb_root), fingerprint(whole.iloc[:-1], regdb_root)}
    for column, value in (("pid", 77), ("camid", 77), ("modality", "ir"), ("split", "val")):
        changed = whole.copy()
        changed.loc[0, column] = value
        prints.add(fingerprint(changed, regdb_root))
    assert len(prints) == 6
    file = regdb_root / whole["path"][0]
    os.utime(file, ns=(1, 1))
    assert fingerprint(whole, regdb_root) in prints
    file.write_bytes(file.read_bytes() + b"x")
    assert fingerprint(whole, regdb_root) not in prints
    file.unlink()
    with pytest.raises(InputError, match=file.name):
        fingerprint(whole, regdb_root)


def test_the_fingerprint_of_synthetic_data_covers_the_factors():
    small = listing("synthetic", None, synthetic=SMALL)
    factor = next(name for name in small.columns[5:] if small[name].dtype == float and small[name][0] != 0)
    nudged, changed = small.copy(), small.copy()
    nudged.loc[0, factor] *= 1 + 1e-12
    changed.loc[0, factor] *= 1.01
    assert fingerprint(small, None) == fingerprint(nudged, None) != fingerprint(changed, None)
    assert fingerprint(listing("synthetic", None, synthetic={**SMALL, "seed": 1}), None) != fingerprint(small, None)


def test_the_fingerprint_of_synthetic_data_covers_the_code_that_draws_it(monkeypatch, regdb_root):
    small, files = listing("synthetic", None, synthetic=SMALL), listing("regdb", regdb_root)
    before = fingerprint(small, None), fingerprint(files, regdb_root)
    synthetic_drawing.drawing_stamp.cache_clear()
    monkeypatch.setitem(synthetic_drawing.BLUR, "vis", 1.1 * synthetic_drawing.BLUR["vis"])
    try:
        after = fingerprint(small, None), fingerprint(files, regdb_root)
    finally:
        synthetic_drawing.drawing_stamp.cache_clear()
    assert after[0] != before[0]
    assert after[1] == before[1]  # of files, the sizes


def test_the_stamp_is_computed_once(monkeypatch):
    small = listing("synthetic", None, synthetic=SMALL)
    first = fingerprint(small, None)
    monkeypatch.setattr(synthetic_drawing, "render", None)
    assert fingerprint(small, None) == first


def test_a_synthetic_tree_is_known_by_its_record(tmp_path: Path):
    assert not is_synthetic(tmp_path)
    (tmp_path / "synthetic.json").write_text("{}")
    assert is_synthetic(str(tmp_path))


def test_listed_numbers_are_integers_of_64_bits(llcm_root):
    assert (listing("llcm", llcm_root)[["pid", "camid"]].dtypes == np.int64).all()
