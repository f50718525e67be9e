"""Modules that a command loads at its start are never collected as garbage."""

from __future__ import annotations

import gc
import sys

import pytest

from bdlf.system.memory import load


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a module that notes whether garbage is collected while it is imported."""
    (tmp_path / "seldom.py").write_text(
        "import gc\ncollecting = gc.isenabled()\nkept = [[number] for number in range(1000)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "seldom"
    sys.modules.pop("seldom", None)
    gc.unfreeze()


@pytest.mark.parametrize("collects", [True, False])
def test_no_collection_while_it_comes_and_none_of_it_afterwards(module, collects):
    before = gc.get_freeze_count()
    if not collects:
        gc.disable()
    try:
        load(module)
        assert gc.isenabled() is collects, "as it was"
    finally:
        gc.enable()
    assert sys.modules[module].collecting is False
    assert gc.get_freeze_count() > before + 1000


def test_collections_go_on_where_there_is_no_such_module():
    with pytest.raises(ModuleNotFoundError):
        load("bdlf.no_such_module")
    assert gc.isenabled()
    gc.unfreeze()
