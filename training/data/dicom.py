"""DICOM to 8-bit grey or RGB: stored values -> rescale -> window -> grey, as PS3.3 C.7.6, C.11.1 and C.11.2 say.

Grey        rescale slope and intercept (or the modality table); then the first window of the file, by its function, or
            its table; without either, the image's own 0.5th to 99.5th percentile. MONOCHROME1 is inverted, so that more
            is always brighter.
Colour      RGB, YBR and palette to RGB.
Padding     black (PixelPaddingValue), and left out of the percentiles.
Frames      the middle one: frames are slices or moments, and the first is often empty.
Enhanced    rescale and window of functional groups (shared or per frame) are not read: the percentiles decide.
Overlays, annotations and the patient's data are not looked at.
"""

import io
import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.pixels import check_pixels, percentile_window, to_grey
from training.errors import DataError

# Real archives break the standard in a hundred harmless ways, and pydicom warns and logs of each. Set once and for that
# package only: a temporary filter is not safe in threads.
warnings.filterwarnings("ignore", module=r"pydicom\..*")
logging.getLogger("pydicom").setLevel(logging.ERROR)

MAX_PIXEL_BYTES = 1 << 30
"""Pixel data of one frame, decoded. More is not tried."""
DEFLATED = "1.2.840.10008.1.2.1.99"
"""The transfer syntax that packs the whole file: nothing in it bounds what unpacking would fill."""


def decode_dicom(data: bytes, name: str) -> Image.Image:
    """The middle frame of a DICOM file, mode L or RGB.

    Raises:
        DataError: pydicom is not installed.
        ValueError: the file is deflated, or says that it has no pixels or absurdly many; pydicom raises other errors
            of its own.
    """
    try:
        from pydicom import dcmread
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
        from pydicom.pixels.utils import pixel_array
    except ImportError as error:
        raise DataError(
            f"{name} is a DICOM file and pydicom is not installed: pip install 'kg-targets[dicom]'"
        ) from error
    _refuse_deflated(data)
    image = dcmread(io.BytesIO(data), force=True)
    frames = _check_size(image)
    values = pixel_array(image, index=frames // 2)
    kind = str(image.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        values = apply_color_lut(values, image)
        return Image.fromarray(_bits_to_8(values, 8 * values.itemsize))
    if int(image.SamplesPerPixel) > 1:
        return Image.fromarray(_bits_to_8(values, int(image.BitsStored)))
    padding = values == image.get("PixelPaddingValue")
    known = np.where(padding, np.nan, apply_modality_lut(values, image).astype(np.float64))
    grey = _windowed(known, image)
    if kind == "MONOCHROME1":
        np.subtract(255, grey, out=grey)
    grey[padding] = 0
    return Image.fromarray(grey)


def _refuse_deflated(data: bytes) -> None:
    """Look at the file meta information before ``dcmread``, which unpacks a deflated file in full before anything else.

    Raises:
        ValueError: the file is deflated.
    """
    from pydicom import filereader

    stream = io.BytesIO(data)
    filereader.read_preamble(stream, force=True)
    # The very function that dcmread decides by: its public form takes no stream, and a reading of our own could be
    # made to differ from it.
    meta = filereader._read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") == DEFLATED:
        raise ValueError("the deflated transfer syntax is not read: convert the file")


def _check_size(image: Any) -> int:
    """Number of frames.

    Raises:
        ValueError: there are no pixels, or one frame has too many.
    """
    rows, columns = int(image.get("Rows") or 0), int(image.get("Columns") or 0)
    if rows < 1 or columns < 1:
        raise ValueError("it holds no image")
    check_pixels(columns, rows)
    samples, bits = int(image.get("SamplesPerPixel") or 1), int(image.get("BitsAllocated") or 8)
    if rows * columns * samples * bits > 8 * MAX_PIXEL_BYTES:
        raise ValueError(f"{columns} x {rows} pixels of {samples * bits} bits are too many")
    return max(1, int(image.get("NumberOfFrames") or 1))


def _bits_to_8(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if bits <= 8:
        return values.astype(np.uint8)
    return (values.astype(np.uint32) >> (bits - 8)).astype(np.uint8)


def _windowed(values: NDArray[np.float64], image: Any) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_voi

    centre, width = _first(image.get("WindowCenter")), _first(image.get("WindowWidth"))
    if centre is not None and width is not None and np.isfinite([centre, width]).all() and width > 0:
        function = str(image.get("VOILUTFunction") or "LINEAR")
        if function == "SIGMOID":  # PS3.3 C.11.2.1.3.1
            exponent = np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)
            return to_grey(1.0 / (1.0 + np.exp(exponent)), 0.0, 1.0)
        if function == "LINEAR_EXACT":  # C.11.2.1.3.2
            return to_grey(values, centre - width / 2, centre + width / 2)
        if width > 1:  # C.11.2.1.2: (x - (c - 0.5)) / (w - 1) + 0.5 goes from 0 to 1
            return to_grey(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
        return to_grey(values, centre - 0.5, np.nextafter(centre - 0.5, np.inf))  # a threshold
    if image.get("VOILUTSequence"):
        bits = int(image.VOILUTSequence[0].LUTDescriptor[2])
        return to_grey(
            apply_voi(np.nan_to_num(values).astype(np.int64), image).astype(np.float64), 0.0, 2.0**bits - 1
        )
    return to_grey(values, *percentile_window(values))


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value if isinstance(value, str | int | float) else next(iter(value), "nan"))
