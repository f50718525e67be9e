from __future__ import annotations

import pandas as pd
import pytest

from bdlf.runs.metrics_log import MetricsLog


def test_rows_after_the_checkpoint_are_dropped_and_none_is_doubled(tmp_path):
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path, ["epoch", "total", "rank1/x"])
    for epoch in range(4):
        log.append({"epoch": epoch, "total": 0.1 + epoch} | ({"rank1/x": 50.0} if epoch == 2 else {}))
    again = MetricsLog(path, ["epoch", "total", "rank1/x"], keep_epochs=3)
    again.append({"epoch": 3, "total": 9.0})
    table = pd.read_csv(path)
    assert list(table["epoch"]) == [0, 1, 2, 3]
    assert list(table["total"]) == [0.1, 1.1, 2.1, 9.0]
    assert table["rank1/x"].isna().tolist() == [True, True, False, True]


def test_a_new_run_does_not_take_over_old_rows(tmp_path):
    path = tmp_path / "metrics.csv"
    MetricsLog(path, ["epoch"]).append({"epoch": 0})
    MetricsLog(path, ["epoch"]).append({"epoch": 0})
    assert path.read_text() == "epoch\n0\n"


def test_an_unknown_column_is_not_dropped_silently(tmp_path):
    with pytest.raises(KeyError, match="surprise"):
        MetricsLog(tmp_path / "metrics.csv", ["epoch"]).append({"epoch": 0, "surprise": 1})
