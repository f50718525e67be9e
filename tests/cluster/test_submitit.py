"""Jobs of submitit on this machine, which gets the signal that SLURM would send."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install hydra-submitit-launcher")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def test_a_job_that_submitit_requeues_goes_on_in_the_same_folder(tiny, tmp_path):
    words = [*tiny, f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache", "-m", "schedule.epochs=100"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bdlf.train", *words, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        while not list(tmp_path.glob("out/synthetic/*/seed0/metrics.csv")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        (record,) = tmp_path.glob("out/sweeps/multirun/calls/*/jobs/0.json")
        os.kill(json.loads(record.read_text())["pid"], signal.SIGUSR2)
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0 and "1 finished" in out, err
    (log,) = tmp_path.glob("out/synthetic/*/seed0/train.log")
    lines = [line.split(" ", 3)[3] for line in log.read_text().splitlines()]
    assert lines.count("interrupted by SIGUSR2") == 1
    assert sum(line.startswith("going on at epoch") for line in lines) == 1
    rows = (log.parent / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(100))
