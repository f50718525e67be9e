"""Every README: its commands compose or run, its links work, and its tables agree with the code."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bdlf.config import Config
from bdlf.reporting.options import parse
from bdlf.terms import TERMS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("bdlf", "conf", "sweeps", "notebooks", "tests")
"""A checkout may also hold data, results and environments, with READMEs of their own."""
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted(page for name in FOLDERS for page in (ROOT / name).rglob("README.md"))]
}
FIRST, CONF = PAGES["README.md"], PAGES["conf/README.md"]
RECORDED = sorted((ROOT / "notebooks" / "runs").glob("synthetic/full-*/seed0"))[0].relative_to(ROOT)
"""Stands for RUN, a run folder of the reader's own."""
OTHER_TOOLS = ("python3 -m venv ", "python -m pip install ", "wandb sync ", "jupyter lab ", "ruff check ", ".ci/run")
"""Lines of shell that are tested elsewhere, or that are other programs' own."""


FOLLOWED = re.compile(r"^## Adding a (dataset|loss term|method)\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
"""Sections with steps that change the package; tests of their rooms follow them in a copy."""
STANDING = {page: FOLLOWED.sub("", text) for page, text in PAGES.items()}
"""What holds for the package as it is."""


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def shell_lines(text: str) -> list[str]:
    """The lines of all blocks of shell, continued lines joined, without comments."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [line for full in blocks.splitlines() if (line := re.sub(r"(^|\s)#.*", "", full).strip())]


def own_command(line: str) -> tuple[str, str] | None:
    """The name and the arguments of our command in a line, or None."""
    if match := re.search(r"python -m bdlf\.(\w+)(?: (.*))?$", line):
        return match[1], match[2] or ""
    if match := re.match(r"sbatch .*?sweeps/slurm/job\.sh (.*)$", line):
        return "train", match[1]
    return None


COMMANDS = sorted(
    {
        found
        for text in STANDING.values()
        for line in [*shell_lines(text), *re.findall(r"`([^`\n]+)`", without_code(text))]
        if (found := own_command(line))
    }
)


def test_all_pages_and_their_commands_are_found():
    assert len(PAGES) >= 11
    assert len(COMMANDS) >= 40
    names = {"train", "evaluate", "check", "synthesize", "report", "benchmark", "probe", "visualize"}
    assert {name for name, _ in COMMANDS} == names


@pytest.mark.parametrize(("name", "arguments"), COMMANDS)
def test_a_command_of_a_readme_composes(command, name, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(re.sub(r"\bRUN\b", RECORDED.as_posix(), arguments))
    words = [word.replace("=interval(", "=choice(") for word in words if word not in ("-m", "--help", "--cfg", "job")]
    if name == "report":
        parse(words or ["outputs"])
        return
    code, out, err = command(name, "--help", *words)
    assert code == 0, err
    examples = out.rstrip().splitlines()[-3:]
    assert all(re.match(rf"  python -m bdlf\.{name}\b", line) for line in examples), "--help ends in three examples"


@pytest.mark.parametrize("page", PAGES)
def test_every_line_of_shell_is_understood(page):
    for line in shell_lines(PAGES[page]):
        if pytest_words := re.match(r"python -m pytest(?: -m (slow|gpu))?((?: tests\S*)*)$", line):
            assert all((ROOT / path).exists() for path in pytest_words[2].split()), line
        else:
            assert own_command(line) or line.startswith(OTHER_TOOLS), f"no test looks at: {line}"


PYTHON = [block for text in STANDING.values() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("block", [block for block in PYTHON if "outputs" not in block])
def test_a_block_of_python_runs(start_python, block, tmp_path):
    process = start_python("-c", block, place=tmp_path, environment=ENVIRONMENT)
    _, err = process.communicate()
    assert process.poll() == 0, err


def test_blocks_of_python_that_read_run_folders_run(start_python, finished_run, tmp_path):
    blocks = [block for block in PYTHON if "outputs" in block]
    assert len(blocks) >= 2
    finished_run().rename(tmp_path / "run")
    program = "\n".join(blocks).replace("outputs/synthetic/full-1a2b3c4d/seed0", "run").replace('"outputs"', '"run"')
    process = start_python("-c", program, place=tmp_path, environment=ENVIRONMENT)
    _, err = process.communicate()
    assert process.poll() == 0, err


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    titles = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(PAGES[page])):
        path, _, heading = target.partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        assert place.exists(), f"{page} links to {target}"
        if heading:
            assert heading in headings(place.read_text(encoding="utf-8")), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_code_that_a_readme_names_exist(page):
    for name in re.findall(r"`([\w./]+\.(?:py|ipynb|sh))`", STANDING[page]):
        known = [path for folder in FOLDERS for path in (ROOT / folder).rglob(Path(name).name)]
        assert any(path.as_posix().endswith(f"/{name}") for path in known), f"{page} names {name}"


@pytest.mark.parametrize("page", PAGES)
def test_the_source_is_easy_to_read(page):
    for number, line in enumerate(PAGES[page].splitlines(), 1):
        widest = 110 if line.startswith("|") else 120
        assert len(line) <= widest, f"{page}:{number} has {len(line)} characters, at most {widest} are wanted"


def test_the_first_page_is_short_and_starts_with_the_two_commands():
    assert len(FIRST.splitlines()) <= 100
    assert re.search(r"pip install [^&\n]*&& .venv/bin/python -m bdlf\.train\n", FIRST[:2500])
    assert re.search(r"pip install [^&\n]*test[^&\n]*&& .venv/bin/python -m pytest\n", FIRST[:2500])


def test_every_page_is_reached_from_the_first_one():
    reached, new = set(), {"README.md"}
    while new:
        reached |= new
        links = {(page, target) for page in new for target in re.findall(r"\]\(([^)#\s]+README\.md)", PAGES[page])}
        new = {((ROOT / page).parent / target).resolve().relative_to(ROOT).as_posix() for page, target in links}
        new -= reached
    assert reached == set(PAGES)


def table_rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables whose first cell is one word in backticks: the other cells by that word."""
    rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `"))
    return {cells[0].strip("`"): cells[1:] for cells in rows if re.fullmatch(r"`[\w/]+`", cells[0])}


def options_on_disk() -> dict[str, set[str]]:
    """The options of every group of a run."""
    groups: dict[str, set[str]] = {"sweeps": {path.stem for path in (ROOT / "sweeps").glob("*.yaml")}}
    for path in (ROOT / "conf").glob("*/**/*.yaml"):
        group = path.parent.relative_to(ROOT / "conf").as_posix()
        if not group.startswith(("on_disk", "parts")):
            groups.setdefault(group, set()).add(path.stem)
    return groups


@pytest.mark.parametrize(("group", "options"), sorted(options_on_disk().items()))
def test_conf_readme_names_every_option(group, options):
    row = table_rows(CONF)[group]
    if (term := group.removeprefix("loss/")) in TERMS:
        assert options == ({"on", "off", "as_group"} if row[0] else {"on", "off"})
        assert row[1] == TERMS[term].equation
        return
    named = row[0]
    if "below" in named:
        (named,) = re.findall(rf"^- `{group}` has .*?\.$", CONF, re.MULTILINE | re.DOTALL)
    known = set(re.findall(r"`(\w[\w-]*)`", named)) - ({group} if group not in options else set())
    for stem, first, last in re.findall(r"`(\w+?)(\d)` to `\1(\d)`", named):
        known |= {f"{stem}{number}" for number in range(int(first), int(last) + 1)}
    assert known == options


def test_conf_readme_names_no_group_that_there_is_not():
    named = {word for word in table_rows(CONF) if "/" in word}
    assert named <= set(options_on_disk())


def test_conf_readme_names_every_key():
    named = set(re.findall(r"`(\w+)(?:\.\*)?`", CONF))
    assert {field.name for field in dataclasses.fields(Config)} - {"loss"} <= named


def test_the_figures_of_the_ablation_are_what_the_report_says():
    words = [sys.executable, "-m", "bdlf.report", "notebooks/runs"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout
    first, *_ = re.findall(r"^Table 2.*?ir_to_vis.*?^Beside", said, re.MULTILINE | re.DOTALL)
    figure, difference = r"\d+\.\d ± \d+\.\d", r"[+-]\d+\.\d \[-\d+\.\d, \+\d+\.\d\]"
    shown = FIRST.partition("## What comes out")[2].partition("\n## ")[0]
    rows = [re.findall(figure, line)[:2] for line in first.splitlines() if re.search(figure, line)]
    assert [re.findall(figure, line) for line in shown.splitlines() if re.search(figure, line)] == rows
    assert len(rows) == 7
    of_map = [re.findall(difference, line)[1] for line in first.splitlines() if re.search(difference, line)]
    assert re.findall(difference, shown) == of_map
    others = PAGES["bdlf/reporting/README.md"].partition("## The recorded ablation")[2]
    figures = re.findall(figure, others) + re.findall(difference, others)
    assert len(figures) == 14 + 28 + 6 + 14 and not [one for one in figures if one not in said]
