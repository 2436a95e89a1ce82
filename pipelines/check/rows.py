"""Counts over a split's rows for `kg-targets check`, from a stream: 64-bit digests instead of texts are kept."""

import sys
from array import array
from collections import Counter
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.manifest import Record

MOST_VALUES = 8
"""Values of a label that are shown."""
MOST_DISTINCT = 10_000
"""Values of a label that are counted; what has more is no label to evaluate with."""
MODEL = "ViT-B-16"
"""A model with the tokenizer and the 77 tokens that most models of open_clip have."""
SAMPLED = 20_000
"""Captions whose tokens are counted."""
SURELY_READ = 75
"""Bytes of a caption that fits in any case: a token is at least a byte, and two are special ones."""


class RowCounts:
    """What `check` says of a split's rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.empty_captions = 0
        self._cases, self._images, self._captions, self._paths = (array("q") for _ in range(4))
        self._labels: dict[str, Counter[str]] = {}
        self._sample: list[str] = []
        self._truncated: int | None = None

    def add(self, record: Record) -> None:
        """Count a row."""
        self.rows += 1
        self.empty_captions += not record.caption.strip()
        self._cases.append(hash(record.group_id))
        self._images.append(hash(record.image_id))
        if record.caption.strip():
            self._captions.append(hash(record.caption))
        if record.image_path:
            self._paths.append(hash(record.image_path))
        if len(self._sample) < SAMPLED:
            self._sample.append(record.caption)
        for name, value in record.labels.items():
            counts = self._labels.setdefault(name, Counter())
            if value and (value in counts or len(counts) < MOST_DISTINCT):
                counts[value] += 1

    @property
    def case_keys(self) -> NDArray[np.int64]:
        """A number for each row's case, int64 ``[N]``."""
        return np.asarray(self._cases, dtype=np.int64)

    @property
    def image_keys(self) -> NDArray[np.int64]:
        """A number for each row's image id, int64 ``[N]``."""
        return np.asarray(self._images, dtype=np.int64)

    @property
    def cases(self) -> int:
        """Number of cases."""
        return len(np.unique(self.case_keys))

    @property
    def repeated_captions(self) -> int:
        """Rows whose caption another row has before them."""
        return _repeated(self._captions)

    def labels(self) -> dict[str, dict[str, Any]]:
        """Label to its number of values, the most frequent ones with their counts, and the images without one."""
        return {
            name: {
                "values": len(counts),
                "most_frequent": dict(counts.most_common(MOST_VALUES)),
                "missing": self.rows - counts.total(),
            }
            for name, counts in sorted(self._labels.items())
        }

    def tokens(self) -> dict[str, Any]:
        """Captions that are longer than a text tower reads; nothing without open_clip."""
        long = [caption for caption in self._sample if len(caption.encode()) > SURELY_READ]
        if not self._sample or (long and find_spec("open_clip") is None):
            return {}
        if self._truncated is None and not long:
            self._truncated = 0
        if self._truncated is None:
            if sys.stderr.isatty():
                sys.stderr.write(
                    "counting tokens of long captions, with open_clip, which takes seconds to load\n"
                )
            from open_clip import get_tokenizer

            from training.data.captions import clip_lengths

            lengths, context = clip_lengths(get_tokenizer(MODEL))
            self._truncated = int((lengths(long) > context).sum())
        return {"truncated_captions": self._truncated, "captions_tokenized": len(self._sample)}

    def remarks(self, cases_given: bool = False, can_be_given: bool = True) -> list[str]:
        """Lines for a person: what was noticed and what to do about it.

        Args:
            cases_given: a column names the case.
            can_be_given: the layout has an option to name one.
        """
        lines, repeated, files = [], self.repeated_captions, _repeated(self._paths)
        if self.rows > 1 and self.cases == self.rows and not cases_given:
            advice = "give group_id, or " if can_be_given else ""
            lines.append(
                f"every image is a case of its own: where several are of one patient or article, {advice}they are "
                "negatives of each other and get into several splits and folds"
            )
        if self.empty_captions:
            lines.append(
                f"{self.empty_captions:,} captions are empty: nothing will be known about these images"
            )
        if repeated:
            lines.append(
                f"{repeated:,} captions repeat an earlier one: such images are each other's positives; "
                "where one text stands for many images, retrieval scores have ties"
            )
        if files:
            lines.append(
                f"{files:,} rows name an image file that an earlier row names: one image, several captions"
            )
        tokens = self.tokens()
        if not tokens:
            lines.append(
                "captions too long for a text tower are not counted: pip install 'kg-targets[train]'"
            )
        elif tokens["truncated_captions"]:
            of = tokens["captions_tokenized"]
            lines.append(
                f"{tokens['truncated_captions']:,} of {'the first ' if of < self.rows else ''}{of:,} captions "
                f"({tokens['truncated_captions'] / of:.1%}) exceed the 77 tokens that a text tower reads; "
                "only the targets know the rest (data.long_captions has other ways)"
            )
        return lines


def _repeated(keys: "array[int]") -> int:
    return len(keys) - len(np.unique(np.asarray(keys, dtype=np.int64)))
