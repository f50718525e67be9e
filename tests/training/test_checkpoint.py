from __future__ import annotations

import os
import pickle

import pytest
import torch

from bdlf.errors import InputError
from bdlf.training.checkpoint import load_checkpoint, save_checkpoint


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
    torch.save({"schema": 1, "x": _Bomb()}, path) if how == "torch" else path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(InputError, match=r"last\.pt is not a readable checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_another_schema_is_refused(tmp_path):
    torch.save({"schema": 99}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "last.pt")
