"""The chest: a frontal radiograph, drawn as overlapping shadows, an axial CT in two windows, and mammograms."""

import numpy as np

from pipelines.demo.canvas import Array, Canvas, Point, on_ellipse, ramp
from pipelines.demo.cases import Case, Series, tissues


def draw_chest(canvas: Canvas, case: Case, series: Series) -> Point | None:
    """Draw a chest and return the centre of its finding, if it has one."""
    return _radiograph(canvas, case) if series.modality == "x-ray" else _axial_ct(canvas, case, series.view)


def _radiograph(canvas: Canvas, case: Case) -> Point | None:
    c = canvas.local(wide=case.habitus)
    _trunk(c)
    lungs = {side: _lung_field(c, side) for side in (-1, 1)}
    both = lungs[-1] + lungs[1]
    c.pixels[...] *= 1 - 0.72 * both
    if case.finding == "pneumothorax":
        c.add(_collapsed_rim(c, case) * lungs[case.side], -0.16)
    _vessels(c, both if case.finding != "pneumothorax" else both - lungs[case.side] * _collapsed_rim(c, case))
    _mediastinum(c, enlarged=case.severity if case.finding == "cardiomegaly" else None)
    spot = _radiograph_finding(c, case, lungs[case.side])
    _ribs(c)
    return spot


def _trunk(c: Canvas) -> None:
    half = [0.2, 0.24, 0.7, 0.98, 0.9, 0.86, 0.88, 0.9]
    body = c.band([-1.3, -0.9, -0.74, -0.5, -0.2, 0.2, 0.7, 1.4], half, soft=0.06)
    c.paint(body, 0.5)
    c.add(c.ellipse((0, 1.0), 0.95, 0.62, soft=0.3) * body, 0.14)
    for side in (-1, 1):
        c.add(c.ellipse((side * 0.92, -0.56), 0.14, 0.15), 0.2)


def _lung_field(c: Canvas, side: int) -> Array:
    """Mask of one lung above its diaphragm; the patient's right dome (negative x) stands higher."""
    f = c.local(wide=side)
    outer = [0.3, 0.44, 0.58, 0.68, 0.74, 0.77, 0.78]
    inner = [0.2, 0.12, 0.11, 0.12, 0.12, 0.13, 0.13]
    field = f.column([-0.78, -0.68, -0.48, -0.2, 0.1, 0.4, 0.75], inner, outer, soft=0.04)
    top = 0.42 if side < 0 else 0.48
    dome = np.float32(top) + 0.9 * np.square(f.x - 0.38).astype(np.float32)
    return field * ramp(f.y - dome, 0.03)


def _vessels(c: Canvas, where: Array) -> None:
    """Hila and the vessels that branch from them and thin out towards the chest wall."""
    for side in (-1, 1):
        hub = (side * 0.17, -0.06)
        c.add(c.ellipse(hub, 0.08, 0.15, soft=0.12), 0.16)
        for angle in np.linspace(-1.25, 1.25, 6) + c.rng.normal(0, 0.1, 6):
            reach = c.rng.uniform(0.3, 0.45)
            mid = (hub[0] + side * reach * 0.5 * np.cos(angle), hub[1] + reach * 0.6 * np.sin(angle))
            end = (hub[0] + side * reach * np.cos(angle + 0.2), hub[1] + 1.15 * reach * np.sin(angle + 0.1))
            c.add(c.stroke([hub, mid, end], 0.012, soft=0.035) * where, 0.09)
    c.add(where, 0.02)
    c.pixels[...] += 0.012 * c.noise(1.5) * where


