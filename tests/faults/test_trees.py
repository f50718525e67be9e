"""Datasets damaged at random: the check and the training end well or in one clear line, soon, and nothing is trained on
what is not there."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import struct
import time
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from bdlf.check import check
from bdlf.commandline.command import _run_job
from bdlf.config import CheckConfig, Config, config_folder
from bdlf.train import train

SEED = 3005
CHUNK, CHUNKS = 50, 10
LIMIT_S = 10  # a command at most
MEMORY = 6 << 30  # bytes of address space beyond what the tests have already
LAYOUTS = ("sysu", "regdb", "llcm")
MEGABYTES = 3 << 20  # of a list that is too long
NAMES = [
    "é漢.jpg",
    "line\nbreak.jpg",
    "\udcff.jpg",
    " .jpg",
    "0001.JPG",
    ".hidden.jpg",
    "0.jpg",
    "9" * 200 + ".jpg",
    "a b.bmp",
]
LINES = [
    "../../etc/passwd 3", "/etc/passwd 3", "{path}", "{path} 1 2", "{path} one", "{path} -1", "{path} 1.5", "1 {path}",
    "{path} 99999999999999999999", "{path} {digits}", "Visible/99999999999999999999/1.bmp 1", "vis/{digits}/1.jpg 1",
    "{path}\0 1", "{path} \0", "{path} ١", "{path} ²", "\u2028", "./{path} 1", "{path}/x 1", "Visible/1/. 1",
    "nir/1/../../x.jpg 1", "vis/0001/0001_c99999999999999999999_x.jpg 0", "1,2", "-1", "0", "{digits}", "5,,6",
    ",", "'; drop", "${seed}", "%s",
]  # fmt: skip
"""`{path}` is what a line of the list names, `{digits}` a number that is too long for Python."""


def files_of(root: Path, choose: random.Random) -> list[Path]:
    """Images, lists, or all of them."""
    every = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    kinds = {"images": [path for path in every if path.suffix in (".jpg", ".bmp")], "lists": _lists(root)}
    return kinds.get(choose.choice(["images", "images", "lists", "any"]), every) or every


def _lists(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("*/*.txt")) if path.is_file() and not path.is_symlink()]


def put(file: Path, content: bytes) -> None:
    """Write a file anew, because its hard link would change the intact tree too."""
    file.unlink()
    file.write_bytes(content)


def gone(file: Path, choose: random.Random) -> None:
    file.unlink()


def folder_gone(file: Path, choose: random.Random) -> None:
    shutil.rmtree(file.parent)


def contents(file: Path, choose: random.Random) -> None:
    own = file.read_bytes()
    place = choose.randrange(len(own) + 1)
    flipped = bytearray(own)
    for _ in range(choose.choice([1, 30])):
        flipped[choose.randrange(len(own))] = choose.randrange(256)
    put(
        file,
        choose.choice(
            [b"", own[:place], own[place:], choose.randbytes(900), b"text\n", bytes(99), bytes(flipped), own * 2]
        ),
    )


def bomb(file: Path, choose: random.Random) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = choose.choice([0, 9000, 30000, 60000, 2**31 - 1])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    put(file, b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b""))


def renamed(file: Path, choose: random.Random) -> None:
    file.rename(file.with_name(choose.choice(NAMES)))


def doubled(file: Path, choose: random.Random) -> None:
    shutil.copyfile(file, file.with_name(choose.choice(NAMES)))


def moved(file: Path, choose: random.Random, root: Path) -> None:
    folders = sorted(path for path in root.rglob("*") if path.is_dir())
    file.rename(choose.choice(folders) / choose.choice([file.name, "0001.jpg"]))


def linked(file: Path, choose: random.Random, root: Path) -> None:
    other = choose.choice(sorted(path for path in root.rglob("*") if path != file))
    file.unlink()
    file.symlink_to(choose.choice([file.name, "absent", "..", "/etc/passwd", "/", "/dev/zero", str(other)]))


def folder_linked(file: Path, choose: random.Random) -> None:
    folder = file.parent
    shutil.rmtree(folder)
    folder.symlink_to(choose.choice([folder.name, "..", ".", "/etc", "absent"]))


def other_kind(file: Path, choose: random.Random) -> None:
    if choose.random() < 0.3:
        shutil.rmtree(file.parent)
        file.parent.write_bytes(b"a file")
        return
    file.unlink()
    choose.choice([file.mkdir, lambda: os.mkfifo(file)])()


def closed(file: Path, choose: random.Random) -> None:
    put(file, file.read_bytes())
    choose.choice([file, file.parent]).chmod(0)


def stray(file: Path, choose: random.Random) -> None:
    (file.parent / choose.choice(["Thumbs.db", ".DS_Store", "._0001.jpg", "\udcfe", "desktop\n.ini"])).write_bytes(b"?")


def encoding(file: Path, choose: random.Random) -> None:
    own = file.read_bytes()
    other = [b"\xef\xbb\xbf" + own, own.replace(b"\n", b"\r\n"), own.replace(b"\n", b"\n\n \n"), own + b"\xff\xfe"]
    put(file, choose.choice([*other, own.decode("latin-1").encode("utf-16"), own.rstrip(b"\n")]))


def lines(file: Path, choose: random.Random) -> None:
    own = file.read_text(encoding="latin-1").splitlines() or [""]
    some = choose.choice(own)
    line = choose.choice(LINES).replace("{path}", some.partition(" ")[0]).replace("{digits}", "7" * 5000)
    place = choose.randrange(len(own))
    before, after = own[:place], own[place + 1 :]
    more, other = [*before, line, *own[place:]], [*before, line, *after]
    shuffled = choose.sample(own, len(own))
    changed = choose.choice([more, other, [*own, some], [*before, *after], shuffled, [",".join([*own, line])], []])
    put(file, "\n".join(changed).encode())


def long_list(file: Path, choose: random.Random) -> None:
    unit = choose.choice(
        [b"x", b"1,", b"1234,", b"vis/0001/0001_c01_x.jpg 0\n", b"Visible/1/a.bmp 1\n", b"\n", b"? ?\n", b"\0"]
    )
    put(file, choose.choice([b"", file.read_bytes()]) + unit * (MEGABYTES // len(unit)))


def exchanged(file: Path, choose: random.Random, root: Path) -> None:
    other = choose.choice(_lists(root))
    one, two = file.read_bytes(), other.read_bytes()
    put(file, two)
    put(other, one)


def record(file: Path, choose: random.Random, root: Path) -> None:
    file = root / "synthetic.json"
    own = file.read_text() if file.is_file() else "{}"
    old, new = choose.choice(
        [("2", "-2"), ("1", "1e400"), ("regdb", "sysu"), ("sysu", "llcm"), ('"', "'"), ("{", "["), ("train", "tain"),
         ("vis", "invisible"), ("3", "9" * 5000), ("images", "image"), ("4", "null"), ("{", "[" * 10**5)]
    )  # fmt: skip
    file.unlink(missing_ok=True)
    file.write_text(own.replace(old, new, choose.choice([1, -1])))


OF_LISTS = (encoding, lines, lines, lines, long_list, exchanged)
OF_FILES = (
    *(gone, folder_gone, contents, contents, contents, bomb, renamed, doubled, moved, linked, linked, folder_linked),
    *(other_kind, closed, stray, record),
)
WITH_ROOT = (moved, linked, exchanged, record)


def damage(root: Path, number: int) -> list[str]:
    """One to three damages in the tree at `root`, and what they were."""
    choose = random.Random(f"{SEED} {number}")
    done = []
    for _ in range(choose.choice([1, 1, 2, 3])):
        kind = choose.choice(OF_LISTS if choose.random() < 0.4 else OF_FILES)
        files = _lists(root) if kind in OF_LISTS else files_of(root, choose)
        if files:
            file = choose.choice(files)
            done.append(f"{kind.__name__} {file.relative_to(root)}")
            kind(file, choose, root) if kind in WITH_ROOT else kind(file, choose)
    return done


@cache
def composed(command: str, layout: str, place: Path) -> DictConfig:
    """The configuration that `python -m bdlf.<command>` would compose for the tree below `place`."""
    root = [f"dataset={layout}", f"dataset.root='{place}/tree'"]
    if command == "check":
        with initialize_config_dir(str(config_folder("conf") / "on_disk"), version_base="1.3"):
            return compose("check", root)
    tiny = ["backbone=resnet10", "image.height=32", "image.width=16", "batch.identities=2", "batch.images=2", "dfe=off",
            "schedule.epochs=1", "schedule.steps_per_epoch=2", "schedule.milestones=[]", "tracker=none", "devices=cpu",
            "threads=1", f"output='{place}/out'", f"data.cache_dir='{place}/cache'"]  # fmt: skip
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return compose("config", [*root, *tiny, f"dry_run={command == 'dry run'}"])


def trained_images_can_be_read(layout: str, root: Path) -> bool:
    """Whether all images that training reads can be opened. The code of the package is not used."""
    if layout == "sysu":
        pids = [
            int(pid)
            for part in ("train", "val")
            for pid in (root / f"exp/{part}_id.txt").read_text("utf-8-sig").split(",")
        ]
        images = [
            path for pid in pids for path in root.glob(f"cam*/{pid:04d}/*") if path.suffix.lower() in (".jpg", ".bmp")
        ]
    else:
        names = {"regdb": ("train_visible_1", "train_thermal_1"), "llcm": ("train_vis", "train_nir")}[layout]
        listed = [line for name in names for line in (root / f"idx/{name}.txt").read_text("utf-8-sig").splitlines()]
        images = [root / line.strip().rpartition(" ")[0] for line in listed if line.strip()]
    try:
        for path in images:
            if not path.name.startswith("."):
                with Image.open(path) as image:
                    image.load()
    except (OSError, ValueError):
        return False
    return len(images) > 0


@pytest.fixture
def try_all(layouts, tmp_path, capsys):
    """Checks, and tries to train on, damaged trees of these numbers."""

    def ring(*_: object) -> None:
        raise TimeoutError("hangs")

    def run(command: str, layout: str) -> tuple[int, str, str, float]:
        schema, task = (CheckConfig, check) if command == "check" else (Config, train)
        started = time.perf_counter()
        capsys.readouterr()
        signal.alarm(2 * LIMIT_S)
        code = _run_job(composed(command, layout, tmp_path), schema, task)
        signal.alarm(0)
        return code, *capsys.readouterr(), time.perf_counter() - started

    def wrong_with(command: str, layout: str, code: int, out: str, err: str, seconds: float) -> str | None:
        if "Traceback" in out + err or seconds > LIMIT_S:
            return f"traceback, or {seconds:.0f} s"
        if code == 2:
            clear = err.startswith("error: ") and err.count("\n") == 1 and 20 < len(err.encode()) < 2000
            return None if clear else "no clear line"
        if err or code not in ((0, 1) if command == "check" else (0,)):
            return f"exit code {code}"
        if command == "check" and (": nothing wrong (" in out) != (code == 0):
            return "another exit code than the table says"
        if command == "train" and not trained_images_can_be_read(layout, tmp_path / "tree"):
            return "trained on nothing"
        return None

    def each(numbers: range, share: float) -> Counter:
        ends: Counter = Counter()
        wrong, slowest = [], 0.0
        for number in numbers:
            layout = LAYOUTS[number % len(LAYOUTS)]
            shutil.rmtree(tmp_path / "tree", ignore_errors=True)
            shutil.copytree(layouts / layout, tmp_path / "tree", copy_function=os.link)
            done = damage(tmp_path / "tree", number)
            for command in ("check", "dry run", *(["train"] if number % 10 < 10 * share else [])):
                shutil.rmtree(tmp_path / "out", ignore_errors=True)
                code, out, err, seconds = run(command, layout)
                ends[command, code] += 1
                slowest = max(slowest, seconds)
                if code == 2 and list(tmp_path.glob("out/**/metrics.csv")):
                    wrong.append(f"{number} {layout} {done}: {command}: trained before it was refused")
                if reason := wrong_with(command, layout, code, out, err, seconds):
                    wrong.append(f"{number} {layout} {done}: {command}: {reason}\n    {(err or out)[-700:]!r}")
        print(f"\n{dict(ends)}, slowest {slowest:.1f} s")
        assert not wrong, f"{len(wrong)} of {len(numbers)} trees\n" + "\n".join(wrong)
        return ends

    before = {path: path.read_bytes() for path in layouts.rglob("*") if path.is_file()}
    handler = signal.signal(signal.SIGALRM, ring)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, limits[1]))
    yield each
    resource.setrlimit(resource.RLIMIT_AS, limits)
    signal.signal(signal.SIGALRM, handler)
    shutil.rmtree(tmp_path / "tree", ignore_errors=True)
    assert before == {path: path.read_bytes() for path in layouts.rglob("*") if path.is_file()}, "the intact trees"


def test_a_few_damaged_trees(try_all):
    try_all(range(9), share=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_damaged_trees(chunk, try_all):
    ends = try_all(range(chunk * CHUNK, (chunk + 1) * CHUNK), share=0.5)
    assert ends["check", 1] > CHUNK / 2 and ends["train", 0] and ends["train", 2]
