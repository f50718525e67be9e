"""How W&B behaves as a program: without a key or a server, under signals, and on the command lines of our READMEs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from bdlf.runs.folder import RunFolder
from bdlf.runs.tracker import rebuild

pytestmark = pytest.mark.usefixtures("no_wandb")
ROOT = Path(__file__).parents[2]


def of_a_process(tiny, tmp_path, *words: str, **environment: str) -> dict:
    """Arguments of `subprocess.Popen` that start a tiny run of a user who has never used W&B."""
    (tmp_path / "home").mkdir()
    words = (*tiny, f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache", "tracker=wandb", *words)
    return {
        "args": [sys.executable, "-m", "bdlf.train", *words],
        "env": {
            **os.environ,
            "HOME": str(tmp_path / "home"),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **environment,
        },
        "start_new_session": True,
    }


@pytest.mark.slow
def test_a_job_in_a_terminal_never_asks_for_a_key(tiny, offline_runs, read_back, assert_copied, tmp_path):
    terminal, theirs = os.openpty()
    call = of_a_process(tiny, tmp_path, "-m", "seed=0", "schedule.epochs=1", WANDB_MODE="online")
    process = subprocess.Popen(**call, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(terminal, 1 << 16):
                shown += part
                assert b"Enter your choice" not in shown
        assert process.wait(10) == 0, shown.decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        os.close(terminal)
    said = [line for line in shown.decode().splitlines() if "W&B" in line]
    assert len(said) == 1, said
    assert all(word in said[0] for word in ("wandb login", "WANDB_API_KEY", "WANDB_MODE=offline", "tracker=none"))
    (folder,) = offline_runs()
    assert_copied(folder, read_back(folder))


def test_a_server_that_cannot_be_reached_is_one_line_and_the_run_goes_on_offline(
    facts, mirrored, warned, written, tmp_path, monkeypatch
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "0.2")
        run = mirrored(tmp_path)
        assert run["run"].run_id == facts["run_id"] and set(run["history"]) == {0}
        assert len(warned()) == 1 and "WANDB_INIT_TIMEOUT" in warned()[0], warned()
        assert not rebuild(RunFolder(written))  # asked to send, and nothing was sent


@pytest.mark.slow
def test_a_server_that_never_answers_costs_less_than_two_minutes(
    tiny, offline_runs, read_back, assert_copied, tmp_path
):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        server = {"WANDB_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "WANDB_API_KEY": "0123456789" * 4}
        call = of_a_process(tiny, tmp_path, WANDB_MODE="online", **server)
        start = time.monotonic()
        done = subprocess.run(**call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and time.monotonic() - start < 120, done.stderr
    assert (done.stdout + done.stderr).count("W&B is not online") == 1 and "Traceback" not in done.stderr
    (folder,) = offline_runs()
    assert_copied(folder, read_back(folder))


def descendants(parent: int) -> list[int]:
    """The ids of all processes below a process, as /proc shows them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(file.read_text().rpartition(")")[2].split()[1]) == parent:
                found += [int(file.parent.name), *descendants(int(file.parent.name))]
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_sigterm_to_every_process_leaves_no_traceback(tiny, tmp_path):
    """SLURM also signals W&B's process, which has a session of its own and exits immediately."""
    call = of_a_process(tiny, tmp_path, "schedule.epochs=1000", "evaluation.every=1000", WANDB_MODE="offline")
    process = subprocess.Popen(**call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(1200):  # until the second epoch has its row
            rows = [file.read_text().count("\n") for file in tmp_path.glob("out/synthetic/*/seed0/metrics.csv")]
            if rows and rows[0] > 2:
                break
            time.sleep(0.1)
        others = descendants(process.pid)
        assert any("wandb-core" in Path(f"/proc/{other}/cmdline").read_text() for other in others)
        for other in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(other, signal.SIGTERM)
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, err) == (75, "")
    assert list(tmp_path.glob("out/synthetic/*/seed0/checkpoints/last.pt"))


def section(page: str, title: str) -> str:
    return (ROOT / page).read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_command_of_the_readme_finds_all_runs(mirrored, tmp_path):
    text = section("bdlf/runs/README.md", "Weights & Biases")
    (command,) = re.findall(r"^wandb sync outputs.*$", text, re.MULTILINE)
    assert f"{command.replace('sync ', 'sync --dry-run ')} " in text
    for seed in (0, 1):
        mirrored(tmp_path / "outputs" / "synthetic" / "mine-0a1b2c3d" / f"seed{seed}")
    words = command.replace("wandb sync", f"{sys.executable} -m wandb sync --dry-run")
    done = subprocess.run(words, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Would sync 2 run(s)" in done.stdout + done.stderr, done.stderr


def test_the_sweep_of_the_readme_starts_our_command(command, tmp_path):
    text = section("sweeps/README.md", "Sweeps of Weights & Biases")
    (text,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    sweep = yaml.safe_load(text)
    trial = {
        name: {"value": one.get("value", one.get("values", [one.get("max")])[-1])}
        for name, one in sweep["parameters"].items()
    }
    said = {**create_sweep_command_args({"args": trial}), "env": ["/usr/bin/env"], "interpreter": ["python"]}
    said["program"] = [sweep["program"]]
    words: list[str] = []
    for word in create_sweep_command(sweep["command"]):
        words += said[word[2:-1]] if word.startswith("${") else [word]
    assert words[:4] == ["/usr/bin/env", "python", "-m", "bdlf.train"]
    code, out, err = command(
        "train", *words[4:], "dry_run=true", f"output={tmp_path}/out", f"data.cache_dir={tmp_path}"
    )
    assert code == 0 and "full" in out, err
    assert sweep["metric"]["name"].partition("/")[0] == "mAP"
