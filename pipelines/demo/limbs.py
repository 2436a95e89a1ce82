"""Radiographs of hand, knee and pelvis, and a sagittal MR of the knee: bones as shafts with bright cortex."""

import numpy as np

from pipelines.demo.canvas import EDGE, Canvas, Point, on_ellipse, ramp
from pipelines.demo.cases import ANATOMY, Case, Series, tissues


def draw_bone(
    c: Canvas,
    start: Point,
    end: Point,
    shaft: float,
    ends: float,
    *,
    value: float = 0.34,
    fracture: float | None = None,
) -> Point:
    """Add a long bone from ``start`` to ``end``; ``shaft`` and ``ends`` are half its width there.

    With ``fracture`` (a fraction of the length) the far part is shifted and tilted behind an oblique gap.
    Returns the point of that fraction, or the middle.
    """
    dx, dy = end[0] - start[0], end[1] - start[1]
    length, angle = float(np.hypot(dx, dy)), float(np.arctan2(dy, dx))
    f = c.local(start, angle=angle)
    along, across = f.x, f.y
    place = 0.5 * length if fracture is None else fracture * length
    gap = along - np.float32(place) + 0.55 * across
    if fracture is not None:
        beyond = ramp(-gap, EDGE)
        across = across - beyond * (np.float32(0.55 * shaft) + 0.16 * (along - np.float32(place)))
    t = np.clip(along / np.float32(length), 0, 1)
    width = shaft + (ends - shaft) * np.abs(2 * t - 1) ** 5
    beyond_ends = np.maximum(-along, along - length) + 0.3 * np.square(across) / ends
    outside = np.maximum(np.abs(across) - width, beyond_ends)
    bone = ramp(outside, EDGE)
    cortex = ramp(np.abs(outside + 0.014) - 0.012, EDGE) * bone
    if fracture is not None:
        broken = ramp(0.022 - np.abs(gap), EDGE)
        bone, cortex = bone * broken, cortex * broken
    c.add(bone, value)
    c.add(cortex, 0.6 * value)
    return (start[0] + dx * place / length, start[1] + dy * place / length)


