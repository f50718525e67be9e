"""What a command prints, on terminals of every width, in poor encodings, and where nobody reads."""

from __future__ import annotations

import fcntl
import importlib
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from bdlf.commandline.sweep_records import JobRecord, show
from bdlf.runs.findings_table import show_report
from bdlf.runs.record import FIGURES
from bdlf.runs.table import show_result
from bdlf.system.screen import encodable, keep_going, unwritten
from bdlf.system.screen_table import print_line, print_table

WIDTHS = [200, 80, 60, 40]


def as_child(work: Callable[[], object], **streams: int) -> int:
    """Call `work` in a child of this process whose standard streams are these descriptors. Returns its exit code.

    -1 stands for a stream that is closed. The child's `sys.stdout` is as the interpreter opens it.
    """
    errors = os.dup(2)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            numbers = {"stdin": 0, "stdout": 1, "stderr": 2}
            for name, number in numbers.items():
                if streams.get(name) == -1:
                    os.close(number)
                elif name in streams:
                    os.dup2(streams[name], number)
            for name in ("stdout", "stderr"):
                number = numbers[name]
                own = None if streams.get(name) == -1 else io.TextIOWrapper(open(number, "wb", closefd=False))  # noqa: SIM115
                setattr(sys, name, own)
                setattr(sys, f"__{name}__", own)
            code = int(work() or 0)
            sys.stdout.flush()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
            sys.stdout.flush()
        except BaseException:
            os.write(errors, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(errors)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def on_terminal(width: int, work: Callable[[], object]) -> list[str]:
    """The lines that `work` prints on a terminal of that width, as they were sent."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    os.environ["TERM"] = "xterm"
    try:
        assert as_child(work, stdin=terminal, stdout=terminal, stderr=terminal) == 0
    finally:
        os.close(terminal)
    sent = b""
    try:
        while part := os.read(master, 1 << 16):
            sent += part
    except OSError:  # Linux says so where a terminal has no other end any more
        pass
    os.close(master)
    return re.sub("\x1b\\[[0-9;]*m", "", sent.decode()).splitlines()


@pytest.fixture(autouse=True)
def _no_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # a shell's word on its own terminal
    monkeypatch.setenv("TERM", "xterm")


def result(trials: int) -> dict:
    """Two rows whose figures are all different."""
    rows = []
    for number, direction in enumerate(["vis_to_ir", "ir_to_vis"]):
        mean = {name: 10.1 + 13.3 * place + number for place, name in enumerate(FIGURES)}
        std = {name: 0.1 + place + number / 2 for place, name in enumerate(FIGURES)}
        rows.append(
            {
                "model": "ema",
                "dataset": "sysu",
                "similarity": "cosine",
                "epoch": 219,
                "selection": "best_on_test",
                "mode": "all",
                "direction": direction,
                "gallery": "sampled",
                "reading": "unconstrained",
                "shots": 1,
                "split": None,
                "protocol": f"{direction}-all-1",
                "feature": "after_bn",
                "flip": True,
                "valid_queries": 3803,
                "queries": 3803,
                "mean": mean,
                "std": std if trials > 1 else None,
                "trials": [mean] * trials,
            }
        )
    card = {"dataset": "sysu", "label": "full [of all]", "run_id": "1a2b3c4d-seed0", "fingerprint": "7887fd17" * 8}
    return {
        **card,
        "test_fingerprint": "d3352bb6" * 8,
        "trained_identities": 395,
        "held_out_identities": 0,
        "metrics": rows,
    }


@pytest.mark.parametrize("trials", [1, 10])
@pytest.mark.parametrize("width", [*WIDTHS, 20])
def test_every_figure_of_a_result_is_whole_and_has_its_name(width, trials):
    lines = on_terminal(width, lambda: show_result(result(trials)))
    assert max(map(len, lines)) <= width
    for row in result(trials)["metrics"]:
        for name in FIGURES:
            figure = f"{row['mean'][name]:.1f}" + (f" ±{row['std'][name]:.1f}" if trials > 1 else "")
            (line,) = [line for line in lines if re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", line)]
            heading = name.replace("rank", "rank-")
            assert heading in line or any(heading in other and "model" in other for other in lines), (heading, line)
    assert "[of all]" in "".join(lines), "no name is taken for a colour"


def test_a_result_that_fits_is_one_table_and_a_wide_one_is_whole_in_a_file(capsys):
    lines = on_terminal(200, lambda: show_result(result(10)))
    assert sum("ema" in line for line in lines) == 2
    show_result(result(10))
    assert sum("ema" in line and "±" in line for line in capsys.readouterr().out.splitlines()) == 2


def job(number: int, state: str, **facts: str) -> JobRecord:
    words = f"seed={number} variant=full"
    return JobRecord(call="c", job=number, state=state, overrides=words, pid=1, host="h", written="w", **facts)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_job_keeps_its_number_state_and_words_on_every_terminal(width):
    folder = "/home/somebody/experiments/outputs/sysu/full-1a2b3c4d/seed11"
    records = [job(11, "finished", folder=folder), job(12, "interrupted", reason="a long reason " * 9, log="/a/b.log")]
    lines = on_terminal(width, lambda: show(records, [Path("/x/jobs.csv")]))
    assert max(map(len, lines)) <= width
    for number, state in ((11, "finished"), (12, "interrupted")):
        assert any(re.search(rf"\b{number}\b", line) and re.search(rf"\b{state}\b", line) for line in lines)
        assert any(f"seed={number}" in line for line in lines)
    letters = re.sub(r"[\s│┃|]", "", "".join(lines))
    assert folder in letters or width == 80, "a name may go on in the next line, and loses nothing"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_counts_of_a_check_are_whole_on_every_terminal(width):
    counts = [
        {
            "regdb_split": split,
            "split": "train",
            "modality": modality,
            "camera": None,
            "identities": 206,
            "images": 22258 + split,
            "expected_identities": 206,
            "expected_images": 22268,
            "ok": False,
        }
        for split in (1, 2, 3)
        for modality in ("vis", "ir")
    ]
    protocols = [
        {
            "regdb_split": None,
            "protocol": "vis_to_ir",
            "queries": 20601,
            "expected_queries": 20602,
            "gallery": 3803,
            "expected_gallery": 3803,
            "ok": False,
        }
    ]
    report = {"dataset": "regdb", "root": "/data/RegDB", "synthetic": False, "fingerprint": None, "images_opened": 0}
    report |= {"counts": counts, "protocols": protocols, "findings": [], "notes": [], "hint": None, "ok": True}
    lines = on_terminal(width, lambda: show_report(report))
    assert max(map(len, lines[:-1])) <= width
    text = "\n".join(lines)
    for number in ("22,259", "22,260", "22,261", "20,601", "3,803", "206"):
        assert re.search(rf"(?<![\d,]){number}(?![\d,])", text), number
    assert "9 images missing" in re.sub(r"[\s│]+", " ", text)


def test_columns_that_can_be_spared_go_before_a_table_falls_apart():
    def work() -> None:
        print_table(["name", "published", "images"], [["train", "1,000", "998"]], figures=(1, 2), dispensable=(1,))

    assert "published" in "".join(on_terminal(40, work))
    narrow = on_terminal(25, work)
    assert "published" not in "".join(narrow) and any("train" in line and "998" in line for line in narrow)
    assert "train" in "".join(on_terminal(14, work)) and "998" in "".join(on_terminal(14, work))


def test_wide_signs_and_line_breaks_keep_a_table_straight():
    rows = [["1", "数据 " * 12], ["2", "a\nb"], ["3", "é" * 3 + "e\u0301"]]
    lines = on_terminal(40, lambda: print_table(["no", "text"], rows, title="of  all", figures=(0,), text=(1,)))
    assert lines[0] == "of  all"
    columns = [sum(2 if sign in "数据" else sign != "\u0301" for sign in line) for line in lines[1:]]
    assert set(columns) == {40}, lines
    assert sum("数" in line for line in lines) == 2 and any(line.startswith("│  2 │ a ") for line in lines)


def test_a_line_is_broken_between_words_on_a_terminal_and_whole_in_a_file(capsys):
    assert on_terminal(10, lambda: print_line("  one two-three four" + "x" * 12)) == [
        "  one",
        "two-three",
        "fourxxxxxx",
        "x" * 6,
    ]
    print_line("word " * 100)
    assert capsys.readouterr().out == "word " * 100 + "\n"


def test_signs_that_an_encoding_lacks_are_written_with_signs_that_it_has():
    assert encodable("45.2 ± 0.3 ✓ → é", "ascii") == "45.2 +- 0.3 x -> \\xe9"
    assert encodable("45.2 ± 0.3 é", "latin-1") == "45.2 ± 0.3 é"
    assert encodable("\udcff", "utf-8") == "\\udcff", "a file's name in bytes that are no text"


def test_a_table_in_ascii_is_as_straight_as_any(tmp_path):
    done = {}
    for encoding in ("ascii", "utf-8"):
        file = os.open(tmp_path / encoding, os.O_WRONLY | os.O_CREAT)

        def work(encoding=encoding) -> None:
            sys.stdout.reconfigure(encoding=encoding)
            keep_going()
            show_result(result(10))

        assert as_child(work, stdout=file) == 0
        os.close(file)
        done[encoding] = (tmp_path / encoding).read_text(encoding)
    rows = [line for line in done["ascii"].splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1 and len(rows) >= 3
    assert "23.4 +-1.1" in done["ascii"] and "23.4 ±1.1" in done["utf-8"]


def read_end_closed() -> int:
    end, start = os.pipe()
    os.close(end)
    return start


def terminal_gone() -> int:
    master, terminal = pty.openpty()
    os.close(master)
    return terminal


def test_training_goes_on_where_nobody_reads(tiny, tmp_path, folder_of, monkeypatch):
    module = importlib.import_module("bdlf.train")
    arguments = [*tiny, "schedule.epochs=3", f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache"]
    monkeypatch.setattr(sys, "argv", ["bdlf.train", *arguments])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    GlobalHydra.instance().clear()
    pipe = read_end_closed()
    assert as_child(module.main, stdout=pipe, stderr=pipe) == 0
    assert "epoch 3/3" in (folder_of() / "train.log").read_text()
    assert (folder_of() / "result.json").is_file()


@pytest.mark.parametrize("stream", [read_end_closed, terminal_gone, lambda: -1], ids=["pipe", "terminal", "closed"])
def test_nothing_that_is_printed_fails_where_nobody_reads(stream):
    number = stream()

    def work() -> int:
        keep_going()
        for line in range(3000):
            print(line, "x" * 100, flush=line % 7 == 0)
            print(line, file=sys.stderr)
        return 7

    assert as_child(work, stdout=number, stderr=number) == 7


def test_what_is_opened_after_a_closed_stream_is_not_written_by_print(tmp_path):
    def work() -> None:
        keep_going()
        with open(tmp_path / "data", "w") as file:
            print("to nobody", flush=True)
            print("to nobody", file=sys.stderr, flush=True)
            os.write(1, b"from C")
            file.write("data")

    assert as_child(work, stdin=-1, stdout=-1, stderr=-1) == 0
    assert (tmp_path / "data").read_text() == "data"


def test_a_full_disk_is_told_and_a_reader_that_left_is_not():
    def work() -> bool:
        keep_going()
        print("x" * 100_000)
        return bool(unwritten())

    full = os.open("/dev/full", os.O_WRONLY)
    assert as_child(work, stdout=full) == 1
    assert as_child(work, stdout=read_end_closed()) == 0
    assert as_child(work, stdout=os.open(os.devnull, os.O_WRONLY)) == 0


def test_help_that_a_full_disk_cut_off_is_a_failure():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "bdlf.report", "--help"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"No space left on device" in done.stderr


def test_a_reader_that_waits_on_a_slow_pipe_gets_everything():
    """Another program on the same terminal may have made it non-blocking."""
    end, start = os.pipe()
    os.set_blocking(start, False)
    got = []

    def work() -> None:
        keep_going()
        for number in range(40_000):
            print(number)

    child = os.fork()
    if child == 0:
        os.close(end)
        os._exit(as_child(work, stdout=start))
    os.close(start)
    with open(end, "rb") as reader:
        got = reader.read().split()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [int(word) for word in got] == list(range(40_000))
