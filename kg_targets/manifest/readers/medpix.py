"""MedPix 2.0: ``descriptions_<split>.jsonl`` (one line per image) and ``data_<split>.jsonl`` (one per case).

The caption is the image's own; with the option ``text: caption_and_case`` the case's title, findings and diagnosis
follow it, so that every image of a case also knows what the case was about.
"""

from collections.abc import Iterator
from typing import Any

from kg_targets.errors import ManifestError
from kg_targets.manifest.files import json_lines
from kg_targets.manifest.record import ReadRequest, Record

OPTIONS = frozenset(("text",))
_CASE_FIELDS = ("Title", "Findings", "Case Diagnosis")


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one split; labels are modality, organ and plane.

    Raises:
        ManifestError: a file cannot be read, or the option ``text`` has another value.
    """
    cases = _cases(request)
    for where, row in json_lines(request.files["captions"], request.report):
        description = row.get("Description")
        image_id, case_id = _text(row.get("image")), _text(row.get("U_id"))
        if not isinstance(description, dict) or not image_id or not case_id:
            request.report.skip("lacks image, U_id or Description", where)
            continue
        caption = " ".join(
            part for part in (_text(description.get("Caption")), cases.get(case_id, "")) if part
        )
        yield (
            where,
            Record(
                image_id=image_id,
                image_path=request.image_path(image_id),
                caption=caption,
                group_id=case_id,
                licence=request.licence,
                labels={
                    "modality": _text(row.get("Type")),
                    "organ": _text(row.get("Location Category")),
                    "plane": _text(description.get("Plane")),
                },
            ),
        )


def _cases(request: ReadRequest) -> dict[str, str]:
    """Case id to the case's text, where it is asked for."""
    text = request.options.get("text", "caption")
    if text == "caption":
        return {}
    if text != "caption_and_case":
        raise ManifestError(f"medpix: option text must be caption or caption_and_case, not {text!r}")
    path = request.files["cases"]
    if not path.is_file():
        raise ManifestError(
            f"{path} does not exist: it holds the case text that `text: caption_and_case` asks for"
        )
    result = {}
    for where, row in json_lines(path, request.report):
        case: Any = row.get("Case")
        if not isinstance(case, dict):
            request.report.skip("has no Case", where)
            continue
        parts = [_text(case.get(field)).rstrip(".") for field in _CASE_FIELDS]
        result[_text(row.get("U_id"))] = " ".join(f"{part}." for part in parts if part)
    return result


def _text(value: object) -> str:
    return " ".join(str(value).split()) if value is not None else ""
