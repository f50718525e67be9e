"""Every method on every layout: trained, scored, its features written, and shown in W&B's files and in the report."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bdlf.data.synthetic.layouts import LAYOUTS, write_layout
from bdlf.methods import METHODS

SMALL = (
    *("backbone=resnet10", "image.height=64", "image.width=32", "batch.identities=2", "batch.images=2"),
    *("schedule.epochs=1", "schedule.steps_per_epoch=2", "devices=cpu", "threads=1"),
)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("trees")
    for layout in LAYOUTS:
        write_layout(
            layout, folder / layout, identities=8, images=2, height=64, width=32, silhouettes=folder / f"{layout} maps"
        )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_method_is_trained_and_scored_on_a_layout(command, trees, tmp_path, method, layout):
    words = [*SMALL, f"method={method}", f"dataset={layout}", f"dataset.root={trees}/{layout}"]
    words += [f"dataset.silhouettes={trees}/{layout} maps"] if method == "sgiel" else []
    words += [f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache"]
    offline = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    code, _, err = command("train", *words, environment=offline)
    assert code == 0, err
    (folder,) = (tmp_path / "out" / f"{layout}-synthetic").glob("*/seed0")
    assert folder.parent.name.startswith("full-" if method == "bdlf" else f"{method}-")
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 1
    code, _, err = command("evaluate", f"run={folder}", "save_features=true", f"data.cache_dir={tmp_path}/cache")
    assert code == 0, err
    (written,) = folder.rglob("features*.npz")
    features = np.load(written)["features"]
    assert np.isfinite(features).all() and features.shape[1] == {"deen": 6 * 512, "mmn": 4 * 512}.get(method, 512)
    report = [sys.executable, "-m", "bdlf.report", f"{tmp_path}/out", "by=method.name"]
    shown = subprocess.run(report, capture_output=True, text=True, check=False)
    assert shown.returncode == 0 and method in shown.stdout, shown.stderr
