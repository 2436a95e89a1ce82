"""Captions as HTML with their mentions marked, and the colours of concepts' kinds."""

import html

import pandas as pd
import pyarrow.parquet as pq

from kg_targets.store import TargetStore, schema

# Okabe and Ito's colours, which colour-blind readers tell apart; kinds that are not listed are grey.
COLOURS = {"modality": "#0072b2", "anatomy": "#009e73", "finding": "#d55e00", "other": "#7a7a7a"}
"""Group of kinds to its colour."""
GROUPS = {
    "modality": "modality",
    "sequence": "modality",
    "region": "anatomy",
    "organ": "anatomy",
    "finding": "finding",
}
"""Kind of a concept to its group; "other" for those that are not here."""
STATUSES = ("negated", "uncertain", "hypothetical", "historical", "family")


def group(kind: str) -> str:
    """Colour group of a concept's kind."""
    return GROUPS.get(kind, "other")


def mentions_of(store: TargetStore, image_id: str) -> pd.DataFrame:
    """The mentions of one image in reading order: the columns of ``schema.MENTION_COLUMNS``; reads no others."""
    files = schema.table_files(store.manifest, schema.MENTIONS)
    tables = [pq.read_table(store.path / file, filters=[("image_id", "=", image_id)]) for file in files]
    found = [schema.complete_mentions(table.to_pandas()) for table in tables if len(table)]
    none: pd.DataFrame = schema.MENTION_COLUMNS.empty_table().to_pandas()
    return pd.concat(found).sort_values("start", kind="stable", ignore_index=True) if found else none


def marked_caption(store: TargetStore, image_id: str) -> str:
    """HTML of a caption, its mentions in the colour of their kind; denied ones are struck through."""
    caption = store.captions[store.row(image_id)]
    kinds = dict(zip(store.concepts["cui"], store.concepts["kind"], strict=True))
    parts, done = [], 0
    for mention in mentions_of(store, image_id).to_dict("records"):
        if mention["start"] < done:  # shipped without a place, or inside another
            continue
        colour = COLOURS[group(kinds.get(mention["cui"], ""))]
        style = f"background:{colour}2e;border-bottom:2px solid {colour};padding:0 2px;border-radius:2px"
        said = [status for status in STATUSES if mention[status]]
        if mention["negated"]:
            style = "text-decoration:line-through;opacity:.6"
        elif said:
            style += ";font-style:italic"
        title = f"{mention['name']} ({mention['cui']}): {', '.join(said) or 'stated'}"
        text = html.escape(caption[mention["start"] : mention["end"]])
        parts.append(html.escape(caption[done : mention["start"]]))
        parts.append(f"<span title='{html.escape(title, quote=True)}' style='{style}'>{text}</span>")
        done = mention["end"]
    return "".join(parts) + html.escape(caption[done:])
