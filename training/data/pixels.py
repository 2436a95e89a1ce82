"""Sizes of images that are decoded, and the values of a deep image that become black and white."""

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 1 << 27
"""134 million pixels of one frame; decoding needs up to 4 bytes for each. More counts as a decompression bomb."""
MAX_ASPECT = 100
"""Longer side over shorter side. Resizing the shorter side to the model's would make such an image huge."""
PERCENTILES = (0.5, 99.5)
"""A few outliers (a metal clip, a burnt-in label, padding) must not take the whole range."""


def percentile_window(values: NDArray[np.float64]) -> tuple[float, float]:
    """The values that become black and white: ``PERCENTILES``, or least and greatest where those coincide.

    Raises:
        ValueError: no value is a finite number.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no pixel has a finite value")
    low, high = (float(value) for value in np.percentile(finite, PERCENTILES))
    if low == high:
        low, high = float(finite.min()), float(finite.max())
    return low, high


def to_grey(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Linear from ``low`` (0) to ``high`` (255), clipped; an image of one value, and NaN, become black. Any shape."""
    if not high > low:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled = np.nan_to_num((values - low) * (255.0 / (high - low)), nan=0.0, posinf=255.0, neginf=0.0)
    return np.asarray(np.rint(np.clip(scaled, 0.0, 255.0)), dtype=np.uint8)


def check_pixels(width: int, height: int) -> None:
    """Refuse sizes that would fill the memory, here or when the image is resized.

    Raises:
        ValueError: they would.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, at most {MAX_PIXELS:,} are decoded")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"{width} x {height} pixels, one side is over {MAX_ASPECT} times the other")
