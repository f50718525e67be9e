from __future__ import annotations

import json

import pytest

from bdlf.system.errors import InputError
from bdlf.system.files import read_json, write_atomically, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "before")

    def fails_half_way(file):
        file.write(b"half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_atomically(path, fails_half_way)
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    def full(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"result\.json cannot be written: No space left on device"):
        write_atomically(tmp_path / "result.json", full)
    assert not list(tmp_path.iterdir())


def test_json_holds_no_nan_and_a_cut_file_is_named(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"x": float("nan")})
    assert not path.exists()
    write_json(path, {"x": [1, None]})
    assert read_json(path) == {"x": [1, None]} == json.loads(path.read_text())
    path.write_text('{"x": [1,')
    with pytest.raises(InputError, match=r"a\.json"):
        read_json(path)
