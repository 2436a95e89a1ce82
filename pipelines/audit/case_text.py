"""Do the nearest images belong to cases whose longer text is alike? For texts that stand beside captions.

    T@K = mean over the K nearest images of other cases of cos(t_i, t_j)
    t_w = (1 + ln tf_w)·ln((1 + T)/(1 + df_w)) over the words of a text, T distinct texts   (Salton and Buckley 1988)

A text of history, findings and discussion says more than a caption, and no scorer sees it. It shares words with the
caption, which favours scorers that read words. Texts that share no word have cosine 0.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from scipy import sparse

from kg_targets.scoring.factors import normalise_rows
from kg_targets.store.factors import AnyFactors
from pipelines.audit.report import Section, Table, cells, measure
from pipelines.audit.similarity import mean_of_nearest
from pipelines.audit.subjects import EvaluationSettings, Subjects
from training.statistics.intervals import FloatArray, IntArray

DEPTHS = (10, 30)
"""The K of T@K."""
TITLE = "Neighbours whose case has a similar text"
_WORD = re.compile(r"[^\W\d_]{2,}")


def text_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """T@K of every column of the text table, for every store."""
    if not subjects.texts:
        return Section("case text", TITLE, ["left out: there is no --text-table"])
    lines = ["own case excluded; cosine of tf-idf vectors of words; chance: all images of other cases"]
    measured = []
    for name, texts in subjects.texts.items():
        vectors, cases = text_vectors(texts), subjects.cases
        columns = [shared_text(store.factors, cases, vectors) for store in subjects.stores]
        chance = shared_text(np.zeros((len(cases), 1), np.float32), cases, vectors)
        present = np.diff(vectors.indptr) > 0
        lines.append(f"{name}: {int(present.sum()):,} images, {len(set(texts) - {''}):,} distinct texts")
        measured += [
            measure(name, metric, [column[metric] for column in columns], chance[metric], cases, settings)
            for metric in chance
        ]
    header = ["text", "metric ×100", "chance", *subjects.columns]
    data = {"measures": [asdict(row) for row in measured]}
    return Section("case text", TITLE, lines, Table(header, cells(measured), left=2), data=data)


def shared_text(factors: AnyFactors, cases: IntArray, vectors: sparse.csr_array) -> dict[str, FloatArray]:
    """T@K of every image, float64 [N]; NaN for images without words, and where no other case has any.

    Args:
        factors: unit vectors or zeros, [N, D].
        cases: case of each image, int64 [N].
        vectors: see `text_vectors`.
    """

    def cosine(query: int, columns: IntArray) -> FloatArray:
        return np.asarray((vectors[columns] @ vectors[[query]].T).toarray().ravel())

    found = mean_of_nearest(factors, cases, np.diff(vectors.indptr) > 0, cosine, DEPTHS)
    return {f"T@{depth}": values for depth, values in found.items()}


def text_vectors(texts: Sequence[str]) -> sparse.csr_array:
    """Unit tf-idf vectors, float64 [N, words]; zeros where a text has no word, or only such as all texts have."""
    distinct = list(dict.fromkeys(texts))
    counts = [Counter(_WORD.findall(text.lower())) for text in distinct]
    words = {word: place for place, word in enumerate(sorted(set().union(*counts)))}
    columns = np.array([words[word] for count in counts for word in count], dtype=np.int64)
    values = 1.0 + np.log(np.array([times for count in counts for times in count.values()], dtype=np.float64))
    starts = np.cumsum([0, *map(len, counts)])
    matrix = sparse.csr_array((values, columns, starts), shape=(len(distinct), len(words)))
    written = sum(map(bool, counts))
    idf = np.log((1 + written) / (1 + np.bincount(columns, minlength=len(words))))
    matrix = normalise_rows(sparse.csr_array(matrix @ sparse.diags_array(idf)))
    matrix.eliminate_zeros()
    place = {text: row for row, text in enumerate(distinct)}
    return sparse.csr_array(matrix[[place[text] for text in texts]])
