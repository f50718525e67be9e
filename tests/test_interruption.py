"""What a signal does, where it comes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bdlf.interruption import Interrupted, Interruption
from bdlf.jobs import SIGNALS


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_raises_at_once_or_at_the_end_of_what_is_held(number):
    before = signal.getsignal(number)
    with Interruption() as stop, pytest.raises(Interrupted, match=number.name):
        signal.raise_signal(number)
        raise AssertionError("too late")
    assert stop.asked == number.name and signal.getsignal(number) is before
    reached = []
    with Interruption() as stop, pytest.raises(Interrupted), stop.held():
        signal.raise_signal(number)
        reached.append(stop.asked)
    assert reached == [number.name]
    with Interruption() as stop, pytest.raises(Interrupted), stop.held():
        with stop.released():
            signal.raise_signal(number)
        raise AssertionError("too late")


def test_without_a_signal_nothing_is_raised_and_an_error_is_not_hidden():
    with Interruption() as stop, stop.held():
        pass
    with pytest.raises(ZeroDivisionError), Interruption() as stop, stop.held():
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError


@pytest.mark.parametrize(("second", "code"), [("SIGINT", 130), ("SIGTERM", 0)])
def test_only_a_second_ctrl_c_ends_the_process(second, code):
    script = f"""
import signal
from bdlf.interruption import Interruption, Interrupted
try:
    with Interruption() as stop, stop.held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.{second})
        print("saved", flush=True)
except Interrupted:
    print("left in order")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == code and ("left in order" in done.stdout) == (code == 0)
    assert (done.stderr == "stopped\n") == (code == 130)
