"""No variant, stage or number of blocks diverges in 200 steps from scratch, at the default rate or at 0.1 at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

VARIANTS = ["baseline", "dfe", "dfe_app", "dfe_skd", "app_orth_skd", "dfe_app_skd", "full"]
SHAPES = [f"variant={name}" for name in VARIANTS] + [f"dfe.stage={stage}" for stage in (1, 2, 4)]
SHAPES += [f"dfe.blocks={blocks}" for blocks in (1, 8)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [[], ["optimizer.lr=0.1", "schedule.warmup_epochs=0"]], ids=["default", "0.1"])
@pytest.mark.parametrize("shape", SHAPES)
def test_200_steps_stay_finite(command, tmp_path, shape, rate, seed):
    length = ["schedule.epochs=2", "schedule.steps_per_epoch=100", "schedule.milestones=[]"]
    length += ["batch.images=2", "image.height=32", "image.width=16"]  # half the default's, for time
    where = [f"output={tmp_path}", f"data.cache_dir={tmp_path}/cache", "tracker=none", "devices=cpu", "threads=1"]
    few = ["dataset.synthetic.test_identities=8"]
    code, _, err = command("train", shape, *rate, f"seed={seed}", *length, *few, *where)
    assert code == 0, err
    (path,) = tmp_path.glob("synthetic/*/*/metrics.csv")
    table = pd.read_csv(path)
    trained = table.filter(regex="^(?!rank1|mAP|mINP)").dropna(axis="columns", how="all")  # what is off has no values
    assert len(table) == 2 and "gradient_norm" in trained and np.isfinite(trained.to_numpy()).all()
