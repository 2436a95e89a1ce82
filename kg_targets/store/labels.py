"""Labels from a table of one's own, such as `kg-targets label` writes, beside those that a store was built with."""

from pathlib import Path

import pandas as pd

from kg_targets.errors import StoreError
from kg_targets.store.reader import TargetStore

FINDINGS = "findings"
"""Label made of a table of findings: those that are present, joined by "+"."""
_STATES = frozenset(("", "absent", "uncertain", "present"))


def with_labels(store: TargetStore, path: str | Path) -> tuple[TargetStore, str]:
    """The store with the columns of a table as further labels; the folder itself stays as it is.

    Rows are found by image: the table's first column holds ``image_id``, or else ``group_id``, as reports do that
    several images share. Columns of findings (present, uncertain, absent or empty) also give one label ``findings``.

    Args:
        path: CSV or Parquet file.
    Returns:
        The store, and a sentence for people: which id joined, and how many images and rows found no partner.
    Raises:
        StoreError: the table cannot be read, gives an id twice, names a label that the store has, or fits no image.
    """
    table = _read(Path(path))
    ids = table.pop(table.columns[0])
    if taken := [name for name in table if name in store.labels]:
        raise StoreError(f"{path}: the store has a label {taken[0]!r} already: rename the column")
    if ids.duplicated().any():
        raise StoreError(f"{path} has two rows of {ids[ids.duplicated()].iloc[0]!r}: leave one")
    table.index = pd.Index(ids)
    if set(table.to_numpy().ravel()) <= _STATES:
        table[FINDINGS] = ["+".join(row.index[row == "present"]) for _, row in table.iterrows()]
    own, by = store.image_ids, "image_id"
    if not table.index.isin(own).any():
        own, by = store.group_ids, "group_id"
    images, rows = int((~pd.Index(own).isin(table.index)).sum()), int((~table.index.isin(own)).sum())
    if rows == len(table):
        raise StoreError(f"{path}: no id of its first column is an image_id or a group_id of {store.path}")
    joined = table.reindex(list(own), fill_value="")
    labelled = type(store)(store.path, store.manifest)
    labelled.joined = {str(name): joined[name].tolist() for name in joined}
    return labelled, (
        f"{path} joined by {by}: {len(own) - images:,} of {len(own):,} images have a row, "
        f"{rows:,} of {len(table):,} rows have no image here"
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path).fillna("").astype(str)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is no table of labels ({' '.join(str(error).split())[:120]})") from error
    if table.shape[1] < 2:
        raise StoreError(f"{path} needs a column of ids and at least one of labels")
    return table
