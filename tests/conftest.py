"""Shapes and types of the numeric rooms' signatures are checked while the tests run."""

import importlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hydra._internal import defaults_list
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from jaxtyping import install_import_hook
from omegaconf import OmegaConf

install_import_hook(
    [
        "bdlf.losses",
        "bdlf.networks",
        "bdlf.methods",
        "bdlf.terms",
        "bdlf.objective",
        "bdlf.evaluation",
        "bdlf.data",
        "bdlf.datasets",
    ],
    "beartype.beartype",
)

from bdlf.commandline.command import run_command  # noqa: E402
from bdlf.config import (  # noqa: E402
    BenchmarkConfig,
    CheckConfig,
    Config,
    EvaluateConfig,
    ProbeConfig,
    SynthesizeConfig,
    VisualizeConfig,
)
from bdlf.data.synthetic.layouts import LAYOUTS, write_layout  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)  # tensors here are small: a second thread only waits

_all_choices = defaults_list._create_interpolation_map


def _choices_if_read(overrides, entries, self_added):
    """Hydra lists all choices once for each file that it composes, a third of the time of composing.

    It reads the list only where an entry of the file names another group's option: `${method}`.
    """
    read = any(entry.is_interpolation() for entry in entries)
    return _all_choices(overrides, entries, self_added) if read else OmegaConf.create()


defaults_list._create_interpolation_map = _choices_if_read

TINY = (
    "dataset.synthetic.train_identities=4",
    "dataset.synthetic.test_identities=4",
    "dataset.synthetic.images_per_identity=2",
    "image.height=32",
    "image.width=16",
    "batch.identities=2",
    "batch.images=2",
    "dfe.blocks=1",
    "schedule.epochs=2",
    "schedule.steps_per_epoch=2",
    "tracker=none",
    "devices=cpu",
    "threads=1",
)
"""A run of a second or two on the synthetic set."""
ONE_JOB = re.compile(r"(?!sweeps|hydra)[a-z][\w./]*=")
"""Words that cannot set `hydra.mode`. Hydra composes the whole configuration once more to learn this mode, which takes
as long as a command that refuses its input. Where every word matches, `command` leaves that composition out."""


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact tree in every layout, never written to."""
    folder = tmp_path_factory.mktemp("cam 5")
    for layout in LAYOUTS:
        write_layout(layout, folder / layout, identities=8, images=2, height=32, width=16)
    return folder


@pytest.fixture
def tiny():
    """Overrides of a run of a second or two."""
    return TINY


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """A command as the shell would run it, here: `command("train", *overrides)` -> (exit code, stdout, stderr)."""

    def run(name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        module = importlib.import_module(f"bdlf.{name}")
        schema = {"train": Config, "evaluate": EvaluateConfig, "check": CheckConfig, "synthesize": SynthesizeConfig}
        schema |= {"benchmark": BenchmarkConfig, "probe": ProbeConfig, "visualize": VisualizeConfig}
        primary = "config" if name == "train" else name
        monkeypatch.setattr(sys, "argv", [f"bdlf.{name}", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # a command sets it to 1; after the test it is as before
        for variable, value in (environment or {}).items():
            monkeypatch.setenv(variable, value)
        GlobalHydra.instance().clear()
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped, monkeypatch.context() as patch:
            if all(ONE_JOB.match(word) for word in arguments):
                patch.setattr(Hydra, "get_mode", lambda *_, **__: None)
            run_command(
                primary,
                schema[name],
                getattr(module, name),
                module.__doc__ or "",
                folder="on_disk" if name in ("evaluate", "check", "probe", "visualize") else "",
            )
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture
def tiny_run(command, tmp_path):
    """`tiny_run(*overrides)`: a tiny `bdlf.train` with its output and cache below `tmp_path`."""

    def run(*overrides: str) -> tuple[int, str, str]:
        return command("train", *TINY, f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache", *overrides)

    return run


@pytest.fixture
def folder_of(tmp_path):
    """`folder_of()`: the folder of the only run below `tmp_path`; of another dataset by its name."""

    def find(dataset: str = "synthetic") -> Path:
        (found,) = (tmp_path / "out" / dataset).glob("*/seed*")
        return found

    return find


@pytest.fixture(scope="session")
def trained_before() -> dict[tuple[str, ...], tuple[Path, Path]]:
    """Of the runs that `finished_run` has trained: where a copy lies, and where the run was trained."""
    return {}


@pytest.fixture
def finished_run(tiny_run, folder_of, tmp_path, tmp_path_factory, trained_before):
    """`finished_run(*overrides)`: the folder of a finished tiny run, the only one below `tmp_path`.

    For tests of what is done with a finished run, not of how it is trained. All tests that ask for the same overrides
    get copies of one run.
    """

    def run(*overrides: str) -> Path:
        assert not (tmp_path / "out").exists(), "this test has trained a run already"
        if overrides not in trained_before:
            code, _, err = tiny_run(*overrides)
            assert code == 0, err
            kept = tmp_path_factory.mktemp("finished")
            for name in ("out", "cache"):
                shutil.copytree(tmp_path / name, kept / name)
            trained_before[overrides] = kept, tmp_path
            return folder_of()
        kept, place = trained_before[overrides]
        shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
        config = folder_of() / "config.yaml"
        config.write_text(config.read_text().replace(str(place), str(tmp_path)))
        return folder_of()

    return run


@pytest.fixture
def evaluated(command, tmp_path):
    """`evaluated(*arguments)`: the result that `bdlf.evaluate` writes to `tmp_path/scored`."""

    def run(*arguments: str) -> dict:
        output = [f"output={tmp_path}/scored", "devices=cpu", "threads=1", f"data.cache_dir={tmp_path}/cache"]
        code, _, err = command("evaluate", *arguments, *output)
        assert code == 0, err
        return json.loads((tmp_path / "scored" / "result.json").read_text())

    return run


@pytest.fixture
def test_set():
    """Overrides that name the images of a tiny run to another command."""
    return ["dataset=synthetic", *(word for word in TINY if word.startswith("dataset."))]


PRELOADED = [
    *("torch", "torchvision.models", "lightning_fabric.wrappers", "scipy.special", "pandas", "PIL.Image"),
    *("hydra.main", "hydra._internal.hydra", "rich.table", "tqdm"),
]
"""Importing these takes most of the time until a new process has imported `bdlf`."""
CHILD = """
import os, runpy, sys
os.chdir(place)
os.environ.clear()
os.environ.update(environment)
for number, file in enumerate(files, 1):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
sys.path[:0] = [place, *environment.get("PYTHONPATH", "").split(os.pathsep)]
sys.argv[:] = arguments[1:]
if arguments[0] == "-m":
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
else:
    exec(arguments[1], {"__name__": "__main__"})
