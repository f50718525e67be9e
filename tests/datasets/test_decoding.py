"""Every mode of Pillow, written to a file and read back as 8-bit RGB by the rule of bdlf/datasets/decoding.py."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageMode

from bdlf.data import listing
from bdlf.data.store import open_store
from bdlf.datasets import decoding
from bdlf.datasets.decoding import WIDE, BadImageError, grey_levels, read_image, to_rgb
from bdlf.system.errors import InputError

RANDOM = np.random.default_rng(3)
LEVELS = RANDOM.integers(0, 256, (7, 5), dtype=np.uint8)
COLOURS = RANDOM.integers(0, 256, (7, 5, 3), dtype=np.uint8)
CELSIUS = np.linspace(3640, 19256, 35)[RANDOM.permutation(35)].reshape(7, 5).round()
NATIVE, OTHER = ("<", ">") if sys.byteorder == "little" else (">", "<")
BOTH_ENDS = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": f"{NATIVE}u2", "I": f"{NATIVE}i4"}


def opaque(colours):
    return np.dstack([colours, np.full(colours.shape[:2], 255, np.uint8)])


def with_palette(mode, colours):
    """An image whose palette has the 35 colours in a random order."""
    image = Image.new(mode, (5, 7))
    places = RANDOM.permutation(35)
    palette = np.zeros((256, 3), np.uint8)
    palette[places] = colours.reshape(35, 3)
    image.putpalette(palette.tobytes())
    pixels = places.astype(np.uint8).reshape(7, 5)
    if mode == "PA":
        image.putdata([(int(place), 255) for place in places])
    else:
        image.putdata([int(place) for place in pixels.ravel()])
    return image


def wide(mode):
    if mode == "F":
        return Image.fromarray((CELSIUS / 10).astype(np.float32))
    return Image.frombytes(mode, (5, 7), CELSIUS.astype(BOTH_ENDS[mode]).tobytes())


def stretched(values):
    """0..255, by plain loops."""
    low, high = min(map(min, values.tolist())), max(map(max, values.tolist()))
    return [[[round(255 * (value - low) / (high - low))] * 3 for value in row] for row in values.tolist()]


def grey(levels):
    return np.dstack([levels] * 3)


def as_pillow(mode, source):
    image = Image.frombytes(mode, (5, 7), source.tobytes())
    return image, np.asarray(image.convert("RGB"))


HSV, YCC = as_pillow("HSV", COLOURS), as_pillow("YCbCr", COLOURS)
BITS = LEVELS > 127
MODES = {  # mode: (image, format that stores the mode or None, RGB or the word of the refusal)
    "1": (Image.fromarray(BITS), "PNG", grey(BITS * np.uint8(255))),
    "L": (Image.fromarray(LEVELS), "BMP", grey(LEVELS)),
    "P": (with_palette("P", COLOURS), "PNG", COLOURS),
    "RGB": (Image.fromarray(COLOURS), "PNG", COLOURS),
    "RGBX": (Image.frombytes("RGBX", (5, 7), opaque(COLOURS).tobytes()), None, COLOURS),
    "RGBA": (Image.fromarray(opaque(COLOURS)), "PNG", COLOURS),
    "RGBa": (Image.frombytes("RGBa", (5, 7), opaque(COLOURS).tobytes()), None, COLOURS),
    "LA": (Image.fromarray(opaque(LEVELS[..., None]).astype(np.uint8)), "PNG", grey(LEVELS)),
    "La": (Image.frombytes("La", (5, 7), opaque(LEVELS[..., None]).tobytes()), None, grey(LEVELS)),
    "PA": (with_palette("PA", COLOURS), "TIFF", COLOURS),
    "HSV": (HSV[0], None, HSV[1]),
    "YCbCr": (YCC[0], "TIFF", YCC[1]),
    "CMYK": (Image.frombytes("CMYK", (5, 7), opaque(COLOURS).tobytes()), "JPEG", "mode CMYK, whose colours need a"),
    "LAB": (Image.frombytes("LAB", (5, 7), COLOURS.tobytes()), "TIFF", "mode LAB, whose colours need a profile"),
    "I;16": (wide("I;16"), "PNG", stretched(CELSIUS)),
    "I;16B": (wide("I;16B"), "TIFF", stretched(CELSIUS)),
    "I;16L": (wide("I;16L"), None, stretched(CELSIUS)),  # the file says I;16
    "I;16N": (wide("I;16N"), None, stretched(CELSIUS)),
    "I": (wide("I"), "TIFF", stretched(CELSIUS)),
    "F": (wide("F"), "TIFF", stretched(CELSIUS)),
}


def test_the_table_has_every_mode_of_pillow():
    """A mode that a later version of Pillow adds has no rule yet."""
    assert set(MODES) == set(Image.MODES)
    integers = {"I;16", "I;16L", "I;16B", "I;16N"}
    assert set(WIDE) == {"I", "F"} | integers
    for mode in set(Image.MODES) - set(WIDE):
        assert ImageMode.getmode(mode).typestr in ("|u1", "|b1"), "the others have 8 bits at most"


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_by_its_rule_or_refused(mode, tmp_path):
    image, kind, expected = MODES[mode]
    assert image.mode == mode
    if kind is None:  # no format stores it
        for name in decoding.FORMATS:
            try:
                image.save(tmp_path / "x", name)
            except OSError:
                continue
            with Image.open(tmp_path / "x", formats=decoding.FORMATS) as back:
                assert back.mode != mode
        found = np.asarray(to_rgb(image))
    else:
        file = tmp_path / f"x.{kind.lower()}"
        image.save(file, kind)
        with Image.open(file) as back:
            assert back.mode == mode
        if isinstance(expected, str):
            with pytest.raises(BadImageError, match=expected):
                read_image(str(file), to_rgb)
            return
        found = read_image(str(file), lambda one: np.asarray(to_rgb(one)))
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def listed(paths, modality="ir"):
    return pd.DataFrame({"path": paths, "pid": 1, "camid": 1, "modality": modality, "split": "train"})


def save_wide(file, values, dtype=np.uint16):
    Image.fromarray(np.asarray(values, dtype)).save(file)


def test_the_range_is_the_files_or_the_sets_or_the_types(tmp_path):
    values = {"a.png": [[1000, 2000], [1500, 3000]], "b.png": [[4000, 2500], [5000, 4500]], "v.png": [[0, 65535]] * 2}
    for name, own in values.items():
        save_wide(tmp_path / name, own)
    Image.fromarray(np.array([[7, 250], [9, 0]], np.uint8)).save(tmp_path / "8.png")
    table = listed(["b.png", "a.png", "8.png", "v.png"], ["ir", "ir", "ir", "vis"])

    def stored(how, rows=table):
        images = open_store(rows, tmp_path, 2, 2, cache_dir=tmp_path / "cache", value_range=how)
        assert (images[..., :1] == images).all()
        return dict(zip(rows["path"], images[..., 0].tolist(), strict=True))

    eight = {"8.png": [[7, 250], [9, 0]]}  # as it is, whatever is asked
    full_v = {"v.png": [[0, 255]] * 2}
    of_file = {"a.png": [[0, 128], [64, 255]], "b.png": [[153, 0], [255, 204]], **eight, **full_v}
    assert stored("file") == of_file
    of_set = {"a.png": [[0, 64], [32, 128]], "b.png": [[191, 96], [255, 223]], **eight, **full_v}
    assert stored("set") == of_set, "of the files of one modality"
    assert stored("set", table.iloc[::-1].reset_index(drop=True)) == of_set, "in any order"
    assert stored("full")["b.png"] == [[16, 10], [19, 18]] and stored("full")["v.png"] == full_v["v.png"]
    assert len([*(tmp_path / "cache").iterdir()]) == 4, "one cache of each range"
    assert stored("file") == of_file
    with pytest.raises(InputError, match=r"image\.range='own' is not known; known: file, set, full"):
        stored("own")


def test_a_16_bit_thermal_image_keeps_its_contrast_and_agrees_with_its_8_bit_version(tmp_path):
    """What was stored as white before: all values of a thermal camera lie above 255."""
    values = RANDOM.integers(3640, 19257, (48, 32))
    save_wide(tmp_path / "16.png", values)
    Image.fromarray(np.array(stretched(values), np.uint8)).save(tmp_path / "8.png")
    images = open_store(listed(["16.png", "8.png"]), tmp_path, 24, 16, cache_dir=tmp_path / "cache")
    assert np.array_equal(images[0], images[1]) and images[0].std() > 20


@pytest.mark.parametrize(
    ("values", "how", "words"),
    [
        (np.array([[1.0, np.nan], [np.inf, 2]], np.float32), "file", "mode F, 2 of 4 pixels are NaN or infinite"),
        (np.array([[1.0, 2.0]], np.float32), "full", "mode F, which has no whole range .* image.range=file or set"),
        (np.array([[1, 2]], np.int32), "full", "mode I, which has no whole range of 16 bits"),
    ],
)
def test_wide_pixels_that_no_rule_covers_are_refused_by_file_and_mode(tmp_path, values, how, words):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=rf"1 of 1 images .*x\.tif \({words}"):
        open_store(listed(["x.tif"]), tmp_path, 2, 2, cache_dir=tmp_path / "cache", value_range=how)


def patched(image, tag, before, after):
    """The image as TIFF whose tag has another value."""
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    content = buffer.getvalue()
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for value in (before, after)]
    assert content.count(entries[0]) == 1
    return content.replace(*entries)


def test_32_bits_are_signed_or_not_as_the_file_says(tmp_path):
    (tmp_path / "signed.tif").write_bytes(patched(Image.fromarray(np.array([[-5, 10, 25]], np.int32)), 339, 2, 2))
    unsigned = Image.fromarray(np.array([[0, 2**31, 2**32 - 1]], np.uint32).view(np.int32))
    (tmp_path / "unsigned.tif").write_bytes(patched(unsigned, 339, 2, 1))
    for name in ("signed", "unsigned"):
        found = read_image(str(tmp_path / f"{name}.tif"), lambda image: np.asarray(to_rgb(image))[..., 0].tolist())
        assert found == [[0, 128, 255]]


def test_levels_of_a_span():
    values = np.array([[-1.0, 0.0, 0.1, 0.5, 1.0, 2.0]])
    assert grey_levels(values, (0.0, 1.0)).tolist() == [[0, 0, 26, 128, 255, 255]]
    assert not grey_levels(values, (3.0, 3.0)).any()


def transparent_palette(file):
    with_palette("P", COLOURS).save(file, transparency=bytes([255] * 3 + [0] + [255] * 252))


def colour_key(file):
    Image.fromarray(LEVELS).save(file, transparency=int(LEVELS[2, 3]))


def wide_key(file):
    image = wide("I;16")
    image.save(file, transparency=int(CELSIUS[2, 3]))


def half_alpha(file):
    pixels = opaque(COLOURS)
    pixels[4, 2, 3] = 254
    Image.fromarray(pixels).save(file, "PNG")


@pytest.mark.parametrize(
    ("save", "mode"), [(transparent_palette, "P"), (colour_key, "L"), (wide_key, "I;16"), (half_alpha, "RGBA")]
)
def test_transparent_pixels_are_refused(tmp_path, save, mode):
    save(tmp_path / "x.png")
    with pytest.raises(BadImageError, match=rf"mode {mode}, \d+ of 35 pixels are not opaque"):
        read_image(str(tmp_path / "x.png"), to_rgb)


def test_a_transparent_colour_that_no_pixel_has_plays_no_part(tmp_path):
    absent = next(level for level in range(256) if level not in LEVELS)
    Image.fromarray(LEVELS).save(tmp_path / "x.png", transparency=absent)
    assert np.array_equal(read_image(str(tmp_path / "x.png"), lambda image: np.asarray(to_rgb(image))), grey(LEVELS))


def png_of(bits, colour, rows):
    """A PNG of a kind that Pillow cannot write."""

    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 2, len(rows), bits, colour, 0, 0, 0)
    lines = b"".join(b"\0" + np.asarray(row, ">u2").tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_16_bits_that_pillow_cuts_down(tmp_path):
    (tmp_path / "grey.png").write_bytes(png_of(16, 4, [[3640, 65535, 19256, 65535]]))
    with pytest.raises(BadImageError, match="16-bit grey with alpha, of which Pillow delivers 8 bits"):
        read_image(str(tmp_path / "grey.png"), to_rgb)
    (tmp_path / "rgb.png").write_bytes(png_of(16, 2, [[0x12FF, 0x3400, 0x56AA, 0xFFFF, 0, 0x80]]))
    found = read_image(str(tmp_path / "rgb.png"), lambda image: np.asarray(to_rgb(image)).tolist())
    assert found == [[[0x12, 0x34, 0x56], [0xFF, 0, 0]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "MPO"])
def test_a_file_of_several_frames_is_refused(tmp_path, kind):
    frames = [Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1])]
    file = tmp_path / "x.png"
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(BadImageError, match="mode RGB, several frames"):
        read_image(str(file), to_rgb)


@pytest.mark.parametrize(("kind", "orientation"), [*((k, o) for k in ("PNG", "JPEG", "TIFF") for o in (1, 3, 6, 8))])
def test_exif_orientation_is_applied_once(tmp_path, kind, orientation):
    upright = Image.fromarray(np.kron(COLOURS, np.ones((8, 8, 1), np.uint8)))
    lying = upright.rotate({1: 0, 3: 180, 6: 90, 8: -90}[orientation], expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying.save(tmp_path / "x", kind, exif=exif, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    found = read_image(str(tmp_path / "x"), lambda image: np.asarray(to_rgb(image)).astype(int))
    assert np.abs(found - np.asarray(upright)).max() <= (12 if kind == "JPEG" else 0)


def test_a_wide_image_is_turned_too_and_damaged_exif_data_count_as_none(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide("I;16").save(tmp_path / "x.png", exif=exif)
    found = read_image(str(tmp_path / "x.png"), lambda image: np.asarray(to_rgb(image)))
    assert np.array_equal(found, np.rot90(stretched(CELSIUS), -1))
    Image.fromarray(COLOURS).save(tmp_path / "y.png", exif=b"Exif\0\0no header of EXIF data")
    assert np.array_equal(read_image(str(tmp_path / "y.png"), lambda image: np.asarray(to_rgb(image))), COLOURS)


@pytest.mark.parametrize("compression", [None, "packbits", "tiff_lzw", "tiff_deflate", "jpeg", "zstd", "group4"])
def test_tiff_by_compression(tmp_path, compression):
    image = Image.fromarray(BITS) if compression == "group4" else wide("I;16")
    image = Image.fromarray(COLOURS) if compression == "jpeg" else image
    try:
        image.save(tmp_path / "x.tif", compression=compression)
    except (OSError, RuntimeError, ValueError):
        pytest.skip(f"this Pillow cannot write {compression}")
    if compression in ("jpeg", "zstd", "group4"):
        with pytest.raises(BadImageError, match=rf"mode {image.mode}, TIFF compressed by {compression}"):
            read_image(str(tmp_path / "x.tif"), to_rgb)
    else:
        found = read_image(str(tmp_path / "x.tif"), lambda one: np.asarray(to_rgb(one)))
        assert np.array_equal(found, stretched(CELSIUS))


def test_a_wide_tiff_whose_lowest_value_is_white_is_refused(tmp_path):
    (tmp_path / "x.tif").write_bytes(patched(wide("I;16"), 262, 1, 0))
    with pytest.raises(BadImageError, match=r"mode I;16 with white as the lowest value"):
        read_image(str(tmp_path / "x.tif"), to_rgb)


def test_tiff_files_are_listed(written_tree):
    tree = written_tree("regdb")
    name = tree.first_image("Thermal")
    (tree / name).unlink()
    save_wide(tree / name.replace(".bmp", ".tif"), CELSIUS)
    for file in (tree / "idx").iterdir():
        file.write_text(file.read_text().replace(name, name.replace(".bmp", ".tif")))
    report = tree.inspected()
    assert report["ok"], report["findings"]
    assert name.replace(".bmp", ".tif") in set(listing("regdb", tree.root)["path"])


def several_frames(file):
    Image.fromarray(COLOURS).save(file, "PNG", save_all=True, append_images=[Image.fromarray(COLOURS + 1)])


def inks(file):
    Image.fromarray(COLOURS).convert("CMYK").save(file, "JPEG")


def not_a_number(file):
    Image.fromarray(np.array([[1, np.nan]], np.float32)).save(file, "TIFF")


def test_check_refuses_what_training_refuses(written_tree):
    tree, expected = written_tree("regdb"), {}
    images = iter(sorted((tree / "Thermal").rglob("*.bmp")))
    for save, kind, remedy in (
        (several_frames, "image of several frames", "keep one frame of it"),
        (inks, "image mode that is not read", "convert it to RGB"),
        (half_alpha, "image with transparent pixels", "put it on a background of your choice"),
        (not_a_number, "NaN or infinite pixels", "replace these pixels in it"),
    ):
        file = next(images)
        save(file)
        expected[kind, file.relative_to(tree.root).as_posix()] = remedy
    found = {(one["kind"], one["where"]): one["message"] for one in tree.inspected()["findings"]}
    assert found.keys() == expected.keys()
    assert all(found[place].endswith(f": {remedy}") for place, remedy in expected.items())


def test_what_is_refused_is_named_with_all_remedies(tmp_path):
    inks(tmp_path / "a.png")
    several_frames(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("text")
    with pytest.raises(InputError) as caught:
        open_store(listed(["a.png", "b.png", "c.png"]), tmp_path, 2, 2, cache_dir=tmp_path / "cache")
    start, end = "3 of 3 images", "convert them to RGB; or keep one frame of them; or restore them from the dataset"
    message = str(caught.value)
    assert message.startswith(start) and message.endswith(f"c.png (not an image): {end}") and "\n" not in message
    assert "a.png (mode CMYK, whose colours need a profile)" in message


@pytest.mark.parametrize(
    ("kind", "name"),
    [("GIF", "GIF"), ("WEBP", "WebP"), ("JPEG2000", "JPEG 2000"), ("PPM", "PPM"), ("AVIF", "AVIF or HEIC")],
)
def test_an_image_of_another_format_is_refused_by_its_name(tmp_path, kind, name):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {kind}")
    Image.fromarray(COLOURS).save(tmp_path / "x.jpg", format=kind)
    line = rf"x\.jpg \({name}, and only JPEG, PNG, BMP and TIFF are read\): store them as PNG$"
    with pytest.raises(InputError, match=line):
        open_store(listed(["x.jpg"]), tmp_path, 2, 2, cache_dir=tmp_path / "cache")
