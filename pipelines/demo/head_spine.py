"""Head and spine: axial slices of the head in CT and MR, the lumbar spine from the side in MR and as a radiograph."""

import numpy as np

from pipelines.demo.canvas import Array, Canvas, Point, ramp
from pipelines.demo.cases import Case, Series, tissues

_HEAD_TISSUE, _LESION, _SPINE_TISSUE = tissues("head"), tissues("brain lesion"), tissues("spine")

_RX, _RY = 0.64, 0.8  # inner table of the skull


def draw_head(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw an axial slice through the lateral ventricles; return the centre of the finding, if any."""
    view = "ct" if series.modality == "ct" else series.view
    tissue, lesion = _HEAD_TISSUE[view], _LESION[view]
    c = canvas.local(wide=case.habitus)
    c.paint(c.ellipse((0, 0), _RX + 0.13, _RY + 0.13), tissue["scalp"])
    c.paint(c.ellipse((0, 0), _RX + 0.085, _RY + 0.085), tissue["bone"])
    c.paint(c.ellipse((0, 0), _RX, _RY), tissue["csf"])
    brain = c.ellipse((0, 0), _RX - 0.025, _RY - 0.025)
    _cortex(c, brain, tissue)
    spot = _parenchymal_lesion(c, case, brain, lesion)
    _ventricles(c, case, tissue)
    if case.finding == "subdural haematoma":
        spot = _subdural(c, case, brain, lesion)
    c.paint(c.stroke([(0, -_RY), (0, -0.4)], 0.012), tissue["vessel"])  # falx, front and back
    c.paint(c.stroke([(0, 0.42), (0, _RY)], 0.014), tissue["vessel"])
    c.pixels[...] += (0.025 if view == "ct" else 0.015) * c.noise(0.8)
    return spot


def _cortex(c: Canvas, brain: Array, tissue: dict[str, float]) -> None:
    """White matter, a folded ribbon of grey matter with dark or bright sulci, and the deep grey nuclei."""
    depth = 1 - c.radius((0, 0), _RX - 0.02, _RY - 0.02)
    folds = c.noise(3.0)
    c.paint(brain, tissue["grey"])
    c.paint(ramp(0.14 + 0.045 * folds - depth, 0.05) * brain, tissue["white"])
    sulci = ramp(np.abs(folds) - 0.22, 0.25) * ramp(depth - 0.17, 0.08) * brain
    c.paint(0.75 * sulci, tissue["csf"])
    c.paint(ramp(np.abs(c.x) - 0.012, 0.015) * ramp(0.34 - np.abs(c.y), 0.03) * brain, tissue["csf"])
    for side in (-1, 1):
        thalamus = c.ellipse((side * 0.13, 0.12), 0.09, 0.13, angle=-side * 0.4, soft=0.05)
        putamen = c.ellipse((side * 0.27, -0.04), 0.055, 0.17, angle=side * 0.25, soft=0.05)
        c.paint(thalamus, tissue["grey"])
        c.paint(putamen, tissue["grey"])


def _ventricles(c: Canvas, case: Case, tissue: dict[str, float]) -> None:
    wide = 2.3 + 0.9 * case.severity if case.finding == "hydrocephalus" else 1.0
    long = 1.3 if case.finding == "hydrocephalus" else 1.0
    push = 0.0
    if case.finding in ("brain tumour", "intracerebral haemorrhage", "subdural haematoma"):
        push = -case.side * (0.03 + 0.05 * case.severity)  # midline shift away from the mass
    for side in (-1, 1):
        near = side * 0.045 * wide + push
        front = c.ellipse((near + side * 0.02, -0.22), 0.045 * wide, 0.16 * long, angle=-side * 0.42)
        back = c.ellipse((near + side * 0.14, 0.28), 0.04 * wide, 0.15 * long, angle=-side * 0.5)
        c.paint(front, tissue["csf"])
        c.paint(back, tissue["csf"])
        if wide > 1:
            c.paint(c.ellipse((near + side * 0.04, 0.02), 0.04 * wide, 0.3, angle=-side * 0.2), tissue["csf"])
    c.paint(c.ellipse((push, 0.1), 0.014 * wide, 0.1), tissue["csf"])  # third ventricle


def _parenchymal_lesion(c: Canvas, case: Case, brain: Array, lesion: dict[str, float]) -> Point | None:
    s, size, rng = case.side, case.severity, c.rng
    if case.finding == "brain tumour":
        at, r = (s * 0.34, -0.26 + rng.normal(0, 0.015)), 0.14 + 0.06 * size
        c.paint(c.blob(at, r * 1.65, rough=0.5, soft=0.1) * brain, lesion["oedema"])
        c.paint(c.blob(at, r, rough=0.16), lesion["rim"])
        c.paint(c.blob(at, r * 0.66, rough=0.25, soft=0.05), lesion["core"])
        return at
    if case.finding == "intracerebral haemorrhage":
        at, r = (s * 0.3, 0.02 + rng.normal(0, 0.015)), 0.13 + 0.06 * size
        c.paint(c.blob(at, r * 1.35, rough=0.2, soft=0.06) * brain, lesion["oedema"])
        c.paint(c.blob(at, r, rough=0.3), lesion["blood"])
        return at
    if case.finding == "cerebral infarction":
        theta = np.arctan2(c.y - 0.0, s * c.x)  # a wedge of the middle cerebral artery's territory
        half = 0.5 + 0.25 * size
        wedge = ramp(np.abs(theta - 0.15) - half + 0.05 * c.noise(4.0), 0.15) * ramp(0.28 - s * c.x, 0.06)
        c.paint(0.92 * wedge * brain, lesion["infarct"])
        return (s * 0.45, 0.08)
    return (0.0, -0.2) if case.finding == "hydrocephalus" else None


def _subdural(c: Canvas, case: Case, brain: Array, lesion: dict[str, float]) -> Point:
    """A crescent along the inner table of one side."""
    thick = 0.12 + 0.09 * case.severity
    inner = c.ellipse((-case.side * thick, 0), _RX - 0.01, _RY + 0.03)
    crescent = c.ellipse((0, 0), _RX - 0.01, _RY - 0.01) * (1 - inner) * ramp(-case.side * c.x, 0.05)
    c.paint(crescent, lesion["subdural"])
    return (case.side * (_RX - 0.08), 0.0)


_LEVELS = (-1.0, -0.68, -0.36, -0.04, 0.28, 0.6)
_ILL = 3
"""Index of the vertebra that breaks, and of the disc below it that slips."""


def draw_spine(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw a lumbar spine, front at the image's left; return the centre of the finding, if any."""
    mri = series.modality == "mri"
    tissue = _SPINE_TISSUE[series.view if mri else "x-ray"]
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
