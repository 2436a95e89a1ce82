"""The abdomen: axial CT and T2-weighted MR of one slice, a plain radiograph, and ultrasound of liver and kidney."""

import numpy as np
from scipy.ndimage import gaussian_filter

from pipelines.demo.canvas import SIZE, Array, Canvas, Point, ramp
from pipelines.demo.cases import Case, Series, tissues
from pipelines.demo.chest import draw_vertebra

_TISSUE = tissues("abdomen")


def draw_abdomen(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw an abdomen as CT, MR or radiograph; return the centre of the finding, if any."""
    c = canvas.local(wide=case.habitus)
    if series.modality == "x-ray":
        return _radiograph(c, case)
    tissue = _TISSUE["ct" if series.modality == "ct" else "t2"]
    c.paint(c.ellipse((0, 0), 0.95, 0.72), tissue["fat"])
    c.paint(c.ellipse((0, 0), 0.86, 0.63), tissue["muscle"])
    c.paint(c.ellipse((0, -0.02), 0.8, 0.57), 0.9 * tissue["fat"])
    _back(c, tissue)
    cavity = c.ellipse((0, -0.02), 0.8, 0.57)
    if case.finding == "ascites":
        c.paint(cavity * ramp(c.y - 0.42, 0.05) * (1 - c.ellipse((0, 0.42), 0.34, 0.34)), tissue["water"])
    _bowel(c, case, tissue)
    liver = _liver(c, case, tissue)
    _spleen(c, case, tissue)
    spots = {side: _kidney(c, case, side, tissue) for side in (-1, 1)}
    spot = _liver_lesion(c, case, liver, tissue)
    if case.finding in ("renal cyst", "kidney stone", "hydronephrosis"):
        spot = spots[case.side]
    c.pixels[...] += (0.03 if series.modality == "ct" else 0.02) * c.noise(0.8)
    if case.finding == "ascites":
        return (0.62, 0.0)
    return {"splenomegaly": (0.55, 0.1), "bowel obstruction": (0.1, -0.25)}.get(case.finding, spot)


def _back(c: Canvas, tissue: dict[str, float]) -> None:
    """Spine, psoas and back muscles, aorta and inferior vena cava."""
    for side in (-1, 1):
        c.paint(c.ellipse((side * 0.24, 0.54), 0.22, 0.11), tissue["muscle"])
        c.paint(c.ellipse((side * 0.2, 0.3), 0.075, 0.11), tissue["muscle"])
    draw_vertebra(c, (0, 0.3), tissue["bone"], tissue["canal"])
    c.paint(c.ellipse((0.06, 0.13), 0.065, 0.065), tissue["blood"])
    c.paint(c.ellipse((-0.11, 0.13), 0.075, 0.05), 0.93 * tissue["blood"])


def _liver(c: Canvas, case: Case, tissue: dict[str, float]) -> Array:
    """Liver with its vessels at the patient's right (image left), and the gallbladder; returns its mask."""
    shrink = 0.86 if case.finding == "ascites" else 1.0
    right = c.ellipse((-0.47, -0.05), 0.33 * shrink, 0.47 * shrink, angle=0.2)
    left = c.ellipse((-0.14, -0.3), 0.4 * shrink, 0.19 * shrink, angle=-0.12)
    liver = np.maximum(right, left)
    c.paint(liver, tissue["liver"])
    for path in (
        [(-0.2, -0.02), (-0.4, -0.1), (-0.6, -0.2)],
        [(-0.38, -0.1), (-0.58, 0.08)],
        [(-0.2, -0.1), (-0.15, -0.3)],
    ):
        c.paint(0.6 * c.stroke(path, 0.028) * liver, 0.9 * tissue["blood"])
    c.paint(c.ellipse((-0.26, -0.02), 0.075, 0.095, angle=0.3), tissue["bile"])
    if case.finding == "gallstones":
        for dx, dy in ((-0.015, 0.035), (0.03, 0.03), (-0.03, -0.01)):
            c.paint(c.ellipse((-0.26 + dx, -0.02 + dy), 0.03, 0.03), tissue["stone"])
    return liver


def _spleen(c: Canvas, case: Case, tissue: dict[str, float]) -> None:
    if case.finding == "splenomegaly":
        grow = 1 + 0.3 * case.severity
        c.paint(c.ellipse((0.52, 0.06), 0.23 * grow, 0.42, angle=-0.25), tissue["spleen"])
    else:
        c.paint(c.ellipse((0.63, 0.16), 0.11, 0.24, angle=0.25), tissue["spleen"])


def _bowel(c: Canvas, case: Case, tissue: dict[str, float]) -> None:
    """Stomach and loops with gas above fluid; dilated loops where the bowel is obstructed."""
    dilated = case.finding == "bowel obstruction"
    loops = [((0.38, -0.26), 0.26, 0.17)] if not dilated else []
    spots = [(0.14, -0.12), (0.36, 0.02), (0.08, 0.02), (0.5, -0.04)]
    if dilated:
        spots = [(0.12, -0.38), (0.42, -0.28), (0.16, -0.1), (0.5, 0.0), (0.3, -0.02)]
    for x, y in spots:
        r = (0.15 + 0.03 * case.severity) if dilated else c.rng.uniform(0.06, 0.09)
        loops.append(((x, y), r * 1.15, r))
    for (x, y), rx, ry in loops:
        inner = c.ellipse((x, y), rx - 0.03, ry - 0.03)
        c.paint(c.ellipse((x, y), rx, ry), tissue["bowel"])
        c.paint(inner, 0.5 * (tissue["water"] + tissue["bowel"]))
        c.paint(inner * ramp(c.y - (y - 0.1 * ry), 0.02), tissue["gas"])


def _kidney(c: Canvas, case: Case, side: int, tissue: dict[str, float]) -> Point:
    """One kidney with cortex, medulla and fatty sinus; returns the place of a finding in it."""
    ill = side == case.side
    f = c.local((side * 0.4, 0.28), wide=side)
    f.paint(f.ellipse((0, 0), 0.14, 0.17, angle=0.3), tissue["kidney"])
    f.paint(f.ellipse((-0.03, 0), 0.08, 0.1, angle=0.3), 0.85 * tissue["kidney"])
    f.paint(f.ellipse((-0.07, -0.01), 0.06, 0.06), tissue["fat"])
    if ill and case.finding == "hydronephrosis":
        grow = 1 + 0.35 * case.severity
        f.paint(f.ellipse((-0.06, 0), 0.1 * grow, 0.085 * grow), tissue["water"])
        for angle in (-0.9, 0.0, 0.9):
            calyx = (0.03 * grow * np.cos(angle), 0.1 * grow * np.sin(angle))
            f.paint(f.ellipse(calyx, 0.05, 0.045), tissue["water"])
    elif ill and case.finding == "renal cyst":
        r = 0.1 + 0.04 * case.severity
        f.paint(f.ellipse((0.1, -0.05), r, r), tissue["water"])
        return (side * 0.5, 0.23)
    elif ill and case.finding == "kidney stone":
        r = 0.04 + 0.015 * case.severity
        f.paint(f.ellipse((-0.045, 0.0), 1.2 * r, r), tissue["stone"])
        return (side * 0.355, 0.28)
    return (side * 0.38, 0.28)


def _liver_lesion(c: Canvas, case: Case, liver: Array, tissue: dict[str, float]) -> Point | None:
    at = (-0.56, -0.12 + 0.1 * float(c.rng.uniform()))
    if case.finding == "liver mass":
        r = 0.16 + 0.05 * case.severity
        c.paint(c.blob(at, r, rough=0.25) * liver, tissue["rim"])
        c.paint(c.blob(at, r * 0.82, rough=0.25, soft=0.05) * liver, tissue["tumour"])
        c.paint(c.blob(at, r * 0.3, rough=0.3, soft=0.06) * liver, 0.7 * tissue["tumour"])
        return at
    if case.finding == "hepatic cyst":
        r = 0.11 + 0.06 * case.severity
        c.paint(c.ellipse(at, r, r) * liver, tissue["water"])
        return at
    return (-0.26, -0.02) if case.finding == "gallstones" else None


def _radiograph(c: Canvas, case: Case) -> Point | None:
    c.paint(c.band([-1.4, -0.4, 0.2, 0.6, 1.4], [0.82, 0.8, 0.76, 0.82, 0.9], soft=0.1), 0.42)
    c.add(c.ellipse((-0.42, -0.55), 0.42, 0.4, soft=0.25), 0.1)  # liver
    for side in (-1, 1):
        c.add(c.ellipse((side * 0.4, -0.12), 0.13, 0.24, angle=-side * 0.2, soft=0.06), 0.07)  # kidneys
        psoas = c.local(wide=side).column([-0.3, 0.1, 0.6], [0.1, 0.12, 0.2], [0.14, 0.26, 0.4], soft=0.06)
        c.add(psoas, 0.06)
    draw_lumbar_column(c)
    for side in (-1, 1):
        c.add(c.ellipse((side * 0.55, 0.78), 0.36, 0.34, angle=side * 0.5, soft=0.04), 0.16)  # iliac wings
        c.add(c.ring((side * 0.55, 0.78), 0.36, 0.34, 0.03, angle=side * 0.5), 0.12)
        for k in range(3):
            y = -0.85 + 0.2 * k
            c.add(c.stroke([(side * 0.12, y), (side * 0.5, y + 0.02), (side * 0.78, y + 0.2)], 0.05), 0.09)
    if case.finding == "bowel obstruction":
        return _dilated_loops(c)
    for _ in range(7):
        at = (c.rng.uniform(-0.5, 0.55), c.rng.uniform(-0.25, 0.65))
        c.add(c.blob(at, c.rng.uniform(0.04, 0.09), rough=0.5, soft=0.06), -0.16)
    if case.finding == "kidney stone":
        at = (case.side * 0.38, -0.12)
        c.add(c.blob(at, 0.06 + 0.02 * case.severity, rough=0.25), 0.5)
        return at
    return None


def draw_lumbar_column(c: Canvas) -> None:
    """Draw the lumbar spine from the front: boxes of bone with pedicles, and the sacrum below."""
    for k in range(7):
        y = -0.92 + 0.22 * k
        c.add(c.band([y - 0.085, y, y + 0.085], [0.14, 0.115, 0.14]), 0.26)
        for side in (-1, 1):
            c.add(c.ring((side * 0.085, y - 0.02), 0.025, 0.035, 0.018), 0.12)
            c.add(c.stroke([(side * 0.13, y), (side * 0.24, y - 0.02)], 0.035), 0.14)
        c.add(c.stroke([(0, y), (0, y + 0.07)], 0.03), 0.1)
    c.add(c.band([0.6, 0.8, 1.1], [0.22, 0.18, 0.05], soft=0.05), 0.22)


def _dilated_loops(c: Canvas) -> Point:
    """Stacked sausages of gas with a thin bright wall and folds that cross them."""
    for k, y in enumerate((-0.3, -0.08, 0.14, 0.36)):
        reach = c.rng.uniform(0.36, 0.5)
        ends = [(-reach, y + 0.06), (0.0, y - 0.03), (reach, y + 0.05)]
        c.add(c.stroke(ends, 0.19), 0.1)
        lumen = c.stroke(ends, 0.16)
        c.add(lumen, -0.36)
        folds = ramp(0.75 - np.cos(2 * np.pi * (c.x / 0.09 + 0.3 * k)), 0.4)
        c.add(lumen * folds, 0.14)
    return (0.2, 0.02)


_APEX = (0.0, -1.35)


def draw_ultrasound(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw the liver or a kidney (``series.view``) in a sector; return the centre of the finding, if any."""
    c = canvas
    c.paint(np.ones((SIZE, SIZE), np.float32), 0.42)
    c.pixels[...] += 0.05 * c.noise(7.0)
    for depth in (-0.84, -0.76, -0.7):  # skin and fascia near the probe
        c.paint(0.6 * ramp(np.abs(_depth(c) - (depth - _APEX[1])) - 0.008, 0.03), 0.8)
    spot = _fan_liver(c, case) if series.view == "liver" else _fan_kidney(c, case)
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


def _fan_liver(c: Canvas, case: Case) -> Point | None:
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
    diaphragm = ramp(np.abs(c.radius((0, -0.1), 1.1, 0.86) - 1) - 0.012, 0.03)
    c.paint(diaphragm * ramp(-c.y, 0.2), 1.0)
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


def _fan_kidney(c: Canvas, case: Case) -> Point | None:
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
