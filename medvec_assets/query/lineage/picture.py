"""The chain drawn as SVG: six boxes from left to right, release to vector, and what led from each to the next.

Self-contained, and drawn with attributes only: no style, no script, no font or image from elsewhere, so that any content
policy lets it stand. A reader that cannot see it has the title and the whole chain as its description; a value that is cut
to fit is whole in its tooltip.

Belongs here: the drawing. Does not belong here: what is told (chain), the page around it (page).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

WIDTH, GAP, MARGIN, TOP = 190, 46, 16, 44
LINE, HEAD = 34, 30
CHARS = 23  # of a value in a box, at 12 px of a monospaced font
_INK, _FAINT, _EDGE, _FILL = "#1b1f24", "#57606a", "#0b5cad", "#f6f8fa"

Facts = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Box:
    """One step: `facts` are shown, `via` says what led here from the box before."""

    title: str
    facts: Facts
    via: str = ""


def boxes(told: dict[str, Any]) -> list[Box]:
    """The six steps of a chain, the source first."""
    upstream, record, embedding, vector = (told[name] for name in ("upstream", "record", "embedding", "vector"))
    commits = {one["asset"].rsplit("_", 1)[-1]: one for one in told["commits"]}
    first = told["objects"][0] if told["objects"] else {}
    objects = len(told["objects"])
    actions = record["deid_actions"] or {}
    return [
        Box(
            "Upstream release",
            (
                ("source", upstream["source"]),
                ("dataset", upstream["dataset"]),
                ("version", upstream["version"]),
                ("listed", upstream["observed_at"]),
            ),
        ),
        Box(
            "Source object" if objects == 1 else f"{objects:,} source objects",
            (
                ("id", first.get("object_id")),
                ("license", first.get("license")),
                (first.get("checksum_kind") or "checksum", first.get("checksum")),
                ("release", first.get("upstream_version")),
            ),
            "publishes",
        ),
        Box("Manifest", _commit(commits.get("manifest")), "listed"),
        Box(
            "Record",
            (
                ("id", record["record_id"]),
                ("cohort", record["cohort"]),
                ("de-identified by", record["deid_profile"]),
                ("actions", ", ".join(f"{name} {count}" for name, count in actions.items()) or "none"),
                *_commit(commits.get("records"))[:1],
            ),
            "de-identified",
        ),
        Box(
            "Embedding",
            (
                ("encoder", embedding["encoder"]),
                ("weights", embedding["weights_digest"]),
                ("content", embedding["content_digest"]),
                ("fingerprint", embedding["fingerprint"]),
                *_commit(commits.get("embeddings"))[:1],
            ),
            "encoded",
        ),
        Box(
            "Vector",
            (
                ("id", vector["vector_id"]),
                ("collection", vector["collection"] or "not indexed"),
                ("entity", vector["entity_id"]),
                *_commit(commits.get("vectors"))[1:],
            ),
            "indexed",
        ),
    ]


def _commit(commit: dict[str, Any] | None) -> Facts:
    if commit is None:
        return (("Delta version", "not committed"),)
    return (("Delta version", commit["version"]), ("run", commit["run_id"]), ("code", commit["code_version"]))


def svg(told: dict[str, Any]) -> str:
    """The whole picture as a document."""
    drawn = boxes(told)
    height = TOP + HEAD + LINE * max(len(one.facts) for one in drawn) + 2 * MARGIN
    width = 2 * MARGIN + len(drawn) * WIDTH + (len(drawn) - 1) * GAP
    title = f"Lineage of vector {told['vector']['vector_id']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-labelledby="lineage-title lineage-description" font-family="ui-monospace,monospace">',
        f'<title id="lineage-title">{escape(title)}</title>',
        f'<desc id="lineage-description">{escape(described(drawn))}</desc>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    tallest = height - TOP - MARGIN
    for number, box in enumerate(drawn):
        left = MARGIN + number * (WIDTH + GAP)
        if number:
            parts.append(_arrow(left - GAP, TOP + HEAD, box.via))
        parts.append(_box(box, left, tallest))
    return "\n".join([*parts, "</svg>"]) + "\n"


def described(drawn: list[Box]) -> str:
    """The picture in words."""
    told = []
    for box in drawn:
        facts = "; ".join(f"{name} {value}" for name, value in box.facts if value is not None)
        told.append(f"{box.via.capitalize() + ': ' if box.via else ''}{box.title} ({facts}).")
    return " ".join(told)


def _box(box: Box, left: int, height: int) -> str:
    lines = [
        f'<g><rect x="{left}" y="{TOP}" width="{WIDTH}" height="{height}" rx="6" fill="{_FILL}" stroke="{_EDGE}"/>',
        f'<text x="{left + 10}" y="{TOP + 21}" font-size="14" font-weight="bold" fill="{_INK}">{escape(box.title)}</text>',
    ]
    for number, (name, value) in enumerate(box.facts):
        y, text = TOP + HEAD + 16 + number * LINE, "not known" if value is None else str(value)
        lines.append(f'<text x="{left + 10}" y="{y}" font-size="11" fill="{_FAINT}">{escape(_short(str(name)))}</text>')
        lines.append(
            f'<text x="{left + 10}" y="{y + 14}" font-size="12" fill="{_INK}"><title>{escape(text)}</title>'
            f"{escape(_short(text))}</text>"
        )
    return "\n".join([*lines, "</g>"])


def _arrow(left: int, y: int, via: str) -> str:
    right = left + GAP
    label = quoteattr(via)
    return (
        f'<g aria-label={label}><line x1="{left + 4}" y1="{y}" x2="{right - 10}" y2="{y}" stroke="{_EDGE}" '
        f'stroke-width="2"/><path d="M{right - 12} {y - 6}L{right - 3} {y}L{right - 12} {y + 6}z" fill="{_EDGE}"/>'
        f'<text x="{(left + right) // 2}" y="{TOP - 14}" font-size="11" text-anchor="middle" fill="{_FAINT}">'
        f"{escape(via)}</text></g>"
    )


def _short(text: str) -> str:
    return text if len(text) <= CHARS else f"{text[: CHARS - 1]}…"