def _mediastinum(c: Canvas, enlarged: float | None) -> None:
    left, right = [-0.1, -0.12, -0.13, -0.13, -0.12, -0.12], [0.1, 0.12, 0.14, 0.12, 0.12, 0.12]
    c.paint(c.column([-1.2, -0.8, -0.5, -0.1, 0.3, 1.2], left, right, soft=0.06), 0.62)
    c.paint(c.ellipse((0, -0.9), 0.045, 0.32, soft=0.05), 0.45)  # trachea
    c.paint(c.ellipse((0.14, -0.3), 0.09, 0.1, soft=0.04), 0.62)  # aortic knob
    grow = 1.0 if enlarged is None else 1.42 + 0.25 * enlarged
    tall = 0.23 * (0.6 + 0.4 * grow)
    heart = c.ellipse((0.08 + 0.06 * grow, 0.26), 0.29 * grow, tall, angle=0.45, soft=0.04)
    heart = np.maximum(heart, c.ellipse((-0.09 * grow, 0.22), 0.14 * grow, 0.23, soft=0.04))
    c.paint(heart, 0.7)
    bodies = (0.5 + 0.5 * np.cos(2 * np.pi * c.y / 0.17)).astype(np.float32)
    c.add(ramp(np.abs(c.x) - 0.065, 0.03) * bodies, 0.07)  # vertebral bodies shine through


def _ribs(c: Canvas) -> None:
    """All posterior ribs at once, as stripes of a curved phase, then fainter anterior ribs and clavicles."""
    ax = np.abs(c.x)
    cage = ramp(ax - (0.79 - 0.5 * np.square(np.clip(-0.35 - c.y, 0, None))), 0.04) * ramp(0.09 - ax, 0.03)
    cage *= ramp(c.y - 0.72, 0.1) * ramp(-0.82 - c.y, 0.06)
    bend = 0.15 * np.sin(ax * 2.6) - 0.26 * ax * ax * (1 + 0.8 * c.y) - 0.02
    posterior = np.cos(2 * np.pi * (c.y + bend) / 0.165)
    anterior = np.cos(2 * np.pi * (c.y - 0.55 * ax) / 0.21 + 1.0)
    c.add(ramp(0.35 - posterior, 0.5) * cage, 0.13)
    c.add(ramp(0.55 - anterior, 0.5) * cage * ramp(0.38 - ax, 0.25), 0.055)
    for side in (-1, 1):
        c.add(c.stroke([(side * 0.1, -0.6), (side * 0.4, -0.69), (side * 0.85, -0.72)], 0.05), 0.16)
        c.add(c.stroke([(side * 0.86, -0.6), (side * 0.8, -0.1)], 0.03, soft=0.06), 0.08)  # scapular border


def _collapsed_rim(c: Canvas, case: Case) -> Array:
    """Mask of the air between the chest wall and the lung that has shrunk towards its hilum."""
    shrink = 0.8 - 0.25 * case.severity
    return 1 - c.ellipse((case.side * 0.13, 0.08), 0.64 * shrink, 0.84 * shrink, soft=0.02)


def _radiograph_finding(c: Canvas, case: Case, lung: Array) -> Point | None:
    s, size, rng = case.side, case.severity, c.rng
    where = (0.44 * s, -0.3) if case.zone == "upper" else (-0.44 if s < 0 else 0.56, 0.14)  # beside the heart
    if case.finding == "pleural effusion":
        level = 0.3 - 0.4 * size
        ax = s * c.x
        fluid = c.local(wide=s).column([-0.7, 0.2, 0.8, 1.1], [0.1] * 4, [0.55, 0.77, 0.8, 0.8], soft=0.04)
        c.paint(fluid * ramp(level - 0.7 * np.square(np.clip(ax - 0.3, 0, None)) - c.y, 0.07), 0.8)
        return (s * 0.5, level + 0.14)
    if case.finding == "pneumothorax":
        shrink = 0.8 - 0.25 * size
        c.add(c.ring((s * 0.13, 0.08), 0.64 * shrink, 0.84 * shrink, 0.014) * lung, 0.24)
        return (s * 0.55, -0.38)
    if case.finding == "pneumonia":
        patch = c.blob(where, 0.21 + 0.09 * size, rough=0.4, soft=0.16) * lung
        c.paint(patch * np.clip(0.85 + 0.25 * c.noise(2.0), 0, 1), 0.68)
        return where
    if case.finding in ("pulmonary nodule", "lung mass"):
        at = (where[0] + rng.normal(0, 0.03), where[1] + rng.normal(0, 0.03))
        r = 0.065 + 0.02 * size
        nodule = case.finding == "pulmonary nodule"
        c.paint(c.ellipse(at, r, r) if nodule else c.blob(at, 0.17 + 0.06 * size, rough=0.22), 0.66)
        return at
    return (0.3, 0.3) if case.finding == "cardiomegaly" else None


