"""The project as a whole: floors, documentation, wheel. The READMEs have `test_readmes.py`."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bdlf"
FLOORS = {
    "system": 0,
    "config": 1,
    **dict.fromkeys(["datasets", "networks", "losses"], 2),
    **dict.fromkeys(["active", "terms"], 3),
    **dict.fromkeys(["data", "objective"], 4),
    **dict.fromkeys(["methods", "evaluation"], 5),
    "runs": 6,
    **dict.fromkeys(["commandline", "training"], 7),
    **dict.fromkeys(["assembly", "reporting"], 8),
    "experiment": 9,
    **dict.fromkeys(["scoring", "benchmarking", "inside"], 10),
    "running": 11,
    **dict.fromkeys(["train", "evaluate", "check", "synthesize", "report", "benchmark", "probe", "visualize"], 12),
    "__main__": 13,
}
"""A module imports only from its own room and from rooms on lower floors; `bdlf/README.md` has the map."""
FILES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_from_its_own_room_and_floors_below(file):
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    own = parts[0]
    if own == "__init__":
        return
    assert own in FLOORS, f"{own} has no floor"
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names = [f"bdlf.{alias.name}" for alias in node.names] if node.module == "bdlf" else [node.module or ""]
        for name in names:
            if name.startswith("bdlf."):
                assert room(name) == own or FLOORS.get(room(name), 99) < FLOORS[own], f"{own} imports {name}"


def texts_in_code(file: Path) -> set[str]:
    """The string literals of a file that are no docstrings."""
    tree = ast.parse(file.read_text())
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements
    }


def test_only_the_room_of_the_datasets_knows_real_datasets_by_name():
    names = {"sysu", "regdb", "llcm"}
    knowing = {file.relative_to(PACKAGE).as_posix() for file in FILES if names & texts_in_code(file)}
    assert knowing == {f"datasets/{name}.py" for name in names}


def test_the_map_of_the_house_has_every_room_on_its_floor():
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    assert {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)`", names)} == FLOORS


"""Functions that may be longer, as `file:name`. An entry whose function has become short is an error."""


def test_no_function_is_longer_than_60_lines():
    """Signature and docstring count. Decorators do not."""
    functions = [
        (f"{file.relative_to(PACKAGE).as_posix()}:{node.name}", node.end_lineno - node.lineno + 1)
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 500
    assert [name for name, lines in functions if lines > 60] == []


@pytest.mark.parametrize(
    "name",
    [
        "config",
        "commandline.command",
        "system.files",
        "train",
        "evaluate",
        "check",
        "synthesize",
        "report",
        "benchmark",
        "probe",
        "visualize",
    ],
)
def test_commands_start_without_torch(name):
    """`--help` and a misspelt option must be answered at once."""
    code = f"import bdlf.{name}, sys; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_run_without_the_tracker_does_not_import_wandb(tmp_path):
    """The import takes half a second, and only users of W&B need its threads and files."""
    words = ["dataset.synthetic.train_identities=8", "dataset.synthetic.test_identities=4", "batch.identities=2"]
    words += ["schedule.epochs=1", "schedule.steps_per_epoch=1", "devices=cpu", "tracker=none"]
    words += [f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache"]
    code = (
        "import sys, bdlf.train\n"
        "try: bdlf.train.main()\n"
        "except SystemExit as left: sys.exit(left.code or 9 * ('wandb' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "wandb was imported"


def test_reports_are_made_without_torch():
    """Importing torch takes longer than reading hundreds of run folders."""
    code = "import bdlf.reporting.figure, bdlf.reporting.render, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def public_objects():
    for file in FILES:
        name = ".".join(("bdlf", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        module = import_module(name)
        yield name, module
        for attribute, value in vars(module).items():
            if attribute.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{name}.{attribute}", value


def test_everything_public_is_documented():
    undocumented = [
        name
        for name, value in public_objects()
        if not inspect.getdoc(value) and name != "bdlf" and not name.startswith("bdlf.config.")
    ]
    assert not undocumented, undocumented


def test_docstrings_name_only_arguments_that_exist():
    """`name` at the start of a docstring's list item is a parameter or a public attribute."""
    wrong = []
    for name, value in public_objects():
        if (
            inspect.ismodule(value)
            or name.startswith("bdlf.config.")
            or (inspect.isclass(value) and issubclass(value, Exception))
        ):
            continue
        known = set(inspect.signature(value).parameters) | set(dir(value)) | set(getattr(value, "__annotations__", {}))
        items = re.findall(r"^ *- ((?:`\w+`(?:, | and )?)+)(?: \[|:| [a-z])", inspect.getdoc(value) or "", re.MULTILINE)
        for item in re.findall(r"`(\w+)`", " ".join(items)):
            if item not in known and name not in OF_OTHERS:
                wrong.append(f"{name}: {item}")
    assert not wrong


OF_OTHERS = ("bdlf.objective.correlations", "bdlf.methods.bdlf.dfe.DetailExtractor")
"""Their lists name what is returned, and fields of the options."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = target.glob("*.whl")
    return file


def test_the_wheel_runs_from_another_folder(wheel, tmp_path):
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {
        "bdlf/" + path.relative_to(ROOT).as_posix()
        for folder in ("conf", "sweeps")
        for path in (ROOT / folder).rglob("*.yaml")
    }
    assert inside <= names and "bdlf/py.typed" in names
    scripts = next(name for name in names if name.endswith("entry_points.txt"))
    assert zipfile.ZipFile(wheel).read(scripts).decode().count(":main") == 8
    assert not any(name.startswith(("tests/", "conf/", "notebooks/")) for name in names)
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "site")], check=True)
    (tmp_path / "work").mkdir()
    code = (
        "import bdlf, runpy, sys; print(bdlf.__file__); sys.argv = ['train', 'sweeps=table2', '--cfg', 'job']; "
        "runpy.run_module('bdlf.train', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "work",
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site")) and "sweep: table2" in done.stdout
    assert not list((tmp_path / "work").iterdir())
    other = (
        "import bdlf.config; from hydra import compose, initialize_config_module as found\n"
        "with found('bdlf.conf', version_base='1.3'): print(compose('config', ['dfe.stage=2']).dfe.stage)"
    )
    done = subprocess.run([sys.executable, "-c", other], cwd=tmp_path / "site", capture_output=True, text=True)
    assert done.stdout == "2\n", done.stderr
