"""Language of captions: foreign ones are recognised, English ones are not lost. Sentences are our own."""

import sys

import pytest

from kg_targets.concepts import languages
from kg_targets.errors import ConfigError


@pytest.fixture
def detector() -> None:
    pytest.importorskip("py3langid")


@pytest.mark.usefixtures("detector")
@pytest.mark.parametrize(
    ("caption", "code"),
    [
        (
            "Radiographie du thorax de face montrant un épanchement pleural de grande abondance à droite.",
            "fr",
        ),
        ("IRM cérébrale en coupe axiale montrant une lésion du lobe frontal gauche.", "fr"),
        ("Röntgenaufnahme des Brustkorbs mit einem großen Erguss auf der rechten Seite.", "de"),
        ("Radiografía de tórax que muestra un derrame pleural en el lado derecho del paciente.", "es"),
    ],
)
def test_captions_of_another_language_are_recognised(caption: str, code: str) -> None:
    assert languages.language(caption) == code


@pytest.mark.usefixtures("detector")
@pytest.mark.parametrize(
    "caption",
    [
        "Pleural effusion.",
        "CT scan",
        "Sagittal MRI of the lumbar spine.",
        "Chest radiograph showing a large right pleural effusion.",
        "Fistula in ano.",
        "Hallux valgus, left foot, AP view.",
        "",
        "Lone surrogate \ud800 in a caption",
    ],
)
def test_short_english_captions_full_of_latin_stay_english(caption: str) -> None:
    assert languages.language(caption) == "en"


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    languages.load.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'kg-targets\[languages\]'"):
        languages.load()
