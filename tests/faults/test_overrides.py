"""Overrides at random: each ends in a dry run or in one clear line, soon, and touches nothing that is there."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
import typing
import warnings
from collections import Counter
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from bdlf.config import Config, config_folder

SEED = 20260
CHUNK, CHUNKS, REAL = 250, 8, 50
LIMIT_S = 10  # a case at most
MEMORY = 12 << 30  # bytes of address space beyond what the tests have already


def _leaves(schema: type, prefix: str = "") -> dict[str, object]:
    """Type of every key of a schema by its dotted name."""
    hints = typing.get_type_hints(schema)
    found: dict[str, object] = {}
    for field in fields(schema):
        kind = hints[field.name]
        key = f"{prefix}{field.name}"
        found |= _leaves(kind, f"{key}.") if is_dataclass(kind) else {key: kind}
    return found


KEYS = _leaves(Config)
OPTIONS = {
    folder.relative_to(config_folder("conf")).as_posix(): sorted(file.stem for file in folder.glob("*.yaml"))
    for folder in config_folder("conf").rglob("*")
    if folder.is_dir() and any(folder.glob("*.yaml")) and not {"on_disk", "parts"} & set(folder.parts)
}

VALID = {
    "dataset.name": ["synthetic"],
    "dataset.root": ["null"],
    "dataset.split": ["1"],
    "dataset.synthetic.train_identities": ["4", "7"],
    "dataset.synthetic.test_identities": ["4", "5"],
    "dataset.synthetic.images_per_identity": ["2", "3"],
    "image.height": ["16", "32", "48", "33"],
    "image.width": ["16", "24"],
    "data.cache_dir": ["null", "elsewhere"],
    "data.cache": ["auto", "device", "host", "disk"],
    "batch.identities": ["2", "3", "4"],
    "augment.erase_area": ["[0.02,0.4]", "[0.2,0.8]", "[1,1]"],
    "augment.erase_fill": ["caj", "imagenet", "zero"],
    "backbone.name": ["resnet10", "resnet18", "resnet10"],
    "backbone.weights": ["none"],
    "backbone.last_stride": ["1", "2"],
    "backbone.pooling": ["gem", "avg"],
    "dfe.scale": ["tanh", "exp"],
    "dfe.init": ["zero", "default"],
    "dfe.norm": ["per_modality", "shared"],
    "beg.projection": ["free", "orthogonal"],
    "beg.init": ["projector"],
    "loss.fkl.form": ["normalized", "raw"],
    "loss.skd.form": ["stable", "outside", "literal"],
    "loss.tri.margin": ["0", "0.3", "1"],
    "optimizer.nesterov": ["true"],
    "schedule.milestones": ["[]", "[1]", "[1,2]", "[3,20,100]"],
    "evaluation.feature": ["after_bn", "before_bn"],
    "evaluation.mode": ["null", "all"],
    "evaluation.direction": ["null", "ir_to_vis", "vis_to_ir"],
    "evaluation.shots": ["null"],
    "evaluation.gallery": ["null"],
    "evaluation.reading": ["null"],
    "evaluation.holdout": ["0.5"],
    "selection": ["last_epoch", "validation", "best_on_test", "[validation,best_on_test]"],
    "tracker.name": ["none", "wandb"],
    "precision": ["32-true", "bf16-mixed"],
    "devices": ["auto", "cpu"],
    "on_nonfinite": ["stop", "skip"],
    "variant": ["full", "baseline", "dfe_app"],
    "output": ["out", "'another folder'"],
    "debug": ["false"],
    "dry_run": ["true"],
}
OF_TYPE = {bool: ["true", "false"], int: ["1", "2"], float: ["0.1", "0.5", "1"], str: ["name", "b-2"]}
NUMBERS = [
    "-1", "0", "1", "-0.0", "1.5", "1e9", "100000", "1000000000", "1000000000000", "9" * 400, "9223372036854775808",
    "1e400", "nan", "inf", "-inf",
]  # fmt: skip
HOSTILE = [
    *NUMBERS, *NUMBERS, "1e-300", "1_000", "0x10", "true", "null", "", "''", "' '", "' 1 '", "\"it's\"", "'a,b'", "a,b",
    "é漢字", "\u202eabc", "'line\nbreak'", "'\x1b[31mred'", "'nul\0byte'", "'\udcff'", "'\u2028'", "[1,2]", "[]",
    "[[]]", "[1,[2]]", "{a: 1}", "{}", "{a:", "[1,", "'", "${seed}", "${oc.env:HOME}", "${oc.env:NO_SUCH_NAME}",
    "${nowhere}", "${", "${label}", "${.}", "${hydra:runtime.cwd}", "$(id)", "a b", "..", "../../etc/passwd",
    "/no/such/place", "/", "/dev/null", "~", "%s%n", "a=b", "???", "-", "--", "\\", "x" * 5000, "9" * 5000,
    "[" * 2000 + "]" * 2000, "choice(1,2)", "range(0,3)", "glob(*)", "interval(0,1)", "int(3)",
    "str(3)", "float(2)", "shuffle([1,2])", "off", "none", "<file>", "<run>",
]  # fmt: skip
"""`<file>` and `<run>` stand for a file and a finished run's folder that are there."""
FLAGS = [
    "--no-such-flag", "--json", "-x", "-", "--", "--config-name=none", "--config-dir=/no/such/place", "novalue", "=",
]  # fmt: skip
MANGLED = [
    "+{}", "++{}", "~{}", "{}x", "{}.x", "x.{}", "{}.", ".{}", "{}@x", "@{}", "{} ", "É{}", "{}[0]", "{}/x",
    "hydra.{}",
]  # fmt: skip


