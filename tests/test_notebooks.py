"""The notebooks run from top to bottom, and the outputs that are stored in them are those that they give."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


class ThisPython(KernelSpecManager):
    """A kernel of the Python that runs the tests, whatever `python3` is for this user."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python"
        )


def texts(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """What every code cell prints or shows as text."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs] for cell in cells]


def test_there_are_notebooks():
    assert NAMES == ["one_run", "results"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_shipped_executed_and_without_traces_of_a_machine(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not re.search(r"/(home|root|tmp|work|Users)/", "".join(text for cell in texts(notebook) for text in cell))


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_gives_what_it_ships(name, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the kernel's threads would wait for processors that other tests use
    shutil.copytree(FOLDER, tmp_path / "notebooks")
    shipped = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    manager = AsyncKernelManager(kernel_spec_manager=ThisPython(), kernel_name="python3")
    NotebookClient(
        notebook, km=manager, timeout=300, resources={"metadata": {"path": tmp_path / "notebooks"}}
    ).execute()
    pictures = re.compile(r"<(Figure|Axes|Image)|object at 0x")
    for given, expected in zip(texts(notebook), texts(shipped), strict=True):
        assert [text for text in given if not pictures.search(text)] == [
            text for text in expected if not pictures.search(text)
        ]
