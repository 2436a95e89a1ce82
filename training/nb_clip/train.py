"""NB-CLIP: from a configuration to the run that the engine trains."""

from functools import partial
from pathlib import Path

from accelerate import Accelerator

from kg_targets.store import TargetStore
from training.clip.config import check_precision
from training.clip.load import build_clip
from training.clip.starts import weights_digest
from training.config import TrainConfig
from training.data.facts import describe_data
from training.data.sources import open_source
from training.engine.session import Prepared, Say, run_training
from training.nb_clip.losses import LOSSES
from training.nb_clip.run import NBClipRun, Split


def train(config: TrainConfig, say: Say) -> int:
    """Run one NB-CLIP training as configured, or what is left of it.

    Args:
        config: the configuration.
        say: tells a person why nothing or not everything was done.

    Returns:
        0, or 128 + the signal that asked to stop; OUTPUT then holds the state to continue from.

    Raises:
        KGTargetsError: the configuration, a store, the images or OUTPUT are not usable.
    """
    return run_training(config, partial(_prepare, config), say)


def _prepare(config: TrainConfig) -> Prepared:
    root = Path(config.data.data_root)
    names = [config.data.train_store, *([config.data.dev_store] if config.data.dev_store else [])]
    splits = [Split(store, open_source(root, store)) for store in map(TargetStore.open, names)]
    fingerprints = [text for split in splits for text in (split.store.fingerprint, split.source.digest())]

    def build(accelerator: Accelerator) -> NBClipRun:
        check_precision(config.model.precision, accelerator.device.type)
        bias = config.loss.init_bias if LOSSES[config.loss.name].biased else None
        clip = build_clip(config.model, logit_bias=bias)
        return NBClipRun(config, accelerator, clip, splits[0], splits[1] if splits[1:] else None)

    return Prepared(
        fingerprints=[*fingerprints, weights_digest(config.model)],
        precision=config.model.precision,
        data_facts=lambda: {
            name: describe_data(split.store) for name, split in zip(("train", "dev"), splits, strict=False)
        },
        build=build,
    )
