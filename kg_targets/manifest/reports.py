"""Radiology reports as captions: their sections, and which of them a caption holds."""

import re

from kg_targets.errors import ManifestError
from kg_targets.manifest.record import ReadRequest

TEXT = "text"
"""Option of layouts of reports: the sections that make the caption."""
BOTH, FINDINGS, IMPRESSION = CHOICES = ("findings_and_impression", "findings", "impression")
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /&-]{2,40}?)[ \t]*:", re.MULTILINE)
_IMPRESSIONS = ("IMPRESSION", "CONCLUSION", "CONCLUSIONS")


def caption_of(request: ReadRequest, findings: str, impression: str) -> str:
    """The caption that the option ``text`` asks for, white space made single.

    Raises:
        ManifestError: the option has another value.
    """
    wanted = request.options.get(TEXT, BOTH)
    if wanted not in CHOICES:
        raise ManifestError(f"options: text must be {', '.join(CHOICES)}, not {wanted!r}")
    parts = {FINDINGS: [findings], IMPRESSION: [impression]}.get(wanted, [findings, impression])
    return " ".join(" ".join(parts).split())


def sections(report: str) -> tuple[str, str] | None:
    """Findings and impression of a report in plain text, by its headings in capitals; ``None`` where it has neither.

    A section that is headed by both words counts as findings.
    """
    places = list(_HEADING.finditer(report))
    ends = [*(place.start() for place in places[1:]), len(report)]
    findings, impression = "", ""
    for place, end in zip(places, ends, strict=False):
        name, text = place[1].strip(), report[place.end() : end].strip()
        if "FINDINGS" in name:
            findings = f"{findings} {text}".strip()
        elif any(word in name for word in _IMPRESSIONS):
            impression = f"{impression} {text}".strip()
    return (findings, impression) if findings or impression else None
