"""Runs that are killed at any moment and called again end as if nothing had happened, bit for bit."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bdlf.training.checkpoint import load_newest

KINDS = {
    "plain": ["evaluation.every=1"],
    "every step": ["checkpoint.every_steps=1", "selection=best_on_test"],
}
IN_A_ROW = 3
"""Kills of one run, at most."""
BEFORE = ("elsewhere", "parts", "image cache")
"""Phases in which a run may not have said yet where it goes on."""
STRIDE = 11
"""Through the kinds of calls, from one run to the next."""


@pytest.fixture(scope="module")
def references(driver, tmp_path_factory):
    """For each kind of run, the folder of a run that nothing disturbed, and how that run ended."""
    found = {}
    for kind, overrides in KINDS.items():
        folder = tmp_path_factory.mktemp("reference")
        found[kind] = folder, driver(folder, *overrides)
        assert found[kind][1].code == 0 and not found[kind][1].err
    return found


@pytest.fixture
def kill(driver, references, tmp_path, caplog, run_folder, require_same):
    """`kill(seed, **first)`: kill one run a few times, let it end, compare; what it was at each time."""

    def newest(folder: Path) -> int:
        """Steps in the newest checkpoint that is sound; 0 where there is none, or it is not the first in line."""
        found = list((folder / "out" / "synthetic").glob("*/seed0/checkpoints"))
        if not found or not list(found[0].glob("last*.pt")):
            return 0
        caplog.clear()
        state = load_newest(found[0] / "last.pt")
        assert not caplog.text, "what a kill leaves is sound"
        return int(state["epoch"] * 2 + state["step"])

    def run(seed: int, **first: Any) -> list[str]:
        random = np.random.default_rng(seed)
        kind = [*KINDS][seed % len(KINDS)]
        reference, undisturbed = references[kind]
        folder, saved = tmp_path / str(seed), 0
        folder.mkdir()
        story: list[Any] = [f"seed {seed}, {kind}"]
        where: list[str] = []
        try:
            for number in range(IN_A_ROW + 1):
                fault = {} if number == IN_A_ROW else moment(random, seed, number, undisturbed)
                fault = first if first and number == 0 else fault
                ended = driver(folder, *KINDS[kind], **fault)
                story.append((fault, ended))
                assert ended.code in (0, -signal.SIGKILL) and not ended.err
                assert "warning: " not in ended.out
                if saved and (ended.code == 0 or ended.phase not in BEFORE):
                    assert goes_on(saved) in ended.out or "finished before" in ended.out
                if ended.code == 0:
                    break
                where.append(ended.phase)
                before, saved = max(saved, ended.saved), newest(folder)
                assert saved >= before, "a checkpoint was lost"
            assert ended.code == 0
            require_same(reference, folder)
        except Exception as error:
            raise AssertionError(f"{error}\n" + "\n".join(map(str, story))) from error
        return where

    return run


def goes_on(steps: int) -> str:
    """What a run prints that goes on after so many steps."""
    return f"going on at epoch {steps // 2 + 1} of 2, step {steps % 2 + 1} of 2" if steps < 4 else "all 2 epochs are"


def moment(random: np.random.Generator, seed: int, number: int, undisturbed: Any) -> dict[str, Any]:
    """Of the kill `number` of a run: the first at a call that changes a file, of another kind in each run."""
    counts = undisturbed.counts
    if number and random.random() < 0.6:
        return {"after": undisturbed.seconds * random.random()}
    name = [*counts][(STRIDE * seed if number == 0 else random.integers(len(counts))) % len(counts)]
    when = ["before", "middle", "after"][random.integers(3)]
    return {
        "op": name,
        "at": int(random.integers(counts[name])) + 1,
        "when": when,
        "power": bool(random.random() < 0.5),
    }


def until(kills: int, kill: Callable[[int], list[str]], seed: int) -> tuple[Counter[str], int]:
    """Where the runs from `seed` on were killed, so many times in all, and how many runs that took."""
    places: Counter[str] = Counter()
    first = seed
    while places.total() < kills:
        places.update(kill(seed))
        seed += 1
    return places, seed - first


@pytest.mark.slow
def test_five_kills(kill):
    gap = kill(1, op="replace last.pt", at=2, when="before")  # the older one has moved on, the new one is not there
    until(5 - len(gap), kill, seed=100)


@pytest.mark.slow
def test_a_hundred_kills(kill, capsys):
    places, runs = until(100, kill, seed=0)
    with capsys.disabled():
        print(f"\n{places.total()} kills of {runs} runs: {dict(places)}")
    assert runs < 60, "too few were hit"
    assert set(places) >= {"image cache", "step", "checkpoint", "metrics", "queries", "result"}
