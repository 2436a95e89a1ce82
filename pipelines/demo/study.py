"""What one patient has and what one picture of that patient is: the words that drawing and captions share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One patient with one finding; every image of the case shows the same body and the same finding."""

    index: int
    """Running number, also the seed of everything random about the case."""
    region: str
    """Body region: chest, head, abdomen, spine, pelvis, knee, hand or breast."""
    finding: str
    """The finding, or ``normal``."""
    laterality: str
    """``left`` or ``right`` as the patient has it, empty where sides make no sense."""
    zone: str
    """``upper`` or ``lower`` for findings of the lung, empty elsewhere."""
    severity: float
    """Size of the finding, from 0 (small, still visible) to 1 (large)."""
    habitus: float
    """Width of the body relative to the average, about 0.92 to 1.08."""
    age: int
    """Years."""
    sex: str
    """``female`` or ``male``."""

    @property
    def side(self) -> int:
        """Sign of x of the affected side: +1 for the patient's left, at the image's right, or no side."""
        return -1 if self.laterality == "right" else 1


@dataclass(frozen=True)
class Series:
    """How a picture was taken."""

    modality: str
    """``x-ray``, ``ct``, ``mri``, ``ultrasound`` or ``mammography``."""
    view: str
    """Projection, plane, window, organ or sequence: ``frontal``, ``soft``, ``kidney``, ``t1`` …"""
