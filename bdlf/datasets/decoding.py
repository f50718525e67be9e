"""Turns an image file into 8-bit RGB: which files and which modes of Pillow are read, by which rule, or refused.

- L, RGB: as stored. 1: 0 becomes 0, and 1 becomes 255. P: the colours of the palette. RGBX: the X is dropped.
- YCbCr, HSV: converted to RGB by Pillow.
- I;16, I;16L, I;16B, I;16N, I, F: grey of more than 8 bits. `image.range` says which values become black and white;
  see `grey_levels`.
- LA, La, PA, RGBA, RGBa, and any other mode with a transparent colour: read if all pixels are opaque, else refused.
- CMYK, LAB: refused, because their colours are not defined without a colour profile.

Other files that are refused: files of several frames, NaN and infinite pixels, 16-bit grey with alpha (of which Pillow
delivers only 8 bits), TIFF files whose compression is not LZW, Deflate or PackBits, and TIFF files of more than 8 bits
whose lowest value is white. Of 16-bit colour, the higher 8 bits are read, because Pillow delivers only those. The EXIF
orientation is applied, as every viewer does (the released datasets have none). EXIF data that cannot be read are
ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bdlf.system.errors import InputError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
"""The formats of the datasets and of thermal cameras. No other decoder of Pillow is trusted with unknown files."""
RANGES = {
    "file": "the lowest value of each file becomes black and its highest white",
    "set": "the lowest value among a modality's files becomes black and the highest white",
    "full": "0 becomes black and 65535 white",
}
"""Values of `image.range`, and what each does with grey values of more than 8 bits."""
WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Modes of Pillow that hold grey values of more than 8 bits."""
_SIGNATURES = {  # how files of other formats begin; a dot stands for any byte
    "GIF": rb"GIF8",
    "WebP": rb"RIFF....WEBP",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "PPM": rb"P[1-6]\s",
    "AVIF or HEIC": rb"....ftyp(avi|hei|mif)",
}
_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate")
"""Compressions of TIFF files. No other decoder of libtiff (JPEG, CCITT, ZSTD, ...) is trusted with unknown files."""
_NO_PROFILE = ("CMYK", "LAB")
_WHITE_IS_ZERO, _PHOTOMETRIC, _SAMPLE_FORMAT = 0, 262, 339  # a value of the tag Photometric, and two tags of TIFF
_RESTORE = "restore {} from the dataset"

T = TypeVar("T")
Span = tuple[float, float]
"""The value that becomes black and the value that becomes white."""


class BadImageError(ValueError):
    """An image file that cannot be used.

    `kind` names the cause and is the same text for every file with this cause; the message says more. `remedy` is a
    sentence with {} where "it" or "them" belongs.
    """

    def __init__(self, kind: str, message: str, remedy: str = _RESTORE) -> None:
        super().__init__(message)
        self.kind, self.remedy = kind, remedy


def check_range(value_range: str) -> None:
    """Raises `InputError` for a value that `image.range` cannot have."""
    if value_range not in RANGES:
        raise InputError(f"image.range='{value_range}' is not known; known: {', '.join(RANGES)}")


