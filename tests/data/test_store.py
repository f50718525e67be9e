from __future__ import annotations

import collections
import errno
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bdlf.data import store
from bdlf.data.store import cache_folder, open_store
from bdlf.system.errors import InputError


@pytest.mark.parametrize(("caches", "home", "folder"), [("", "/h", "/h/.cache/bdlf"), ("/c", "/h", "/c/bdlf")])
def test_the_cache_is_in_the_users_folder_for_caches(caches, home, folder, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", caches)
    monkeypatch.setenv("HOME", home)
    assert cache_folder() == folder


def test_without_a_home_the_remedy_is_another_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where no home folder is known
    with pytest.raises(InputError, match=r"data\.cache_dir="):
        cache_folder()


NAMES = ["a/rgb.jpg", "a/gray.png", "b/palette.png", "b/alpha.PNG", "b/exact.bmp"]


@pytest.fixture
def tree(tmp_path):
    """Images of several modes and sizes, the last already 12 x 8, and their listing."""
    random, root = np.random.default_rng(0), tmp_path / "root"
    for folder in "ab":
        (root / folder).mkdir(parents=True)
    modes = {"a/rgb.jpg": "RGB", "a/gray.png": "L", "b/palette.png": "P", "b/alpha.PNG": "RGBA", "b/exact.bmp": "RGB"}
    for name, mode in modes.items():
        height, width = (12, 8) if "exact" in name else random.integers(10, 60, 2)
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        image.convert(mode).save(root / name)
    return root, make_listing(NAMES)


def make_listing(paths):
    return pd.DataFrame({"path": paths, "pid": range(len(paths)), "camid": 1, "modality": "vis", "split": "train"})


def reference(root, paths, height=12, width=8):
    images = []
    for path in paths:
        image = Image.open(root / path).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        images.append(np.array(image))
    return np.stack(images)


@pytest.fixture
def decoded(monkeypatch):
    """The files decoded so far."""
    files, decode = [], store._decode
    monkeypatch.setattr(store, "_decode", lambda file, *size: files.append(file) or decode(file, *size))
    return files


def test_rows_are_the_listed_images_as_pillow_resizes_them(tree, tmp_path, monkeypatch):
    root, listing = tree
    monkeypatch.setattr(store, "_CHUNK", 2)
    images = open_store(listing, root, 12, 8, cache_dir=tmp_path / "cache")
    assert isinstance(images, np.memmap)
    assert images.dtype == np.uint8
    assert np.array_equal(images, reference(root, NAMES))
    assert np.array_equal(images[4], np.array(Image.open(root / "b/exact.bmp")))
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]


def test_a_second_opening_reads_no_image(tree, tmp_path, decoded):
    root, listing = tree
    first = open_store(listing, root, 12, 8, cache_dir=tmp_path / "cache")
    assert len(decoded) == 5
    moved = root.rename(tmp_path / "moved")
    second = open_store(listing, moved, 12, 8, cache_dir=tmp_path / "cache")
    assert len(decoded) == 5
    assert np.array_equal(first, second)


def test_whatever_changes_the_pixels_changes_the_cache(tree, tmp_path, decoded):
    root, listing = tree
    cache = tmp_path / "cache"
    open_store(listing, root, 12, 8, cache_dir=cache)

    def decodes(listing=listing, height=12, width=8, **options):
        decoded.clear()
        images = open_store(listing, root, height, width, cache_dir=cache, **options)
        assert np.array_equal(images, reference(root, listing["path"], height, width))
        return len(decoded) == len(listing)

    assert decodes(height=8, width=12)
    assert decodes(make_listing(NAMES[::-1]))
    assert decodes(make_listing(NAMES[:-1]))
    assert decodes(name="llcm")
    assert len(list(cache.glob("llcm-12x8-*.npy"))) == 1
    file = root / "b/exact.bmp"
    time = file.stat().st_mtime_ns
    content = bytearray(file.read_bytes())
    content[-1] ^= 255  # same size, another pixel
    file.write_bytes(content)
    os.utime(file, ns=(time, time + 1))
    assert decodes()
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(file)
    os.utime(file, ns=(time, time + 1))
    assert decodes()
    assert not decodes()


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def drop_the_middle(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:300] + whole[400:])


def lengthen(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:300] + b"x" + whole[300:])


def foreign(file):
    np.save(file.with_suffix(""), np.zeros((5, 12, 8, 3), np.uint8))


