"""Abdominal ultrasound: a fan of speckle, with shadows behind stones and enhancement behind fluid."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from pipelines.demo.canvas import SIZE, Array, Canvas, Point, ramp
from pipelines.demo.study import Case, Series

_APEX = (0.0, -1.35)


def draw_ultrasound(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw the liver or a kidney (``series.view``) in a sector; return the centre of the finding, if any."""
    c = canvas
    c.paint(np.ones((SIZE, SIZE), np.float32), 0.42)
    c.pixels[...] += 0.05 * c.noise(7.0)
    for depth in (-0.84, -0.76, -0.7):  # skin and fascia near the probe
        c.paint(0.6 * ramp(np.abs(_depth(c) - (depth - _APEX[1])) - 0.008, 0.03), 0.8)
    spot = _liver(c, case) if series.view == "liver" else _kidney(c, case)
    _speckle(c)
    return spot


def _depth(c: Canvas) -> Array:
    return np.hypot(c.x - np.float32(_APEX[0]), c.y - np.float32(_APEX[1]))


def _beam(c: Canvas) -> Array:
    """Angle of the beam through every pixel, radians from straight down."""
    return np.arctan2(c.x - np.float32(_APEX[0]), c.y - np.float32(_APEX[1]))


def _behind(c: Canvas, at: Point, r: float) -> Array:
    """Mask of the strip of beams that pass a disc of radius ``r``, beyond the disc."""
    depth = float(np.hypot(at[0] - _APEX[0], at[1] - _APEX[1]))
    angle = float(np.arctan2(at[0] - _APEX[0], at[1] - _APEX[1]))
    return ramp(np.abs(_beam(c) - angle) * depth - r, 0.06) * ramp(depth + 0.5 * r - _depth(c), 0.06)


def _liver(c: Canvas, case: Case) -> Point | None:
    """Liver with veins, diaphragm and gallbladder."""
    rng, size = c.rng, case.severity
    surface = c.ellipse((0.0, 0.0), 0.92, 0.66, angle=-0.15)
    if case.finding == "ascites":
        c.paint(c.ellipse((0.0, 0.02), 1.3, 0.8), 0.03)
        surface = c.ellipse((-0.06, -0.08), 0.66 - 0.1 * size, 0.46 - 0.06 * size, angle=-0.15)
    c.paint(surface, 0.52)
    for path in (
        [(0.1, 0.3), (0.0, 0.0), (-0.25, -0.25)],
        [(0.0, 0.0), (0.28, -0.2)],
        [(-0.45, 0.2), (-0.3, 0.0)],
    ):
        c.paint(c.stroke(path, 0.06) * surface, 0.07)
    c.paint(
        ramp(np.abs(c.radius((0, -0.1), 1.1, 0.86) - 1) - 0.012, 0.03) * ramp(-c.y, 0.2), 1.0
    )  # diaphragm
    bladder = (0.3, 0.2)
    c.add(_behind(c, bladder, 0.14), 0.16)
    c.paint(c.ellipse(bladder, 0.17, 0.26, angle=0.5), 0.7)
    c.paint(c.ellipse(bladder, 0.14, 0.23, angle=0.5), 0.03)
    at = (-0.36 + rng.normal(0, 0.03), -0.12 + rng.normal(0, 0.03))
    if case.finding == "liver mass":
        r = 0.2 + 0.06 * size
        c.paint(c.blob(at, r * 1.15, rough=0.2, soft=0.05), 0.2)
        c.paint(c.blob(at, r, rough=0.2, soft=0.05), 0.82)
        return at
    if case.finding == "hepatic cyst":
        _cyst(c, at, 0.16 + 0.07 * size)
        return at
    if case.finding == "gallstones":
        for dx, dy in ((0.0, 0.08), (0.09, 0.13), (-0.04, 0.0))[: 2 + (size > 0.5)]:
            _stone(c, (bladder[0] + dx, bladder[1] + dy), 0.05)
        return bladder
    return (0.5, -0.3) if case.finding == "ascites" else None


def _kidney(c: Canvas, case: Case) -> Point | None:
    """A kidney lengthwise: dark cortex, dark pyramids, bright sinus, liver or spleen above it."""
    size = case.severity
    f = c.local((0, 0.1), angle=0.25 * case.side, wide=case.side)
    f.paint(f.ellipse((-0.1, -0.62), 1.1, 0.38), 0.56)
    f.paint(f.ellipse((0, 0), 0.68, 0.36), 0.75)
    f.paint(f.ellipse((0, 0), 0.65, 0.33), 0.3)
    for k in range(6):
        angle = k * np.pi / 3 + 0.5
        f.paint(f.ellipse((0.46 * np.cos(angle), 0.21 * np.sin(angle)), 0.08, 0.07, soft=0.05), 0.18)
    f.paint(f.ellipse((0, 0), 0.38, 0.14, soft=0.09), 0.92)
    if case.finding == "hydronephrosis":
        grow = 1 + 0.4 * size
        f.paint(f.ellipse((0, 0.02), 0.22 * grow, 0.13 * grow), 0.02)
        for dx in (-0.28, 0.0, 0.28):
            f.paint(f.ellipse((dx * grow, -0.08), 0.1 * grow, 0.1 * grow), 0.02)
        return (0, 0.1)
    if case.finding == "renal cyst":
        at = (0.42 * case.side, 0.02)
        _cyst(c, at, 0.2 + 0.07 * size)
        return at
    if case.finding == "kidney stone":
        at = (0.1 * case.side, 0.12)
        _stone(c, at, 0.085 + 0.02 * size)
        return at
    return None


def _cyst(c: Canvas, at: Point, r: float) -> None:
    c.add(_behind(c, at, r * 0.85), 0.28)
    c.paint(c.ellipse(at, r + 0.02, r + 0.02), 0.75)
    c.paint(c.ellipse(at, r, r), 0.02)


def _stone(c: Canvas, at: Point, r: float) -> None:
    c.pixels[...] *= 1 - 0.9 * _behind(c, at, r)
    c.paint(c.ellipse(at, r, 0.6 * r), 1.25)


def _speckle(c: Canvas) -> None:
    """Multiply by Rayleigh speckle, coarser across the beam than along it; attenuate; cut the sector."""
    grain = gaussian_filter(c.rng.rayleigh(1.0, (SIZE, SIZE)).astype(np.float32), (0.6, 0.95))
    c.pixels[...] *= np.clip(0.25 + 0.62 * grain, 0, 1.9)
    depth = _depth(c)
    c.pixels[...] *= np.clip(1.12 - 0.16 * depth, 0, 1)
    c.pixels[...] *= ramp(np.abs(_beam(c)) - 0.66, 0.012) * ramp(0.42 - depth, 0.02) * ramp(depth - 2.2, 0.02)
