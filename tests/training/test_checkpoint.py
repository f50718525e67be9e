from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from bdlf.system import files
from bdlf.system.errors import InputError, StorageError
from bdlf.training.checkpoint import has_checkpoint, load_checkpoint, load_newest, save_checkpoint


def _state(seed: int) -> dict:
    weights = {"w": torch.randn(50, 50, generator=torch.Generator().manual_seed(seed))}
    return {"model": weights, "epoch": seed, "seconds": 1.5, "run_id": "abc-seed0"}


def test_round_trip_and_nothing_left_beside(tmp_path):
    path = tmp_path / "checkpoints" / "last.pt"
    for seed in range(3):
        save_checkpoint(path, _state(seed))
        state = load_checkpoint(path)
        assert torch.equal(state["model"]["w"], _state(seed)["model"]["w"]) and state["epoch"] == seed
    assert sorted(file.name for file in path.parent.iterdir()) == ["last.pt", "last.pt.sha256"]


@pytest.mark.parametrize("keep_sum", [True, False])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damage_is_recognised(tmp_path, damage, keep_sum):
    path = tmp_path / "last.pt"
    save_checkpoint(path, _state(0))
    data = bytearray(path.read_bytes())
    if damage == "flipped" and not keep_sum:
        pytest.skip("a flipped weight cannot be told without the sum")
    data[len(data) // 2] ^= 0xFF
    path.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b""}[damage])
    if not keep_sum:
        path.with_name("last.pt.sha256").unlink()
    with pytest.raises(InputError, match=r"last\.pt .*remove it") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_killed_between_the_sum_and_the_rename(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, _state(0))
    real = os.replace
    monkeypatch.setattr(
        os,
        "replace",
        lambda a, b: real(a, b) if str(b).endswith("sha256") else (_ for _ in ()).throw(KeyboardInterrupt),
    )
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, _state(1))
    monkeypatch.undo()
    assert load_checkpoint(path)["epoch"] == 0
    save_checkpoint(path, _state(2))
    assert load_checkpoint(path)["epoch"] == 2


class _Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_checkpoint_never_runs_code(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.pt"
    torch.save({"schema": 2, "x": _Bomb()}, path) if how == "torch" else path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(InputError, match=r"last\.pt is not a readable checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_another_schema_is_refused(tmp_path):
    torch.save({"schema": 99}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "last.pt")


def test_older_generations_stay_and_stand_in_for_a_damaged_one(tmp_path, caplog):
    path = tmp_path / "last.pt"
    for seed in range(4):
        save_checkpoint(path, _state(seed), keep=3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last-1.pt", "last-2.pt", "last.pt", "last.pt.sha256"]
    files = [path, tmp_path / "last-1.pt", tmp_path / "last-2.pt"]
    assert [load_newest(path)["epoch"]] == [3] and not caplog.text
    for number, file in enumerate(files):
        file.write_bytes(file.read_bytes()[:-9])
        caplog.clear()
        if number < 2:
            assert load_newest(path)["epoch"] == 2 - number
            assert "last.pt is damaged" in caplog.text and f"going on from last-{number + 1}.pt" in caplog.text
        else:
            with pytest.raises(InputError, match=r"last\.pt is damaged"):
                load_newest(path)
    save_checkpoint(path, _state(4), keep=1)
    assert load_newest(path)["epoch"] == 4
    path.unlink()
    assert has_checkpoint(path) and not has_checkpoint(tmp_path / "other.pt")


def test_killed_between_the_renames_the_older_one_is_found(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, _state(0), keep=2)
    real = os.replace

    def killed(source, target):
        if target == path:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, _state(1), keep=2)
    monkeypatch.undo()
    assert not path.exists() and load_newest(path)["epoch"] == 0
    save_checkpoint(path, _state(2), keep=2)
    assert load_newest(path)["epoch"] == 2 and load_checkpoint(tmp_path / "last-1.pt")["epoch"] == 0


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_told_as_such_and_leaves_what_was_there(tmp_path, monkeypatch, call):
    """PyTorch turns an error of the file into one about positions in a zip archive."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, _state(0), keep=2)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":
        monkeypatch.setattr(files, "open", lambda *_: Path("/dev/full").open("wb"), raising=False)  # noqa: SIM115
    else:
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"last\.pt cannot be written: No space left on device; free space"):
        save_checkpoint(path, _state(1), keep=2)
    monkeypatch.undo()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pt", "last.pt.sha256"]
    assert load_checkpoint(path)["epoch"] == 0