_WINDOWS = tissues("chest")


def _axial_ct(canvas: Canvas, case: Case, window: str) -> Point | None:
    tissue = _WINDOWS[window]
    c = canvas.local(wide=case.habitus)
    c.paint(canvas.ring((0, -0.55), 2.2, 1.45, 0.02), 0.3 * tissue["muscle"])  # table
    c.paint(c.ellipse((0, 0), 0.95, 0.7), tissue["fat"])
    c.paint(c.ellipse((0, 0), 0.88, 0.63), tissue["muscle"])
    _rib_sections(c, tissue)
    lungs = {side: _lung_section(c, side) for side in (-1, 1)}
    for side in (-1, 1):
        c.paint(lungs[side], tissue["lung"])
    _branches(c, lungs[-1] + lungs[1], tissue)
    spot = _ct_finding(c, case, lungs[case.side], tissue)
    _centre(c, tissue, enlarged=case.severity if case.finding == "cardiomegaly" else None)
    c.pixels[...] += 0.02 * c.noise(0.8)
    return spot


def _lung_section(c: Canvas, side: int) -> Array:
    lung = c.ellipse((side * 0.43, 0.0), 0.35, 0.52, angle=side * 0.12)
    return lung * (1 - c.ellipse((0, 0.45), 0.2, 0.28))


def _rib_sections(c: Canvas, tissue: dict[str, float]) -> None:
    """Ribs cut obliquely: bright dashes along the chest wall, and the sternum in front."""
    theta = np.arctan2(c.y / 0.63, c.x / 0.88)
    dashes = ramp(0.25 - np.cos(theta * 11 + c.rng.uniform(0, 6)), 0.4)
    c.paint(c.ring((0, 0), 0.83, 0.575, 0.045) * dashes, tissue["bone"])
    c.paint(c.ellipse((0, -0.555), 0.13, 0.04), tissue["bone"])


def _branches(c: Canvas, lungs: Array, tissue: dict[str, float]) -> None:
    for side in (-1, 1):
        for angle in np.linspace(-1.2, 1.2, 7) + c.rng.normal(0, 0.12, 7):
            reach = c.rng.uniform(0.22, 0.36)
            hub = (side * 0.2, 0.02)
            mid = (hub[0] + side * reach * 0.6 * np.cos(angle), hub[1] + reach * 0.8 * np.sin(angle))
            end = (hub[0] + side * reach * 1.2 * np.cos(angle), hub[1] + reach * 1.4 * np.sin(angle))
            c.add(c.stroke([hub, mid, end], 0.01, soft=0.03) * lungs, tissue["vessel"] * 0.6)


def _centre(c: Canvas, tissue: dict[str, float], enlarged: float | None) -> None:
    """Heart with its chambers, descending aorta, spine."""
    grow = 1.0 if enlarged is None else 1.4 + 0.2 * enlarged
    c.paint(c.ellipse((0.03, -0.25), 0.24, 0.27), tissue["fat"])
    c.paint(c.ellipse((0.1, -0.17), 0.31 * grow, 0.25 * grow**0.7, angle=0.35), 0.85 * tissue["blood"])
    for at, rx, ry in (((-0.06, -0.2), 0.12, 0.12), ((0.2, -0.12), 0.15, 0.11), ((0.05, -0.32), 0.14, 0.06)):
        c.paint(c.ellipse(at, rx * grow, ry * grow**0.7, angle=0.4), tissue["blood"])
    c.paint(c.ellipse((0.14, 0.2), 0.075, 0.075), tissue["blood"])
    draw_vertebra(c, (0, 0.36), tissue["bone"], tissue["fluid"])