def read_image(file: str, use: Callable[[Image.Image], T]) -> T:
    """Decodes the image in `file`, turns it upright, and returns what `use` makes of it.

    Raises `BadImageError` for a file that cannot be used.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                pixels = f"{image.width} x {image.height} pixels, more than the {limit} allowed"
                raise BadImageError("image too large", pixels)
            _require_plain_file(image)
            return use(_upright(image))
    except UnidentifiedImageError as error:
        raise _unidentified(file) from error
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError("image too large", " ".join(str(error).split())) from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
        why = " ".join(str(error).split()) or type(error).__name__
        raise BadImageError("image truncated or damaged", why) from error


def _unidentified(file: str) -> BadImageError:
    """The error for a file that is in none of `FORMATS`."""
    with open(file, "rb") as stream:
        start = stream.read(16)
    if not start:
        return BadImageError("empty image", "empty")
    for name, signature in _SIGNATURES.items():
        if re.match(signature, start, re.DOTALL):
            why = f"{name}, and only {', '.join(FORMATS[:-1])} and {FORMATS[-1]} are read"
            return BadImageError("image format that is not read", why, "store {} as PNG")
    return BadImageError("not an image", "not an image")


def _require_plain_file(image: Image.Image) -> None:
    """Raises `BadImageError` for a file whose header says that it cannot be read."""
    if getattr(image, "is_animated", False):
        why = f"mode {image.mode}, several frames, where one image is expected"
        raise BadImageError("image of several frames", why, "keep one frame of {}")
    tiles = getattr(image, "tile", [])  # how the pixels are stored in the file
    stored = str(tiles[0][3]) if tiles else ""
    if "LA;16" in stored:
        why = "16-bit grey with alpha, of which Pillow delivers 8 bits"
        raise BadImageError("image mode that is not read", why, "store {} without alpha")
    if image.format == "TIFF":
        compression = image.info.get("compression")
        if compression not in _COMPRESSIONS:
            why = f"mode {image.mode}, TIFF compressed by {compression}"
            raise BadImageError("image mode that is not read", why, "store {} as PNG, or as TIFF without compression")
        if image.mode in WIDE and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # type: ignore[attr-defined]
            why = f"mode {image.mode} with white as the lowest value (PhotometricInterpretation 0)"
            raise BadImageError("image mode that is not read", why, "store {} with black as the lowest value")


def _upright(image: Image.Image) -> Image.Image:
    """The image with all pixels decoded, turned as its EXIF data say. Pillow turns TIFF files by itself."""
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raise errors of many kinds; the pixels are not affected
        return image
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def to_rgb(image: Image.Image, value_range: str = "file", span: Span | None = None) -> Image.Image:
    """Converts an image of any mode to 8-bit RGB, by the rules at the top of this file.

    `value_range` is `image.range`. If it is `set`, `span` is the range of all images of the set. Both matter only to
    grey values of more than 8 bits. Raises `BadImageError` for a mode that is refused.
    """
    if image.mode in WIDE:
        values = grey_values(image)
        return Image.fromarray(grey_levels(values, _span(image.mode, values, value_range, span))).convert("RGB")
    if image.mode in _NO_PROFILE:
        why = f"mode {image.mode}, whose colours need a profile"
        raise BadImageError("image mode that is not read", why, "convert {} to RGB")
    mode = image.mode
    if mode == "La":
        image = image.convert("LA")  # Pillow cannot convert La to RGBA directly
    if image.has_transparency_data:
        image = image.convert("RGBA")
        transparent = np.count_nonzero(np.asarray(image.getchannel("A")) != 255)
        if transparent:
            why = f"mode {mode}, {transparent:,} of {image.width * image.height:,} pixels are not opaque"
            raise BadImageError("image with transparent pixels", why, "put {} on a background of your choice")
    return image.convert("RGB")


def grey_values(image: Image.Image) -> ndarray:
    """The (h, w) float64 values of an image whose mode is in `WIDE`.

    Raises `BadImageError` for NaN and infinite values, and for pixels that are not opaque.
    """
    stored = np.asarray(image)
    if image.mode == "I" and image.format == "TIFF" and image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] == 1:  # type: ignore[attr-defined]
        stored = stored.astype(np.uint32)  # the file says unsigned; Pillow reads the values as signed
    values = stored.astype(np.float64)
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        why = f"mode {image.mode}, {bad:,} of {values.size:,} pixels are NaN or infinite"
        raise BadImageError("NaN or infinite pixels", why, "replace these pixels in {}")
    key = image.info.get("transparency")
    transparent = 0 if key is None else np.count_nonzero(values == key)
    if transparent:
        why = f"mode {image.mode}, {transparent:,} of {values.size:,} pixels are not opaque"
        raise BadImageError("image with transparent pixels", why, "put {} on a background of your choice")
    return values


def grey_levels(values: ndarray, span: Span) -> UInt8[ndarray, "h w"]:
    """Converts grey values to 8-bit levels: round(255 (v - low) / (high - low)). If low equals high, all become black.

    `image.range` says what the span (low, high) is:

    - file (default): the lowest and highest value of the file itself. Each image then has the full contrast of 8 bits,
      as the released 8-bit datasets of gain-controlled cameras have. No image depends on another: no test image
      influences a training image, and a dead pixel spoils one image only. The absolute temperature is lost.
    - set: the lowest and highest value over all files of more than 8 bits of the same modality in the listing (test
      images included). Temperatures stay comparable between images, but one dead pixel lowers the contrast of all.
    - full: 0..65535, whatever the values are. For 16-bit files that use the whole range; others come out nearly flat.
    """
    low, high = span
    scale = 255 / (high - low) if high > low else 0.0
    levels: ndarray = np.clip(np.rint((values - low) * scale), 0, 255).astype(np.uint8)
    return levels


def _span(mode: str, values: ndarray, value_range: str, of_set: Span | None) -> Span:
    if value_range == "full":
        if not mode.startswith("I;16"):
            why = f"mode {mode}, which has no whole range of 16 bits"
            raise BadImageError("image mode that is not read", why, "set image.range=file or set to read {}")
        return 0.0, 65535.0
    if value_range == "set" and of_set is not None:
        return of_set
    return float(values.min()), float(values.max())