"""


class Python:
    """A process of Python that begins with the modules `PRELOADED` imported: as `subprocess.Popen`, and sooner."""

    def __init__(self, arguments: tuple[str, ...], place: Path, environment: Mapping[str, str], folder: Path) -> None:
        self._files = [folder / name for name in ("out", "err")]
        words = {"place": str(place), "environment": {**environment}, "arguments": arguments}
        words["files"] = [str(file) for file in self._files]
        context = multiprocessing.get_context("forkserver")
        self._ended, words["held"] = context.Pipe(duplex=False)  # the process and all that it forks hold one end
        self._process = context.Process(target=exec, args=(CHILD, words))
        self._process.start()
        words["held"].close()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end of the process and of all processes that it forked. Returns standard output and error."""
        self._process.join(timeout)
        assert self._ended.poll(timeout), "the process, or one that it forked, has not ended"
        out, err = (file.read_text(encoding="utf-8") if file.exists() else "" for file in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


@pytest.fixture(scope="session")
def start_python(tmp_path_factory) -> Callable[..., Python]:
    """`start_python("-m" or "-c", *words, place=..., environment=...)`: a process of Python, started in `place`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)

    def start(*arguments: str, place: Path, environment: Mapping[str, str]) -> Python:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")  # of the process that all others are forked from
            return Python(arguments, place, environment, tmp_path_factory.mktemp("python"))

    return start


@dataclass(frozen=True)
class Followed:
    """A copy of the package and its configurations in which a section of a README was followed."""

    home: Path
    files: list[tuple[str, str]]
    """Names of the section's files, and the language of their block."""
    commands: list[tuple[str, list[str]]]
    """The section's commands: `bdlf.<name>` and the words behind it."""
    start: Callable[..., Python]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Python, with this copy in place of the package."""
        variables = {**os.environ, "PYTHONPATH": str(self.home), **environment}
        process = self.start(*arguments, place=self.home, environment=variables)
        out, err = process.communicate()
        return subprocess.CompletedProcess(arguments, process.poll(), out, err)


@pytest.fixture(scope="session")
def follow(tmp_path_factory: pytest.TempPathFactory, start_python) -> Callable[[str, str], Followed]:
    """`follow(page, heading)`: follow that section of a README, block by block, in a copy of the package.

    A block belongs to the file that is named on the line before it. A block `diff` replaces single lines (`-`) of that
    file by others (`+`); any other block is a new file.
    """

    def followed(page: str, heading: str) -> Followed:
        text = (ROOT / page).read_text(encoding="utf-8")
        section = re.split(r"^## ", text.split(f"## {heading}\n")[1], flags=re.M)[0]
        blocks = re.findall(r"^`([\w/.]+)`:\n\n```(\w+)\n(.*?)```", section, re.DOTALL | re.MULTILINE)
        home = tmp_path_factory.mktemp("followed")
        for folder in ("bdlf", "conf", "sweeps"):
            shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name, language, content in blocks:
            write_block(home / name, language, content)
        shell = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
        found = re.findall(r"^python -m bdlf\.(\w+) (.*)$", shell, re.M)
        commands = [(name, words.split()) for name, words in found]
        return Followed(home, [(name, language) for name, language, _ in blocks], commands, start_python)

    return followed


def write_block(file: Path, language: str, content: str) -> None:
    if language != "diff":
        assert not file.exists(), f"{file} is there already"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        return
    changed = file.read_text(encoding="utf-8")
    for old, new in re.findall(r"^-(.*)\n((?:\+.*\n)+)", content, re.MULTILINE):
        assert changed.count(f"{old}\n") == 1, f"the page names a line that {file} does not have once: {old}"
        changed = changed.replace(f"{old}\n", re.sub(r"^\+", "", new, flags=re.MULTILINE))
    file.write_text(changed, encoding="utf-8")