def draw_vertebra(c: Canvas, at: Point, bone: float, canal: float) -> None:
    """Draw a vertebra cut across: body, canal, transverse and spinous processes."""
    x, y = at
    for side in (-1, 1):
        c.paint(c.stroke([(x + side * 0.07, y + 0.12), (x + side * 0.2, y + 0.15)], 0.045), 0.92 * bone)
    c.paint(c.stroke([(x, y + 0.18), (x, y + 0.29)], 0.05), 0.92 * bone)
    c.paint(c.ellipse((x, y + 0.13), 0.11, 0.09), bone)
    c.paint(c.ellipse((x, y), 0.135, 0.105), bone)
    c.paint(c.ellipse((x, y), 0.1, 0.075), 0.8 * bone)
    c.paint(c.ellipse((x, y + 0.135), 0.06, 0.045), canal)


def _ct_finding(c: Canvas, case: Case, lung: Array, tissue: dict[str, float]) -> Point | None:
    s, size = case.side, case.severity
    where = (s * 0.5, -0.2 if case.zone == "upper" else 0.18)
    if case.finding == "pleural effusion":
        dependent = 1 - c.ellipse((s * 0.36, -0.28 - 0.12 * size), 0.5, 0.55, soft=0.03)
        c.paint(lung * dependent * ramp(0.0 - c.y, 0.1), tissue["fluid"])
        return (s * 0.5, 0.34)
    if case.finding == "pneumothorax":
        outline = ((s * 0.3, 0.16 + 0.06 * size), 0.36, 0.44)
        air = lung * (1 - c.ellipse(*outline))
        c.paint(air, tissue["air"])
        c.add(c.ring(*outline, 0.016) * lung, 0.5)
        return (s * 0.48, -0.34)
    if case.finding == "pneumonia":
        patch = c.blob(where, 0.2 + 0.08 * size, rough=0.4, soft=0.1) * lung
        c.paint(patch * np.clip(0.85 + 0.2 * c.noise(1.5), 0, 1), 0.9 * tissue["muscle"])
        return where
    if case.finding == "pulmonary nodule":
        r = 0.065 + 0.02 * size
        c.paint(c.ellipse(where, r, r), tissue["muscle"])
        return where
    if case.finding == "lung mass":
        mass = c.blob(where, 0.17 + 0.05 * size, rough=0.25) * np.maximum(lung, 0.0)
        c.paint(mass, 1.05 * tissue["muscle"])
        return where
    return (0.15, -0.15) if case.finding == "cardiomegaly" else None


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
        duct = [(1.15, 0.1), on_ellipse((1.15, 0.1), -1.1, -0.75, angle)]
        c.add(c.stroke(duct, 0.008, soft=0.03) * outline, 0.09)
    if series.view == "oblique":
        c.paint(ramp(c.x - (0.42 - 0.5 * (c.y + 0.9)), 0.04) * ramp(-c.x, 0.02), 0.72)  # pectoral muscle
    at = (0.5, -0.05 + 0.2 * float(c.rng.uniform()))
    spot = (case.side * (case.habitus * at[0] - 0.95), at[1])
    if case.finding == "breast mass":
        r = 0.13 + 0.06 * case.severity
        for angle in np.linspace(0, 2 * np.pi, 11)[:-1] + c.rng.normal(0, 0.15, 10):
            reach = r * c.rng.uniform(1.5, 2.1)
            c.add(c.stroke([at, on_ellipse(at, reach, reach, angle)], 0.012, soft=0.03), 0.2)
        c.paint(c.blob(at, r, rough=0.2, soft=0.04), 0.95)
        return spot
    if case.finding == "microcalcifications":
        for dx, dy in c.rng.normal(0, 0.09, (int(10 + 8 * case.severity), 2)):
            c.paint(c.ellipse((at[0] + dx, at[1] + dy), 0.017, 0.017), 1.3)
        return spot
    return None