def some_overrides(number: int) -> list[str]:
    """The overrides of a case: mostly one to four, some of which are sane, so that many cases succeed."""
    choose = random.Random(f"{SEED} {number}")

    def word() -> str:
        kind = choose.random()
        key = choose.choice(list(KEYS))
        if kind < 0.45:
            return f"{key}={_valid(choose, key)}"
        if kind < 0.6:
            group = choose.choice([group for group in OPTIONS if group != "dataset"])
            return f"{group}={choose.choice(OPTIONS[group])}"
        if kind < 0.9:
            return f"{key}={choose.choice(HOSTILE)}"
        name = choose.choice([key, choose.choice(list(OPTIONS))])
        value = choose.choice(HOSTILE) if choose.random() < 0.5 else choose.choice(OPTIONS.get(name, ["1"]))
        if kind < 0.94:
            return f"{name}={value}"
        if kind < 0.99:
            mangled = choose.choice(MANGLED).format(name)
            return mangled if mangled.startswith("~") and choose.random() < 0.5 else f"{mangled}={value}"
        return choose.choice(FLAGS)

    return [word() for _ in range(choose.choice([1, 1, 2, 2, 3, 4]))]


def _valid(choose: random.Random, key: str) -> str:
    if key in VALID:
        return choose.choice(VALID[key])
    if key.endswith("reduction"):
        return choose.choice(["sum", "mean"])
    kinds = typing.get_args(KEYS[key]) or (KEYS[key],)
    return choose.choice([value for kind in kinds for value in OF_TYPE.get(kind, ["null"])])


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder."""
    status = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in status.items()}


@pytest.fixture
def workplace(tmp_path, finished_run, monkeypatch):
    """A folder with a finished run and a cache, which is the current one; no network."""
    finished_run()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", "/no/such/cache")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path


def words_of(number: int, tiny, place: Path) -> list[str]:
    """The whole command line of a case."""
    (run,) = (place / "out/synthetic").glob("*/seed0")
    stands = {"<file>": run / "result.json", "<run>": run}
    own = some_overrides(number)
    for name, path in stands.items():
        own = [word.replace(name, str(path)) for word in own]
    return [*tiny, f"output={place}/out", f"data.cache_dir={place}/cache", *own, "dry_run=true"]


def complaint(code: int, out: str, err: str, seconds: float) -> str | None:
    """What is wrong with how a command ended."""
    if "Traceback" in out + err:
        return "traceback"
    if seconds > LIMIT_S:
        return f"{seconds:.0f} s"
    if code == 0:
        return None if not err and ("time  " in out or "finished before" in out) else "success that shows nothing"
    if code != 2:
        return f"exit code {code}"
    if len(err.splitlines()) != 1 or not err.startswith("error: ") or len(err) < 20:
        return "no clear line"
    return "a line of great length" if len(err) > 2000 else None


def require_clear_ends(numbers, run, words, clock=time.perf_counter) -> Counter:
    """Runs every case; fails with all that is wrong, by number."""
    ends: Counter = Counter()
    wrong = []
    slowest = (0.0, -1)
    for number in numbers:
        started = clock()
        code, out, err = run(words(number))
        seconds = clock() - started
        slowest = max(slowest, (seconds, number))
        ends[code] += 1
        if reason := complaint(code, out, err, seconds):
            wrong.append(f"{number}: {reason}: {_short(some_overrides(number))}\n    {_short(err or out)}")
    print(f"\n{ends[0]} dry runs, {ends[2]} refusals, slowest {slowest[0]:.1f} s (case {slowest[1]})")
    assert not wrong, f"{len(wrong)} of {len(numbers)} cases\n" + "\n".join(wrong)
    return ends


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 900 else f"{text[:300]} ... {text[-600:]}"


@pytest.fixture
def in_process(command, workplace):
    """Runs a command line here, with little memory and an alarm."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"{LIMIT_S} s are over")

    def run(words: list[str]) -> tuple[int, str, str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            signal.alarm(2 * LIMIT_S)
            try:
                code, out, err = command("train", *words)
            except Exception:  # the command's own must all be told by it
                code, out, err = 1, "", traceback.format_exc()
            finally:
                signal.alarm(0)
        shown = [one for one in caught if not issubclass(one.category, DeprecationWarning)]
        return code, out, err + "".join(f"{one.category.__name__}: {one.message}\n" for one in shown)

    has = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, before[1]))
    yield run
    resource.setrlimit(resource.RLIMIT_AS, before)
    signal.signal(signal.SIGALRM, handler)


def check_in_process(numbers: range, in_process, tiny, workplace) -> Counter:
    before = state_of(workplace)
    ends = require_clear_ends(numbers, in_process, lambda number: words_of(number, tiny, workplace))
    assert state_of(workplace) == before
    return ends


def test_a_few_overrides(in_process, tiny, workplace):
    check_in_process(range(12), in_process, tiny, workplace)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_overrides(chunk, in_process, tiny, workplace):
    ends = check_in_process(range(chunk * CHUNK, (chunk + 1) * CHUNK), in_process, tiny, workplace)
    assert ends[0] >= 0.2 * CHUNK


@pytest.mark.slow
def test_commands(tiny, workplace):
    def run(words: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "bdlf.train", *words], capture_output=True, timeout=60, stdin=subprocess.DEVNULL
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def clock() -> float:
        """The processor time of all children. Wall time is longer where others use the machine."""
        return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    chosen = [number for number in range(10**6, 10**6 + 200) if "\0" not in "".join(some_overrides(number))][:REAL]
    before = state_of(workplace)
    ends = require_clear_ends(chosen, run, lambda number: words_of(number, tiny, workplace), clock)
    assert ends[0] >= 0.2 * REAL and state_of(workplace) == before
