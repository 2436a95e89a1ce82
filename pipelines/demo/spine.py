"""The lumbar spine from the side: sagittal T1 and T2 MR, and a lateral radiograph."""

from __future__ import annotations

import numpy as np

from pipelines.demo.canvas import Canvas, Point, ramp
from pipelines.demo.study import Case, Series

_TISSUE = {
    "t1": {
        "fat": 0.9,
        "muscle": 0.35,
        "bone": 0.58,
        "ill": 0.25,
        "cortex": 0.1,
        "disc": 0.36,
        "water": 0.12,
        "cord": 0.42,
        "belly": 0.4,
    },
    "t2": {
        "fat": 0.72,
        "muscle": 0.2,
        "bone": 0.45,
        "ill": 0.68,
        "cortex": 0.06,
        "disc": 0.78,
        "water": 1.0,
        "cord": 0.38,
        "belly": 0.3,
    },
    "x-ray": {
        "fat": 0.18,
        "muscle": 0.26,
        "bone": 0.62,
        "ill": 0.72,
        "cortex": 0.85,
        "disc": 0.3,
        "water": 0.3,
        "cord": 0.3,
        "belly": 0.24,
    },
}

_LEVELS = (-1.0, -0.68, -0.36, -0.04, 0.28, 0.6)
_ILL = 3
"""Index of the vertebra that breaks, and of the disc below it that slips."""


def draw_spine(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw a lumbar spine, front at the image's left; return the centre of the finding, if any."""
    mri = series.modality == "mri"
    tissue = _TISSUE[series.view if mri else "x-ray"]
    c = canvas.local(wide=case.habitus)
    c.paint(c.column([-1.4, 0.0, 1.4], [-1.3, -1.3, -1.3], [0.84, 0.72, 0.92], soft=0.04), tissue["fat"])
    c.paint(c.column([-1.4, 0.0, 1.4], [-1.3, -1.3, -1.3], [0.68, 0.56, 0.7], soft=0.04), tissue["muscle"])
    c.paint(c.column([-1.4, 0.0, 1.4], [-1.3, -1.3, -1.3], [-0.5, -0.56, -0.4], soft=0.04), tissue["belly"])
    if mri:
        _canal(c, tissue)
    _processes(c, tissue)
    for k, y in enumerate(_LEVELS):
        _vertebra(c, k, y, case, tissue)
    x, angle = _curve(0.98)
    sacrum = c.local((x, 0.98), angle=angle + 0.35)
    sacrum.paint(sacrum.column([-0.22, 0.4], [-0.22, -0.12], [0.2, 0.05]), tissue["bone"])
    if case.finding == "normal":
        return None
    y = _LEVELS[_ILL] + (0.16 if case.finding == "disc herniation" else 0.0)
    return (_curve(y)[0] + (0.24 if case.finding == "disc herniation" else 0.0), y)


def _curve(y: float) -> tuple[float, float]:
    """Lumbar lordosis: x of the column's centre at height y, and the tilt of a vertebra there (radians)."""
    return -0.16 - 0.1 * float(np.cos(1.7 * (y - 0.15))), -0.17 * float(np.sin(1.7 * (y - 0.15)))


def _canal(c: Canvas, tissue: dict[str, float]) -> None:
    """Dural sac with the cord that ends in it."""
    path = [(_curve(y)[0] + 0.33, y) for y in np.linspace(-1.3, 1.2, 9)]
    c.paint(c.stroke(path, 0.24), tissue["fat"])
    c.paint(c.stroke(path, 0.18), tissue["water"])
    c.paint(c.stroke(path[:3], 0.09), tissue["cord"])
    for dx in (-0.02, 0.04):
        c.paint(0.6 * c.stroke([(x + dx, y) for x, y in path[2:]], 0.014), tissue["cord"])


def _processes(c: Canvas, tissue: dict[str, float]) -> None:
    for y in _LEVELS:
        x, angle = _curve(y)
        f = c.local((x, y), angle=angle)
        f.paint(f.stroke([(0.5, 0.14), (0.68, 0.2)], 0.13), 0.9 * tissue["bone"])


def _vertebra(c: Canvas, k: int, y: float, case: Case, tissue: dict[str, float]) -> None:
    """A vertebral body and the disc below it; a wedge if it broke, a bulge if the disc slipped."""
    x, angle = _curve(y)
    f = c.local((x, y), angle=angle)
    ill = k == _ILL
    x_disc, angle_disc = _curve(y + 0.16)
    d = c.local((x_disc, y + 0.16), angle=angle_disc)
    slipped = ill and case.finding == "disc herniation"
    disc = 0.35 * tissue["disc"] if slipped else tissue["disc"]
    d.paint(d.ellipse((0.0, 0.0), 0.24, 0.045), disc)
    wedge = (0.1 + 0.05 * case.severity) if ill and case.finding == "fracture" else 0.0
    sunken = wedge * np.clip(0.6 - 3.5 * f.x, 0, 1.4)  # how far the upper plate has come down, most in front
    for inset, value in ((0.0, tissue["cortex"]), (0.02, tissue["ill"] if wedge else tissue["bone"])):
        waist = 0.225 - inset - 0.02 * (1 - np.square(np.clip(f.y / 0.12, -1, 1)))
        plates = np.maximum(f.y - (0.12 - inset), (sunken - 0.12 + inset) - f.y)
        f.paint(ramp(np.maximum(np.abs(f.x) - waist, plates)), value)
    if slipped:
        out = 0.1 + 0.04 * case.severity
        d.paint(d.ellipse((0.2 + 0.5 * out, 0.0), out, 0.06), disc if disc < 0.3 else 0.3)
