"""A small drawing board: soft-edged shapes in patient coordinates, painted on a float picture.

Every shape is a signed distance turned into a mask with a ramp of one or two pixels, so edges are smooth
without drawing at a higher resolution. Coordinates run from -1 to 1 over the picture, x to the right and y
downwards, and carry the patient's pose (rotation, size, shift, a gentle warp): what is drawn at (0.4, 0.1)
lands where that part of the patient is. By radiological convention the patient's left side is at positive x.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

SIZE = 128
"""Width and height of every demo picture, in pixels."""

EDGE = 2.4 / SIZE
"""Default width of a soft edge, in patient units: a little over one pixel."""

Array = NDArray[np.float32]
Point = tuple[float, float]


@dataclass(frozen=True)
class Canvas:
    """Pixels and the coordinate frame one draws in; frames made by `local` share the pixels."""

    pixels: Array
    """Brightness, float32 ``[SIZE, SIZE]``; 0 is black and 1 is white, clipped only at the end."""
    x: Array
    """Patient x of every pixel, float32 ``[SIZE, SIZE]``."""
    y: Array
    """Patient y of every pixel, float32 ``[SIZE, SIZE]``."""
    rng: np.random.Generator
    """Source of every random detail of this picture."""

    @classmethod
    def posed(cls, rng: np.random.Generator, *, tilt: float = 0.07, warp: float = 0.02) -> "Canvas":
        """Return a black canvas, its frame rotated (by ``tilt`` radians on average), scaled and warped."""
        v, u = film()
        angle, scale = rng.normal(0, tilt), rng.uniform(0.92, 1.1)
        du, dv = rng.normal(0, 0.03, 2)
        cos, sin = np.float32(np.cos(angle) * scale), np.float32(np.sin(angle) * scale)
        x = cos * (u - np.float32(du)) + sin * (v - np.float32(dv))
        y = cos * (v - np.float32(dv)) - sin * (u - np.float32(du))
        phase = rng.uniform(0, 2 * np.pi, 4).astype(np.float32)
        bend = np.float32(warp)
        wx = bend * (np.sin(2.1 * v + phase[0]) + 0.5 * np.sin(4.3 * u + phase[1]))
        wy = bend * (np.sin(2.3 * u + phase[2]) + 0.5 * np.sin(3.9 * v + phase[3]))
        return cls(np.zeros((SIZE, SIZE), np.float32), x + wx, y + wy, rng)

    def local(
        self, at: Point = (0, 0), *, angle: float = 0.0, wide: float = 1.0, tall: float = 1.0
    ) -> "Canvas":
        """Return a frame with origin ``at``, turned by ``angle`` radians; a negative ``wide`` mirrors it."""
        dx, dy = self.x - np.float32(at[0]), self.y - np.float32(at[1])
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        x, y = (cos * dx + sin * dy) / np.float32(wide), (cos * dy - sin * dx) / np.float32(tall)
        return replace(self, x=x, y=y)

    def ellipse(self, at: Point, rx: float, ry: float, *, angle: float = 0.0, soft: float = EDGE) -> Array:
        """Mask of an ellipse with radii ``rx``, ``ry`` turned by ``angle``."""
        return ramp((self.radius(at, rx, ry, angle=angle) - 1) * np.float32(min(rx, ry)), soft)

    def radius(self, at: Point, rx: float, ry: float, *, angle: float = 0.0) -> Array:
        """Elliptic radius around ``at``: 0 in the centre, 1 on the ellipse."""
        dx, dy = self.x - np.float32(at[0]), self.y - np.float32(at[1])
        if angle:
            cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
        return np.hypot(dx / np.float32(rx), dy / np.float32(ry))

    def blob(self, at: Point, r: float, *, rough: float = 0.25, soft: float = EDGE) -> Array:
        """Mask of a lobulated disc: an ellipse whose border wavers by about ``rough`` radii."""
        dx, dy = self.x - np.float32(at[0]), self.y - np.float32(at[1])
        theta, phase = np.arctan2(dy, dx), self.rng.uniform(0, 2 * np.pi, 3).astype(np.float32)
        border = 1 + np.float32(rough) * (
            0.5 * np.sin(2 * theta + phase[0])
            + 0.35 * np.sin(3 * theta + phase[1])
            + 0.25 * np.sin(5 * theta + phase[2])
        )
        return ramp(np.hypot(dx, dy) - np.float32(r) * border, soft)

    def column(
        self, ys: Sequence[float], lefts: Sequence[float], rights: Sequence[float], *, soft: float = EDGE
    ) -> Array:
        """Mask of the region between two smooth borders x = left(y) and x = right(y), for y within ``ys``."""
        fine = np.linspace(ys[0], ys[-1], 96)
        left = np.interp(self.y, fine, PchipInterpolator(ys, lefts)(fine)).astype(np.float32)
        right = np.interp(self.y, fine, PchipInterpolator(ys, rights)(fine)).astype(np.float32)
        inside = np.maximum(left - self.x, self.x - right)
        return ramp(np.maximum(inside, np.maximum(ys[0] - self.y, self.y - ys[-1])), soft)

    def band(self, ys: Sequence[float], half: Sequence[float], *, soft: float = EDGE) -> Array:
        """Mask of a column that is symmetric about x = 0, ``half`` wide on either side."""
        return self.column(ys, [-width for width in half], half, soft=soft)

    def stroke(self, points: Sequence[Point], width: float, *, soft: float = EDGE) -> Array:
        """Mask of a line through ``points``, ``width`` wide, with round ends."""
        nearest = np.full((SIZE, SIZE), np.inf, np.float32)
        for (ax, ay), (bx, by) in pairwise(points):
            dx, dy = bx - ax, by - ay
            px, py = self.x - np.float32(ax), self.y - np.float32(ay)
            along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1).astype(np.float32)
            nearest = np.minimum(nearest, np.hypot(px - along * np.float32(dx), py - along * np.float32(dy)))
        return ramp(nearest - np.float32(width / 2), soft)

    def ring(self, at: Point, rx: float, ry: float, width: float, *, angle: float = 0.0) -> Array:
        """Mask of an elliptic ring, ``width`` wide, centred on the ellipse."""
        edge = np.abs(self.radius(at, rx, ry, angle=angle) - 1) * np.float32(min(rx, ry))
        return ramp(edge - np.float32(width / 2), EDGE)

    def paint(self, mask: Array, value: float | Array) -> None:
        """Replace what is under ``mask`` by ``value``."""
        fill = np.float32(value) if isinstance(value, float | int) else value
        self.pixels[...] += mask * fill - mask * self.pixels

    def add(self, mask: Array, value: float) -> None:
        """Add ``value`` under ``mask``, as overlapping tissue does in a projection."""
        self.pixels[...] += mask * np.float32(value)

    def noise(self, sigma: float) -> Array:
        """Smooth Gaussian noise, float32 ``[SIZE, SIZE]``: ``sigma`` pixels wide grains, unit variance."""
        field = gaussian_filter(
            self.rng.standard_normal((SIZE, SIZE), dtype=np.float32), sigma, mode="wrap", truncate=3.0
        )
        return np.asarray(field / field.std(), dtype=np.float32)


def film() -> tuple[Array, Array]:
    """The y and x of every pixel in the film's own frame, float32 ``[SIZE, SIZE]`` each."""
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def on_ellipse(at: Point, rx: float, ry: float, angle: float) -> Point:
    """The point of an ellipse around ``at`` in the direction ``angle``, radians from positive x downwards."""
    return (at[0] + rx * np.cos(angle), at[1] + ry * np.sin(angle))


def ramp(distance: Array, soft: float = EDGE) -> Array:
    """Turn a signed distance (negative inside) into a mask that falls from 1 to 0 over ``soft`` units."""
    return np.clip(np.float32(0.5) - distance / np.float32(soft), 0, 1).astype(np.float32)
