"""The configuration of images, captions and batches."""

from dataclasses import dataclass

from training.checks import all_within, one_of, within
from training.data.samplers import SAMPLERS
from training.errors import ConfigError

LONG_CAPTIONS = ("truncate", "best_sentence", "sentences")
"""Those of training/data/captions.py, which would load numpy before a run has set its threads."""


@dataclass(frozen=True)
class ViewsConfig:
    """Views of an image while a model learns: no flips, since left and right mean something in a medical image."""

    rotation: float = 8.0
    """Augmentation: largest rotation, degrees, in [0, 180)."""
    shift: float = 0.06
    """Augmentation: largest shift, share of the image side, in [0, 0.5]."""
    zoom: float = 0.12
    """Augmentation: largest relative change of scale, in [0, 1)."""
    brightness: float = 0.15
    """Augmentation: largest change of contrast (relative) and offset (share of the range), in [0, 1)."""
    cached_views: int = 0
    """Augmented views per image that the frozen layers see, once, >= 0; 0: a new one at each step, nothing is kept."""
    cache: str = ".cache/training"
    """Folder of the feature cache: outputs of the frozen layers for views and captions; runs and folds share it."""

    def __post_init__(self) -> None:
        all_within(
            "data.", self, rotation=(0, 179.999), shift=(0, 0.5), zoom=(0, 0.999), brightness=(0, 0.999)
        )
        all_within("data.", self, cached_views=(0, 1024))
        if not self.cache:
            raise ConfigError("data.cache is empty: name a folder")


@dataclass(frozen=True)
class CaptionedImagesConfig(ViewsConfig):
    """Captioned images of a target store: where they lie, how batches are drawn from them and decoded."""

    data_root: str = ""
    """Images: folder that the store's paths are relative to, or Parquet file(s) or tar shard(s); required."""
    batch_size: int = 128
    """Images per optimizer step, summed over all processes; at least 2."""
    sampler: str = "random"
    """random; case_aware (images of a case spread over batches) or neighbour_aware (soft positives meet in a batch)."""
    neighbour_share: float = 0.5
    """neighbour_aware: share of each batch drawn from the stored neighbours of the others, in [0, 0.9]."""
    in_memory: bool | None = None
    """Decode every image once, as uint8 (3 x size x size bytes each); false: at each use; null: once up to 4,096 MB."""
    workers: int | None = None
    """Threads per process that decode ahead what is not in memory, in [0, 256]; 0: none; null: one per core."""
    prefetch: int = 2
    """Batches that are decoded ahead of the one in use, in [1, 64]."""
    max_broken: int = 0
    """Images that may be missing or unreadable, as a count per process; skipped and reported; more is an error."""
    long_captions: str = "truncate"
    """Captions longer than the text tower: truncate; best_sentence (with most concepts); sentences (those that fit)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("data.sampler", self.sampler, tuple(SAMPLERS))
        one_of("data.long_captions", self.long_captions, LONG_CAPTIONS)
        all_within("data.", self, batch_size=(2, None), neighbour_share=(0, 0.9), workers=(0, 256))
        all_within("data.", self, prefetch=(1, 64), max_broken=(0, None))


@dataclass(frozen=True)
class DataConfig(CaptionedImagesConfig):
    """Images, captions and their target stores."""

    train_store: str = ""
    """Folder of the training split's target store; required."""
    dev_store: str | None = None
    """Folder of the development split's store, to choose the best epoch; null keeps the last epoch."""
    case_share: float = 1.0
    """Share of the training split's cases to train on, the same for every seed, in (0, 1]; the store knows of all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cached_views and self.in_memory is False:
            raise ConfigError(
                "data.cached_views keeps features of all images in memory: set --data.in_memory true"
            )
        within("data.case_share", self.case_share, 1e-6, 1)
