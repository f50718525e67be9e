"""The identities that are held out of training to choose an epoch."""

from __future__ import annotations

import pandas as pd
import pytest

from bdlf.data import listing
from bdlf.data.holdout import hold_out, train_on_all
from bdlf.system.errors import InputError


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    drawn = {"seed": 0, "train_identities": 11, "test_identities": 3, "images_per_identity": 2}
    return listing("synthetic", None, synthetic=drawn)


def people(table: pd.DataFrame) -> dict[str, set[int]]:
    return {split: set(rows["pid"]) for split, rows in table.groupby("split")}


def test_a_seeded_share_of_the_training_identities_is_held_out_whole(table):
    parts = people(hold_out(table, share=0.25, seed=0))
    assert {split: len(pids) for split, pids in parts.items()} == {"train": 8, "val": 3, "test": 3}
    assert parts["train"] | parts["val"] == people(table)["train"] and parts["test"] == people(table)["test"]
    assert not parts["train"] & parts["val"]
    assert people(hold_out(table, share=0.25, seed=1))["val"] != parts["val"]
    shuffled = hold_out(table.sample(frac=1, random_state=0), share=0.25, seed=0)
    assert people(shuffled)["val"] == parts["val"]
    assert set(table["split"]) == {"train", "test"}, "the listing itself stays as it is"


def test_sysus_own_validation_identities_are_held_out_or_trained_on(table):
    with_val = table.assign(split=table["split"].mask(table["pid"] == table["pid"].min(), "val"))
    assert people(hold_out(with_val, share=0.9, seed=5)) == people(with_val)
    assert people(train_on_all(with_val)) == people(table)


@pytest.mark.parametrize(
    ("share", "message"), [(0.0, "between 0 and 1"), (1.0, "between 0 and 1"), (0.1, "1 of 11"), (0.9, "10 of 11")]
)
def test_a_share_that_leaves_too_few_is_refused(table, share, message):
    with pytest.raises(InputError, match=message):
        hold_out(table, share=share, seed=0)
