"""`bdlf.system.memory` gives the allocator the settings that its docstring names."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest

from bdlf.system.memory import available_memory, give_back_freed_memory, keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_glibc_takes_it():
    assert keep_freed_memory()


def test_no_block_is_mapped_or_trimmed_and_other_systems_are_left_alone(monkeypatch):
    told = {}
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(
        ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda key, value: told.update({key: value}) or 1)
    )
    assert keep_freed_memory() and told == {-4: 0, -1: -1}  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not keep_freed_memory()
    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_freed_memory()


def test_free_memory_is_given_back_where_that_can_be_told(monkeypatch):
    told = []
    monkeypatch.setattr("sys.platform", "linux")
    for library in (SimpleNamespace(malloc_trim=told.append), SimpleNamespace()):
        monkeypatch.setattr(ctypes, "CDLL", lambda _, library=library: library)
        give_back_freed_memory()
    assert told == [0]


def test_available_memory_is_the_systems_word_or_all_there_is(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(
        Path, "read_text", lambda _: "MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    3 kB\nBuffers: 2 kB\n"
    )
    assert available_memory() == 3 * 1024
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert available_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") > 2**27
