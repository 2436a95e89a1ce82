"""The configuration of images, captions and batches."""

from dataclasses import dataclass

from training.checks import within


@dataclass(frozen=True)
class DataConfig:
    """Images, captions and their target stores."""

    train_store: str = ""
    """Folder of the training split's target store; required."""
    dev_store: str | None = None
    """Folder of the development split's store, to choose the best epoch; null keeps the last epoch."""
    data_root: str = ""
    """Folder that the store's image paths are relative to; required."""
    batch_size: int = 128
    """Images per optimizer step, summed over all processes; at least 2."""
    in_memory: bool = True
    """Decode every image once, as uint8 (3 x size x size bytes each); false decodes at each use."""
    max_broken: int = 0
    """Images that may be missing or unreadable, as a count; skipped and reported; more is an error."""
    rotation: float = 8.0
    """Augmentation: largest rotation, degrees, in [0, 180)."""
    shift: float = 0.06
    """Augmentation: largest shift, share of the image side, in [0, 0.5]."""
    zoom: float = 0.12
    """Augmentation: largest relative change of scale, in [0, 1)."""
    brightness: float = 0.15
    """Augmentation: largest change of contrast (relative) and offset (share of the range), in [0, 1)."""

    def __post_init__(self) -> None:
        within("data.batch_size", self.batch_size, 2, None)
        within("data.max_broken", self.max_broken, 0, None)
        within("data.rotation", self.rotation, 0, 179.999)
        within("data.shift", self.shift, 0, 0.5)
        within("data.zoom", self.zoom, 0, 0.999)
        within("data.brightness", self.brightness, 0, 0.999)
