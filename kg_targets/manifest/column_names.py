"""What the name of a column that nothing reads suggests: a patient or case, a label, a misspelt name."""

import difflib
import re
from collections.abc import Iterable

_CASES = (
    "patient", "participant", "subject", "subj", "case", "person", "study", "exam", "visit", "encounter", "admission",
    "hadm", "empi", "accession", "mrn",
)  # fmt: skip
"""Words for a patient or a case, the wider ones first."""
_ID = "(?:id|ids|no|nr|num|number|key|uid|name|index|identifier|code|hash|anon)"
_CASE = re.compile(
    rf"(?:{'|'.join(_CASES)})s?{_ID}?|studies|u?patid|pid|ptid|studyinstanceuid|(?:pt|acc){_ID}+"
)
_GROUP = re.compile(f"groups?{_ID}?")
_ARTICLE = re.compile(f"(?:articles?|pmc)(?:accession)?{_ID}*|pmid")
_OF_CASE = re.compile(
    "age|sex|gender|race|ethnicity|weight|height|size|position|orientation|date|time|year|type|kind|title|"
    "description|desc|text|report|history|comments?|journal|url|link|licen[cs]e|count|status|"
    "detected|visible|present|flag|is|has"
)
"""Words that make a column something about a patient or case."""
_LABEL = re.compile(
    "labels?|organs?|modality|modalities|findings?|diagnos[ie]s|class|category|view|viewposition|plane|projection|"
    "region|bodypart|bodypartexamined|anatomy|location|disease|pathology|sex|age"
)
_SERIES = re.compile("series(?:instance)?(?:id|uid|no|number)?")
_SPLIT = re.compile("splits?|folds?|subsets?|partitions?")
_LONGEST = 60
"""Characters of a name that is compared with others."""


def is_case(name: str) -> bool:
    """Whether a column must be a patient, a case or an article: ``patientid``, ``anon_patient``, ``meta.ptid``."""
    return any(_means_case(part) for part in (name, name.rpartition(".")[2]))


def _means_case(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    whole = "".join(words)
    if any(_OF_CASE.fullmatch(word) for word in words):
        return False
    if "article" in words:  # article_subject, article_abstract: of an article
        return bool(_ARTICLE.fullmatch(whole))
    if _GROUP.fullmatch(whole):
        return True
    return any(_CASE.fullmatch(word) or _ARTICLE.fullmatch(word) for word in (*words, whole))


def widest_case(names: Iterable[str]) -> str:
    """The one of columns of cases that holds most images together: the patient before the study."""
    return min(
        names,
        key=lambda name: next(
            (place for place, word in enumerate(_CASES) if word in name.lower()), len(_CASES)
        ),
    )


def intention(name: str, unread: Iterable[str]) -> str:
    """What a column that is not used is likely meant for; empty where nothing suggests itself.

    Args:
        name: of the column.
        unread: the fields that no column gives.
    """
    plain = re.sub(r"[^a-z]", "", name.lower())
    if _LABEL.fullmatch(plain):
        return f"a label? options: {{labels: {name}}}"
    if is_case(name):
        return "another case than group_id?"
    if _SERIES.fullmatch(plain):
        return "a part of a case? the case is the patient or study"
    if _SPLIT.fullmatch(plain):
        return "are all splits in one file? It is read as one: write a file for each"
    if len(name) > _LONGEST:
        return ""
    close = difflib.get_close_matches(name.lower(), list(unread), n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else ""