def draw_hand(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw a hand from the back, fingers up: the thumb of a right hand points to the image's left."""
    c = canvas.local((0, 0.12), wide=-case.side * case.habitus)
    arthritic = case.finding == "osteoarthritis"
    ill = ("little" if case.severity > 0.5 else "ring") if case.finding == "fracture" else ""
    spot: Point | None = None
    palm, wrist = c.ellipse((0, 0.2), 0.36, 0.42, soft=0.08), c.ellipse((0, 0.85), 0.28, 0.5, soft=0.08)
    c.add(np.maximum(palm, wrist), 0.17)
    for name, (base, angle, lengths) in ANATOMY["rays"].items():
        at, thick = base, 0.042
        step = (np.sin(angle), -np.cos(angle))
        reach = sum(lengths) + 0.03 * len(lengths)
        tip = (base[0] + reach * step[0], base[1] + reach * step[1])
        c.add(c.stroke([base, tip], 0.17, soft=0.06), 0.1)
        for k, length in enumerate(lengths):
            end = (at[0] + length * step[0], at[1] + length * step[1])
            shaft, ends = thick * (1 - 0.1 * k), thick * 1.55 * (1 - 0.12 * k)
            broken = name == ill and k == 0
            here = draw_bone(c, at, end, shaft, ends, fracture=0.6 if broken else None)
            spot = here if broken else spot
            gap = 0.004 if arthritic and k >= 1 else 0.035
            at = (end[0] + gap * step[0], end[1] + gap * step[1])
            if arthritic and k >= 1 and k < len(lengths) - 1:
                spot = end
                for side in (-1, 1):  # bony spurs and sclerosis
                    spur = on_ellipse(end, side * thick * 1.6, side * thick * 1.6, angle)
                    c.add(c.ellipse(spur, 0.035, 0.03), 0.4)
                c.add(c.ellipse(end, 0.06, 0.025, angle=angle), 0.3)
    for at in ANATOMY["carpals"]:
        c.add(c.ellipse(at, 0.062, 0.055), 0.34)
        c.add(c.ring(at, 0.052, 0.047, 0.016), 0.14)
    draw_bone(c, (-0.1, 0.64), (-0.12, 1.4), 0.09, 0.15)
    draw_bone(c, (0.15, 0.68), (0.13, 1.4), 0.06, 0.075)
    return None if spot is None else (-case.side * case.habitus * spot[0], 0.12 + spot[1])


def draw_knee(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw a knee: frontal radiograph (fibula at the outer side), lateral radiograph, or sagittal MR."""
    if series.view == "frontal":
        return _knee_frontal(canvas.local(wide=case.side * case.habitus), case)
    return _knee_sideways(canvas, case, mri=series.modality == "mri", water_bright=series.view == "pd")


def _knee_frontal(c: Canvas, case: Case) -> Point | None:
    c.paint(c.band([-1.4, -0.4, 0.1, 1.4], [0.62, 0.52, 0.5, 0.46], soft=0.1), 0.22)
    space = 0.012 if case.finding == "osteoarthritis" else 0.07
    broken = 0.45 if case.finding == "fracture" else None
    draw_bone(c, (0.02, -1.7), (0.0, -space / 2), 0.17, 0.42, value=0.36)
    spot = draw_bone(c, (0.0, space / 2), (-0.02, 1.5), 0.15, 0.4, value=0.36, fracture=broken)
    c.add(ramp(0.05 - c.y, 0.03) * c.ellipse((0, 0), 0.09, 0.12, soft=0.06), 0.06)
    draw_bone(c, (0.36, 0.2), (0.32, 1.5), 0.055, 0.085, value=0.26)  # fibula, lateral
    c.add(c.ellipse((0.0, -0.28), 0.2, 0.22, soft=0.05), 0.09)  # patella
    for side in (-1, 1):
        c.add(c.ellipse((side * 0.2, -0.02), 0.14, 0.03), -0.05)
    if case.finding == "osteoarthritis":
        for side in (-1, 1):
            for y in (-0.05, 0.05):
                c.add(c.ellipse((side * 0.42, y), 0.065, 0.035, angle=side * y * 8), 0.42)
        c.add(c.ellipse((-0.2, 0.0), 0.2, 0.05, soft=0.04), 0.3)
        return (-case.side * 0.25, 0.0)
    return (case.side * spot[0], spot[1]) if broken else None


_SIDEWAYS = tissues("knee")


def _knee_sideways(canvas: Canvas, case: Case, *, mri: bool, water_bright: bool) -> Point | None:
    """Seen from the side, the knee-cap in front (image left)."""
    c = canvas.local(wide=case.habitus)
    look = _SIDEWAYS["x-ray" if not mri else "pd" if water_bright else "t1"]
    front, back = [-0.5, -0.6, -0.66, -0.48, -0.4], [0.7, 0.62, 0.52, 0.58, 0.62]
    c.paint(c.column([-1.4, -0.5, 0.0, 0.5, 1.4], front, back, soft=0.05), look["soft"])
    if mri:
        c.paint(c.column([-1.4, -0.5, -0.1], [0.35, 0.36, 0.4], [0.62, 0.54, 0.46]), 0.6 * look["gristle"])
        c.paint(c.column([0.2, 0.6, 1.4], [0.32, 0.34, 0.36], [0.46, 0.5, 0.54]), 0.6 * look["gristle"])
    if case.finding == "joint effusion":
        swell = 0.09 + 0.06 * case.severity
        c.paint(c.ellipse((-0.36, -0.52), swell, 0.3, angle=-0.12, soft=0.04), look["fluid"])
        c.paint(c.ellipse((-0.3, -0.02), swell, 0.12, soft=0.04), look["fluid"])
        c.paint(c.ellipse((0.36, 0.0), 0.7 * swell, 0.12, soft=0.04), look["fluid"])
    femur = (
        [-1.4, -0.6, -0.35, -0.18, -0.04],
        [-0.22, -0.2, -0.28, -0.32, -0.2],
        [0.22, 0.2, 0.28, 0.36, 0.28],
    )
    tibia = ([0.06, 0.2, 0.45, 1.4], [-0.32, -0.3, -0.2, -0.17], [0.3, 0.28, 0.2, 0.17])
    if case.finding == "fracture":
        tibia = (tibia[0], [-0.32, -0.3, -0.3, -0.27], [0.3, 0.28, 0.1, 0.07])
    for ys, lefts, rights in (femur, tibia):
        c.paint(c.column(ys, lefts, rights), look["cortex"])
        thin = 0.025
        inside = [ys[0] + thin, *ys[1:-1], ys[-1] - thin]
        c.paint(c.column(inside, [v + thin for v in lefts], [v - thin for v in rights]), look["bone"])
    c.paint(c.ellipse((-0.5, -0.2), 0.09, 0.17, angle=0.1), look["cortex"])
    c.paint(c.ellipse((-0.5, -0.2), 0.065, 0.145, angle=0.1), look["bone"])
    c.paint(c.stroke([(-0.5, -1.0), (-0.55, -0.36)], 0.05), look["tendon"])
    c.paint(c.stroke([(-0.52, -0.04), (-0.32, 0.28)], 0.05), look["tendon"])
    if mri:
        c.paint(c.stroke([(-0.3, 0.02), (0.3, 0.02)], 0.035), look["gristle"])
        for side in (-1, 1):
            c.paint(c.ellipse((side * 0.24, 0.015), 0.08, 0.028), look["tendon"])
    if case.finding == "fracture":
        c.paint(c.stroke([(-0.34, 0.26), (0.0, 0.36), (0.32, 0.3)], 0.035), look["fluid"] if mri else 0.12)
        return (0.0, 0.34)
    return (-0.36, -0.45) if case.finding == "joint effusion" else None


def draw_pelvis(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw a frontal pelvis with both hips; a hip finding sits on the case's side."""
    c = canvas.local(wide=case.habitus)
    c.paint(c.band([-1.4, -0.4, 0.2, 1.4], [0.8, 0.88, 0.98, 0.92], soft=0.08), 0.24)
    for k in range(2):
        c.add(c.band([-1.1 + 0.24 * k, -0.92 + 0.24 * k], [0.15, 0.15]), 0.26)
    c.add(c.band([-0.62, -0.4, -0.1, 0.12], [0.26, 0.22, 0.1, 0.03], soft=0.05), 0.28)
    for side in (-1, 1):
        _half_pelvis(c.local(wide=side), case if side == case.side else None)
    if case.finding == "normal":
        return None
    return (case.side * 0.66, 0.3) if case.finding == "fracture" else (case.side * 0.53, 0.16)


def _half_pelvis(f: Canvas, case: Case | None) -> None:
    """One side, drawn for positive x: iliac wing, pubis and ischium around the foramen, hip joint, femur."""
    finding = case.finding if case is not None else "normal"
    inner, outer = [0.3, 0.2, 0.18, 0.26, 0.36], [0.6, 0.78, 0.8, 0.62, 0.62]
    f.add(f.column([-0.72, -0.6, -0.35, -0.1, 0.12], inner, outer, soft=0.03), 0.24)
    f.add(f.stroke([(0.3, -0.7), (0.6, -0.7), (0.8, -0.45)], 0.05), 0.16)
    f.add(f.ring((0.24, 0.42), 0.17, 0.2, 0.1, angle=0.3), 0.26)
    f.add(f.stroke([(0.06, 0.28), (0.4, 0.16)], 0.1), 0.16)
    head = (0.56, 0.2)
    gap = 0.004 if finding == "osteoarthritis" else 0.025
    f.add(f.ring(head, 0.155 + gap, 0.155 + gap, 0.03) * ramp(f.y - 0.2, 0.1), 0.3)  # acetabular roof
    if finding == "osteoarthritis":
        f.add(f.ellipse((0.56, 0.04), 0.17, 0.05, soft=0.05), 0.4)
        f.add(f.ellipse((0.74, 0.1), 0.06, 0.04), 0.4)
    broken = finding == "fracture"
    drop = 0.16 if broken else 0.0  # the shaft of a broken neck rides up
    f.add(f.ellipse(head, 0.145, 0.145), 0.3)
    neck = f.stroke([(0.6, 0.24), (0.84, 0.4 - drop)], 0.16) * (1 - f.ellipse(head, 0.145, 0.145))
    f.add(neck * (ramp(0.045 - np.abs(f.x - 0.71 - 0.4 * (f.y - 0.3))) if broken else 1), 0.36)
    f.add(f.ellipse((0.86, 0.36 - drop), 0.08, 0.11), 0.16)  # greater trochanter
    draw_bone(f, (0.83, 0.43 - drop), (0.72, 1.6), 0.1, 0.12, value=0.22)
