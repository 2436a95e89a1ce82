"""Errors for people: one line that says where, what is wrong and what to do.

Command lines print ``error: <message>`` and exit with code 2; a library user catches ``KGTargetsError``.
"""


class KGTargetsError(Exception):
    """Base of every error that the user can mend: a file, an option or a data set is not as it must be."""


class ManifestError(KGTargetsError):
    """A data set's manifest, or a file it names, is missing or malformed."""


class OntologyError(KGTargetsError):
    """An ontology source is missing, unreadable or has no usable content."""


class ExtractionError(KGTargetsError):
    """Captions cannot be turned into concepts with the chosen extractor."""


class StoreError(KGTargetsError):
    """A target store is missing, damaged, or does not hold what was asked of it."""


class ConfigError(KGTargetsError):
    """Options contradict each other or have values out of range."""


class DataError(KGTargetsError):
    """Input data (captions, images, labels) is broken beyond what may be skipped."""


class ShapeError(KGTargetsError):
    """Two tensors that must agree in shape do not."""


class MissingExtraError(KGTargetsError, ModuleNotFoundError):
    """An optional package is not installed; says which extra brings it."""


def printable(text: str) -> str:
    """One line without control characters, which a terminal would obey: they are shown as ``\\x1b``."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
