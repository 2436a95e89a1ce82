"""Mammography: a breast seen from the side or from above, with its fibroglandular tissue."""

from __future__ import annotations

import numpy as np

from pipelines.demo.canvas import Canvas, Point, ramp
from pipelines.demo.study import Case, Series


def draw_breast(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw a mammogram as hung back to back, a left nipple pointing right; return the finding's place."""
    c = canvas.local((-case.side * 0.95, 0.0), wide=case.side * case.habitus)
    outline = c.ellipse((-0.1, 0.08), 1.35, 0.78, soft=0.05)
    if series.view == "oblique":
        outline = np.maximum(outline, c.ellipse((-0.2, -0.6), 0.75, 0.7, soft=0.05))  # the armpit's fold
    c.paint(outline, 0.26)
    c.paint(c.ellipse((1.22, 0.1), 0.06, 0.06), 0.4)  # nipple
    gland = c.ellipse((0.5, 0.08), 0.62, 0.46, soft=0.25)
    strands = np.clip(0.5 + 0.6 * c.noise(3.0), 0, 1.3)
    c.add(gland * strands, 0.26)
    for angle in np.linspace(-0.9, 0.9, 9) + c.rng.normal(0, 0.05, 9):
        c.add(
            c.stroke(
                [(1.15, 0.1), (1.15 - 1.1 * np.cos(angle), 0.1 - 0.75 * np.sin(angle))], 0.008, soft=0.03
            )
            * outline,
            0.09,
        )
    if series.view == "oblique":
        c.paint(ramp(c.x - (0.42 - 0.5 * (c.y + 0.9)), 0.04) * ramp(-c.x, 0.02), 0.72)  # pectoral muscle
    at = (0.5, -0.05 + 0.2 * float(c.rng.uniform()))
    spot = (case.side * (case.habitus * at[0] - 0.95), at[1])
    if case.finding == "breast mass":
        r = 0.13 + 0.06 * case.severity
        for angle in np.linspace(0, 2 * np.pi, 11)[:-1] + c.rng.normal(0, 0.15, 10):
            reach = r * c.rng.uniform(1.5, 2.1)
            c.add(
                c.stroke(
                    [at, (at[0] + reach * np.cos(angle), at[1] + reach * np.sin(angle))], 0.012, soft=0.03
                ),
                0.2,
            )
        c.paint(c.blob(at, r, rough=0.2, soft=0.04), 0.95)
        return spot
    if case.finding == "microcalcifications":
        for dx, dy in c.rng.normal(0, 0.09, (int(10 + 8 * case.severity), 2)):
            c.paint(c.ellipse((at[0] + dx, at[1] + dy), 0.017, 0.017), 1.3)
        return spot
    return None
