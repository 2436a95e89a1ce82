"""From a case and a series to the finished 8-bit picture: anatomy, marks, exposure, blur and noise."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipelines.demo.abdomen import draw_abdomen, draw_ultrasound
from pipelines.demo.canvas import SIZE, Canvas, Point, film
from pipelines.demo.cases import Case, Series
from pipelines.demo.chest import draw_breast, draw_chest
from pipelines.demo.head_spine import draw_head, draw_spine
from pipelines.demo.limbs import draw_hand, draw_knee, draw_pelvis

Draw = Callable[[Canvas, Case, Series], Point | None]

_ANATOMY: dict[str, Draw] = {
    "chest": draw_chest,
    "head": draw_head,
    "abdomen": draw_abdomen,
    "spine": draw_spine,
    "pelvis": draw_pelvis,
    "knee": draw_knee,
    "hand": draw_hand,
    "breast": draw_breast,
}

_LETTERS = {  # strokes of the side markers, in units of the letter's height
    "left": [[(0.0, -0.5), (0.0, 0.5), (0.55, 0.5)]],
    "right": [
        [(0.0, 0.5), (0.0, -0.5), (0.4, -0.5), (0.52, -0.25), (0.4, 0.0), (0.0, 0.0)],
        [(0.25, 0.0), (0.55, 0.5)],
    ],
}


def draw_picture(
    case: Case, series: Series, rng: np.random.Generator, *, arrow: bool
) -> tuple[NDArray[np.uint8], bool]:
    """Draw one image of a case.

    Args:
        case: the patient and the finding.
        series: how the picture is taken.
        rng: source of everything random about this picture.
        arrow: whether an arrow should point at the finding, if the drawing shows one.
    Returns:
        Pixels, uint8 ``[SIZE, SIZE]``, and whether an arrow was drawn.
    """
    canvas = Canvas.posed(rng, tilt=0.03 if series.modality == "ultrasound" else 0.07)
    draw = draw_ultrasound if series.modality == "ultrasound" else _ANATOMY[case.region]
    spot = draw(canvas, case, series)
    _expose(canvas, grainy=series.modality != "ultrasound")
    if series.modality in ("x-ray", "mammography") and series.view != "lateral" and rng.random() < 0.4:
        _side_marker(canvas, case)
    if arrow and spot is not None:
        _arrow(canvas, spot)
    pixels = np.clip(np.rint(canvas.pixels * 255), 0, 255).astype(np.uint8)
    return pixels, arrow and spot is not None


def _expose(canvas: Canvas, *, grainy: bool) -> None:
    """Vary what the machine varies: gain, gamma, sharpness, noise, a slow drift of brightness."""
    rng, pixels = canvas.rng, canvas.pixels
    light = np.clip(pixels, 0, 1.15) ** np.float32(rng.uniform(0.82, 1.2)) * np.float32(
        rng.uniform(0.84, 1.08)
    )
    slope = rng.normal(0, 0.04, 2).astype(np.float32)
    light *= 1 + slope[0] * canvas.x + slope[1] * canvas.y
    if grainy:
        light = gaussian_filter(light, rng.uniform(0.2, 0.65), truncate=3.0)
        light += np.float32(rng.uniform(0.006, 0.026)) * rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    pixels[...] = light + np.float32(rng.uniform(0.0, 0.02))


def _side_marker(canvas: Canvas, case: Case) -> None:
    """A lead letter: on a trunk either side's, at that side of the film; on a limb or breast its own."""
    limb = case.region in ("hand", "knee", "breast")
    side = case.laterality if limb else str(canvas.rng.choice(["left", "right"]))
    corner = -0.86 if side == "right" else 0.78
    y, x = film()  # not the patient's frame
    upright = replace(canvas, x=x, y=y).local((corner, -0.84), wide=0.16, tall=0.16)
    for path in _LETTERS[side]:
        upright.paint(upright.stroke(path, 0.14, soft=0.14), 1.0)


def _arrow(canvas: Canvas, spot: Point) -> None:
    """A white arrow with a black outline whose tip stops just short of the finding."""
    angles = canvas.rng.permutation(16) * (np.pi / 8)
    tails = [(spot[0] + 0.42 * np.cos(a), spot[1] + 0.42 * np.sin(a)) for a in angles]
    angle = next((a for a, t in zip(angles, tails, strict=True) if max(map(abs, t)) < 0.85), angles[0])
    frame = canvas.local((spot[0] + 0.14 * np.cos(angle), spot[1] + 0.14 * np.sin(angle)), angle=float(angle))
    shape = ([(0.0, 0.0), (0.28, 0.0)], [(0.1, -0.07), (0.0, 0.0), (0.1, 0.07)])
    for width, value in ((0.075, 0.0), (0.035, 1.0)):
        for path in shape:
            frame.paint(frame.stroke(path, width), value)
