"""Files of features made to exhaust or take over the machine that scores them are refused soon, with little memory."""

from __future__ import annotations

import io
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bdlf.data import listing
from bdlf.evaluation import features_file
from bdlf.evaluation.features_file import read_features
from bdlf.system.errors import InputError

TABLE = listing(
    "synthetic", None, synthetic={"seed": 0, "train_identities": 2, "test_identities": 4, "images_per_identity": 2}
)
TEST = TABLE[TABLE["split"] == "test"]
ROWS = len(TEST)
INTACT = {
    "features": np.random.default_rng(0).normal(size=(ROWS, 5)),
    "pids": TEST["pid"].to_numpy(),
    "camids": TEST["camid"].to_numpy(),
    "modalities": TEST["modality"].to_numpy(dtype=str),
    "paths": TEST["path"].to_numpy(dtype=str),
}


def npy(shape: tuple[int, ...], dtype: object, content: bytes = b"") -> bytes:
    """A .npy file whose header may say something else than its content."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def pack(file: Path, members: dict[str, bytes], folder: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in INTACT.items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{folder}{name}.npy", members.get(name, stream.getvalue()))
    return file


HEADER = b"\x93NUMPY\x01\x00"
CALL = b"__import__('pathlib').Path('taken').touch()".ljust(80)
HOSTILE = {
    "declares petabytes": ({"features": npy((10**9, 10**6), "<f4")}, "pids has shape"),
    "declares more than there are numbers": ({"features": npy((2**62, 2**62), "<f4")}, "pids has shape"),
    "declares less than nothing": ({"features": npy((-5, 3), "<f4")}, "pids has shape"),
    "unpacks to gigabytes": ({"features": npy((10**8, 5), "<f4", bytes(10**7))}, "pids has shape"),
    "wide": ({"features": npy((ROWS, 10**12), "<f4")}, "GiB"),
    "long texts": ({"paths": npy((ROWS,), "<U500000000"), "pids": npy((ROWS,), "<i8")}, "GiB"),
    "texts of no length": ({"paths": npy((10**12,), "<U0")}, "paths has shape"),
    "many rows": (
        {name: npy((10**9, 1) if name == "features" else (10**9,), "|u1") for name in INTACT},
        "1,000,000,000 features",
    ),
    "a pickle": ({"features": npy((ROWS, 5), "|O", b"cposix\nsystem\n(S'touch taken'\ntR.")}, "pickles"),
    "a pickle in the texts": ({"paths": npy((ROWS,), "|O", b"cposix\nsystem\n(S'touch taken'\ntR.")}, "pickles"),
    "code in a header": ({"features": HEADER + len(CALL).to_bytes(2, "little") + CALL}, "cannot be read"),
    "a header without end": ({"features": HEADER + b"\x10\x00" + b"[" * 16}, "cannot be read"),
    "no array": ({"features": b"text"}, "cannot be read"),
    "cut short": ({"features": npy((ROWS, 5), "<f4", b"1234")}, "cannot be read"),
    "complex": ({"features": npy((ROWS, 5), "<c16", bytes(80 * ROWS))}, "complex128"),
    "records": ({"features": npy((ROWS, 5), [("a", "<f4")], bytes(20 * ROWS))}, "images x dimensions"),
    "infinite": ({"features": npy((ROWS, 5), "<f2", b"\x00\x7c" * 5 * ROWS)}, "not finite"),
    "half surrogates": ({"paths": npy((ROWS,), "<U1", b"\x00\xd8\x00\x00" * ROWS)}, "twice"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_features_are_refused_by_name(kind, tmp_path, monkeypatch):
    members, part = HOSTILE[kind]
    monkeypatch.chdir(tmp_path)
    file = pack(tmp_path / "theirs.npz", members)
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(InputError, match=part) as caught:
        read_features(file, TABLE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "theirs.npz" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert time.perf_counter() - started < 5 and peak < 10 << 20
    assert list(tmp_path.iterdir()) == [file]


def test_members_with_paths_are_not_taken_for_arrays(tmp_path):
    with pytest.raises(InputError, match="lacks the array 'features'"):
        read_features(pack(tmp_path / "theirs.npz", {}, folder="../"), TABLE)
    assert len(list(tmp_path.parent.glob("features*"))) == 0


def test_what_is_refused_by_size_would_be_read_if_smaller(tmp_path, monkeypatch):
    file = pack(tmp_path / "theirs.npz", {})
    assert read_features(file, TABLE)[0].shape == (ROWS, 5)
    monkeypatch.setattr(features_file, "_MOST_ROWS", ROWS - 1)
    with pytest.raises(InputError, match="at most 15"):
        read_features(file, TABLE)
