"""AMiF's model for medical visual question answering: towers, co-attention, knowledge gate, answer decoder."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.med_vqa.model.modeling import MedVQAConfig, MedVQAModel

__all__ = ["MedVQAConfig", "MedVQAModel"]


def __getattr__(name: str) -> Any:
    # Lazily: a configuration can be read without loading torch and transformers.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from training.med_vqa.model import modeling

    return getattr(modeling, name)
