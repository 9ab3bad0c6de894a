"""The chain as one HTML page: the picture, and below it every fact whole, to be read, copied and printed.

Belongs here: the order of the facts. Does not belong here: the picture, the frame of a page (query.html).
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

from medvec_assets.query import html as frame
from medvec_assets.query.lineage import picture

_SECTIONS = {
    "vector": "Vector in the index",
    "embedding": "Embedding row",
    "record": "Record",
    "upstream": "Upstream release",
}
_TABLES = {"objects": "Source objects", "commits": "Commits", "runs": "Runs"}
MAX_ROWS = 500  # a series may have thousands of objects; the JSON has them all


def html(told: dict[str, Any]) -> str:
    title = f"Lineage of vector {told['vector']['vector_id']}"
    drawn = picture.svg(told).strip()
    parts = [f"<h1>{escape(title)}</h1>", f"<figure>{drawn}</figure>"]
    for name, heading in _SECTIONS.items():
        facts = [(key, _text(value)) for key, value in told[name].items()]
        parts.append(frame.table(heading, ("Fact", "Value"), facts))
    for name, heading in _TABLES.items():
        rows = told[name]
        if rows:
            lines = [[_text(value) for value in row.values()] for row in rows[:MAX_ROWS]]
            more = f", of which {MAX_ROWS} are shown" if len(rows) > MAX_ROWS else ""
            parts.append(frame.table(f"{heading}: {len(rows):,}{more}", list(rows[0]), lines))
    return frame.page(title, "\n".join(parts))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
