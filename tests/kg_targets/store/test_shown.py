"""What captions may do to a terminal and to figures: nothing."""

import numpy as np

from kg_targets.inspect.plots import block_figure
from kg_targets.store.explain import Explanation, SharedConcept


def test_an_explanation_shows_control_characters_instead_of_sending_them_to_the_terminal() -> None:
    told = str(Explanation("a", "b", "red \x1b[31m\x07", "two\nlines", 0.5, note="no\u202ete"))
    assert "\x1b" not in told and "\x07" not in told and "\u202e" not in told
    assert told.splitlines()[1:3] == ["  a: red \\x1b[31m\\x07", "  b: two lines"]


def test_labels_with_dollars_are_no_formulas() -> None:
    figure = block_figure({"$\\frac{": np.eye(2, dtype=np.float32)}, ["$x_{$", "$x_{$"])
    figure.canvas.draw()


def test_a_path_keeps_a_line_of_its_own() -> None:
    shared = SharedConcept(
        "C0032226", "Pleural disease", 0.25, ("Effusion\x1b", "Pleural disease"), ("Pleural disease",)
    )
    told = str(Explanation("a", "b", "one", "two", 0.5, (shared,)))
    assert told.splitlines()[3:] == [
        "   25.0%  Pleural disease (C0032226)",
        "            via Effusion\\x1b → Pleural disease",
    ]
