"""AMiF's model for medical visual question answering: towers, co-attention, knowledge gate, answer decoder."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.med_vqa.model.modeling import MedVQAConfig, MedVQAModel

__all__ = ["MedVQAConfig", "MedVQAModel"]


def __getattr__(name: str) -> Any:
    # Lazily: a configuration can be read without loading torch and transformers.
    if name == "MedVQAConfig":
        from training.med_vqa.model.modeling import MedVQAConfig

        return MedVQAConfig
    if name == "MedVQAModel":
        from training.med_vqa.model.modeling import MedVQAModel

        return MedVQAModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
