"""What a run in W&B holds: everything that its run folder holds, whether it ended, crashed or was rebuilt."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import wandb

from bdlf.running import job
from bdlf.runs.folder import RunFolder
from bdlf.runs.tracker import rebuild
from bdlf.training import loop

pytestmark = pytest.mark.usefixtures("no_wandb")
SWEEPS = Path(__file__).parents[2] / "sweeps" / "README.md"


def test_jobs_of_a_sweep_are_runs_of_their_own(tiny_run, offline_runs, read_back, values, assert_copied):
    for seed in (0, 1):
        code, out, _ = tiny_run("tracker=wandb", "sweep=mine", "variant=dfe", f"seed={seed}")
        assert code == 0 and "W&B stopped" not in out, out
    ids = set()
    for folder in offline_runs():
        run = read_back(folder)
        assert_copied(folder, run)
        ids.add(run["run"].run_id)
        assert set(run["run"].tags) == {"synthetic", "dfe", "stage3", "blocks1", "mine"}
        config = values(run["run"].config.update)
        assert config["dfe"]["blocks"] == 1 and config["seed"] == int(folder.parents[1].name[-1])
        (picture,) = (folder / "files" / "media" / "images").glob("batch_*.png")
        logged = run["history"][0]
        assert logged["batch/path"].endswith(picture.name)
        assert (logged["batch/width"], logged["batch/height"]) == (4 * 16, 2 * 32)
    assert len(ids) == 2


def test_a_crash_is_a_failed_run_and_going_on_holds_everything(
    tiny_run, offline_runs, read_back, assert_copied, monkeypatch
):
    """The images are under licence here, so W&B gets a picture of them only if that is asked for."""
    whole, calls = loop.Stepper.step, []

    def break_down(*arguments):
        calls.append(1)
        if len(calls) == 3:  # the first of the second epoch
            raise MemoryError("out")
        whole(*arguments)

    monkeypatch.setattr(job, "dataset_id", lambda dataset: "regdb")
    with monkeypatch.context() as patch:
        patch.setattr(loop.Stepper, "step", break_down)
        assert tiny_run("tracker=wandb")[0] == 1
    (crashed,) = offline_runs()
    run = read_back(crashed)
    assert run["exit"] == 1 and set(run["history"]) == {0}

    assert tiny_run("tracker=wandb", "tracker.pictures=true")[0] == 0
    later = next(folder for folder in offline_runs() if folder != crashed)
    again = read_back(later)
    assert again["run"].run_id == run["run"].run_id
    assert_copied(later, again)
    assert [len(list(folder.glob("files/media/images/batch_*"))) for folder in (crashed, later)] == [0, 1]


def test_a_broken_wandb_stops_nothing_and_says_so_once(tiny_run, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(OSError("no route")))
    code, out, _ = tiny_run("tracker=wandb", "schedule.epochs=1")
    assert code == 0 and len(re.findall(r"W&B stopped \(OSError: no route\)", out)) == 1


def test_runs_are_rebuilt_from_their_folders(
    tiny_run, folder_of, offline_runs, read_back, assert_copied, agent, monkeypatch
):
    assert tiny_run("tracker=none")[0] == 0
    place = folder_of()
    assert rebuild(RunFolder(place))
    (folder,) = offline_runs()
    assert_copied(folder, read_back(folder))

    shutil.rmtree(folder)
    with monkeypatch.context() as patch:  # the sweep of an agent learns the figures of the run
        agent(patch)
        assert tiny_run("tracker=wandb")[0] == 0
        (folder,) = offline_runs()
        found = read_back(folder)
        assert_copied(folder, found, name="trial1", project="theirs")
        metric = re.search("name: (mAP[^,]+)", SWEEPS.read_text())[1]
        assert found["run"].sweep_id == "sw33p" and metric in found["summary"]

    (place / "result.json").unlink()
    shutil.rmtree(folder)
    assert rebuild(RunFolder(place))
    (folder,) = offline_runs()
    unfinished = read_back(folder)
    assert unfinished["exit"] == 1 and set(unfinished["history"]) == {0, 1}
    (place / "metrics.csv").unlink()
    assert not rebuild(RunFolder(place))
