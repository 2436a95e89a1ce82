"""From an image file's bytes to 8-bit grey or RGB, whatever kind of image it is.

Kind                          becomes
8-bit grey, RGB, CMYK, 1-bit  grey or RGB, as Pillow converts them
palette, alpha                composed over black, the background of most medical images
16-bit, 32-bit, float         grey, windowed to its own 0.5th to 99.5th percentile (training/data/pixels.py)
several frames                the first one: later pages of a TIFF or MPO are often reduced copies
DICOM                         grey or RGB (training/data/dicom.py)
other formats                 refused, whatever the file is called (FORMATS)

EXIF orientation is applied. Images of ordinary kinds stay as Pillow decodes them, to the bit.
"""

import io
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from training.cores import own_cores
from training.data.dicom import decode_dicom
from training.data.pixels import check_pixels, percentile_window, to_grey
from training.errors import KGTargetsError, one_line

MAX_BYTES = 1 << 30
"""Larger files are not read: no image of a contrastive data set is, and a mistaken path may be."""

FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
"""Pillow's names of the formats that are read. Left to itself it tells the format by content and tries dozens, some of
which hand the bytes to other programs: EPS to Ghostscript."""

_DEEP = ("I", "F")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


class BrokenImage(Exception):  # noqa: N818 - it is counted; only too many of them are an error
    """An image cannot be had; the message says which one and why, on one line."""


def read_bytes(path: Path) -> bytes:
    """An image file's content.

    Raises:
        BrokenImage: it cannot be read, or is too large to be one.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                raise BrokenImage(f"{path} ({size:,} bytes)")
            return stream.read()
    except OSError as error:
        raise BrokenImage(f"{path} ({error.strerror or one_line(error)})") from error


def decode(data: bytes, name: str) -> Image.Image:
    """One image, mode L or RGB.

    Args:
        data: the file's content.
        name: what to call it in messages.

    Raises:
        BrokenImage: it cannot be decoded, is of another format, or is too large to be tried.
        DataError: it is a DICOM file and pydicom is not installed.
    """
    try:
        if data[128:132] == b"DICM" or name.lower().endswith((".dcm", ".dicom")):
            picture = decode_dicom(data, name)
            check_pixels(*picture.size)
            return picture
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            check_pixels(*image.size)
            image.load()
            return _plain(_upright(image))
    except (BrokenImage, KGTargetsError, MemoryError):
        raise
    except UnidentifiedImageError as error:  # its own message holds an address, which differs from run to run
        raise BrokenImage(
            f"{name} (not an image file that is read: {', '.join(FORMATS)} or DICOM)"
        ) from error
    except Exception as error:
        # Damaged bytes make decoders raise nearly anything, from struct.error to IndexError.
        raise BrokenImage(f"{name} ({one_line(error)})") from error


@cache
def _formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that the installed Pillow can open by name."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return image  # damaged EXIF says nothing about the pixels, which are there
    return ImageOps.exif_transpose(image) if turned else image


def _plain(image: Image.Image) -> Image.Image:
    """Mode L or RGB."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image.copy() if image.readonly else image
    if image.mode in _DEEP or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray(to_grey(values, *percentile_window(values)))
    if image.mode in _ALPHA or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La")
        coloured = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, coloured).convert("L" if grey else "RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def for_each(work: Callable[[int], Any], items: Sequence[int]) -> None:
    """Call ``work`` on every item, in threads, roughly in order; an error or Ctrl-C drops what has not begun.

    Raises:
        Exception: what the first failing call raised.
    """
    pool = ThreadPoolExecutor(max_workers=own_cores(), thread_name_prefix="images")
    try:
        for _ in pool.map(work, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