def empty(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, halve, drop_the_middle, lengthen, foreign, empty])
def test_a_damaged_or_foreign_cache_is_made_again(tree, tmp_path, decoded, damage):
    root, listing = tree
    open_store(listing, root, 12, 8, cache_dir=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    damage(file)
    images = open_store(listing, root, 12, 8, cache_dir=tmp_path / "cache")
    assert np.array_equal(images, reference(root, NAMES))
    assert len(decoded) == 10
    assert [*(tmp_path / "cache").iterdir()] == [file]


def test_all_files_that_cannot_be_decoded_are_named_and_nothing_is_cached(tree, tmp_path, monkeypatch, decoded):
    root, _ = tree
    monkeypatch.setattr(store, "_CHUNK", 2)
    (root / "text.jpg").write_text("not an image")
    (root / "zero.png").write_bytes(b"")
    whole = (root / "a/rgb.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    listing = make_listing(["text.jpg", *NAMES, "zero.png", "cut.jpg"])
    with pytest.raises(InputError) as caught:
        open_store(listing, root, 12, 8, cache_dir=tmp_path / "cache")
    message = str(caught.value)
    assert "3 of 8 images" in message
    assert "text.jpg (not an image), zero.png (empty), cut.jpg (" in message
    assert "truncated" in message
    assert "\n" not in message
    assert len(decoded) == 8
    assert not [*(tmp_path / "cache").iterdir()]


def test_only_the_first_bad_files_are_named_of_many(tree, tmp_path):
    root, _ = tree
    for k in range(7):
        (root / f"{k}.jpg").write_text("x")
    with pytest.raises(InputError, match=r"7 of 7 .*: 0\.jpg .*, 4\.jpg \(not an image\), \.\.\.: restore"):
        open_store(make_listing([f"{k}.jpg" for k in range(7)]), root, 12, 8, cache_dir=tmp_path / "cache")


@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_refused(tree, tmp_path, monkeypatch):
    root, _ = tree
    Image.new("RGB", (40, 30)).save(root / "large.png")
    # Pillow itself only warns up to twice its limit.
    for limit, reason in ((1199, "40 x 30 pixels, more than the 1199 allowed"), (500, "Image size .1200 pixels.")):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match=rf"1 of 1 .*large\.png \({reason}"):
            open_store(make_listing(["large.png"]), root, 12, 8, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1200)
    open_store(make_listing(["large.png"]), root, 12, 8, cache_dir=tmp_path / "cache")


def test_a_listed_file_that_is_absent_is_named(tree, tmp_path):
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read \(No such file"):
        open_store(make_listing(["gone.jpg"]), tree[0], 12, 8, cache_dir=tmp_path / "cache")


def test_a_full_disk_is_told_and_leaves_nothing(tree, tmp_path, monkeypatch, decoded):
    root, listing = tree
    cache = tmp_path / "cache"

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"image cache .* \(No space left on device; .* set data\.cache_dir"):
            open_store(listing, root, 12, 8, cache_dir=cache)
    assert not [*cache.iterdir()]
    decoded.clear()
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage(10**6, 10**6, 5 * 12 * 8 * 3 - 1))
    with pytest.raises(InputError, match="No space left"):
        open_store(listing, root, 12, 8, cache_dir=cache)
    assert not decoded, "known before any work is done"
    with pytest.raises(InputError, match=r"cannot write the image cache"):
        open_store(listing, root, 12, 8, cache_dir=root / "a/rgb.jpg")


def drawing(value=0, seen=None):
    def render(rows, height, width):
        if seen is not None:
            seen.extend(rows["path"])
        assert list(rows.index) == list(range(len(rows)))
        levels = rows["pid"].to_numpy(np.uint8)[:, None, None, None] * 10 + value
        return np.broadcast_to(levels.astype(np.uint8), (len(rows), height, width, 3))

    return render


def test_a_rendered_listing_is_drawn_once_and_anew_when_rows_or_drawing_change(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_CHUNK", 7)
    paths = [f"{k}.png" for k in range(20)]
    listing, seen = make_listing(paths).assign(hair=0.5), []

    def drawn(listing, value=0):
        seen.clear()
        images = open_store(listing, None, 4, 3, cache_dir=tmp_path, render=drawing(value, seen))
        assert images.shape == (20, 4, 3, 3)
        assert np.array_equal(images[:, 3, 2, 1], listing["pid"] * 10 + value)
        return seen[-20:] == listing["path"].tolist()

    assert drawn(listing)
    assert not drawn(listing)
    changed = listing.copy()
    changed.loc[3, "hair"] = 0.6
    assert drawn(changed)
    assert drawn(listing.iloc[[0, 1, 2, 4, 3, *range(5, 20)]].reset_index(drop=True))
    assert drawn(listing, value=1)


def test_an_interrupted_drawing_leaves_nothing(tmp_path):
    calls = []

    def render(rows, height, width):
        calls.append(len(rows))
        if len(calls) > 1:
            raise KeyboardInterrupt
        return drawing()(rows, height, width)

    listing = make_listing(["0.png", "1.png"])
    with pytest.raises(KeyboardInterrupt):
        open_store(listing, None, 4, 3, cache_dir=tmp_path, render=render)
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_stored_is_refused(tree, tmp_path):
    root, listing = tree
    for rows, place, height, render, message in (
        (listing.iloc[:0], root, 12, None, "no images"),
        (listing, root, 0, None, "image size 0 x 8"),
        (listing, None, 12, None, "either the dataset's root or a function"),
        (listing, root, 12, drawing(), "either the dataset's root or a function"),
    ):
        with pytest.raises(InputError, match=message):
            open_store(rows, place, height, 8, cache_dir=tmp_path / "cache", render=render)
