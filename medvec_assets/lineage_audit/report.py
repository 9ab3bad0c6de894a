"""The report of a lineage audit: as JSON, as a page, signed.

Belongs here: what a report says and where it is written. Does not belong here: finding anything, the signature (resources).
No report holds a subject, a text or the URI of an object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any
from uuid import uuid4

from medvec_assets import provenance
from medvec_assets.lineage_audit.again import TOLERANCE
from medvec_assets.lineage_audit.audit import Audited, Scope
from medvec_assets.lineage_audit.findings import MAX_NAMED, RULES, Broken
from medvec_assets.query import html
from resources.object_store import ObjectStore
from resources.settings import Settings
from resources.signatures import SIGNATURE, Signer, public_name

KIND = "medvec lineage audit"
FORMAT = 1
PERSONAL = (
    *("vectors", "records", "objects_read", "payloads_read", "entities", "entity_vectors_compared"),
    "vectors_made_again",
)
"""Counts of what may be one for each person."""
MAX_SHOWN = 200  # rows of the page's table; the JSON names up to MAX_NAMED of each rule and dataset


def of(settings: Settings, scope: Scope, audited: Sequence[Audited], started: datetime, run_id: str) -> dict[str, Any]:
    """The report as a JSON object."""
    broken = [one for dataset in audited for one in dataset.ledger.named]
    return {
        "kind": KIND,
        "format": FORMAT,
        "id": uuid4().hex,
        "run_id": run_id,
        "site": settings.site,
        "started_at": started.isoformat(timespec="seconds"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": provenance.code_version(),
        "image_digest": provenance.image_digest(),
        "scope": {
            "vectors": "all" if scope.sample is None else f"{scope.sample} of each space",
            "recompute_of_each_space": scope.recompute,
            "seed": scope.seed,
            "cosine_tolerance": TOLERANCE,
        },
        "ok": all(one.ok for one in audited),
        "broken_links": sum(one.ledger.total for one in audited),
        "datasets": [_dataset(one) for one in audited],
        "broken": [_broken(one) for one in sorted(broken)],
        "named_at_most": MAX_NAMED,
        "rules": {name: {"link": rule.link, "says": rule.says} for name, rule in RULES.items()},
    }


def _dataset(one: Audited) -> dict[str, Any]:
    return {
        "dataset": one.dataset,
        "ok": one.ok,
        "note": one.note,
        "delta_versions": one.versions,
        "counts": _shown(one),
        "lowest_cosine": one.lowest_cosine,
        "broken": dict(sorted(one.ledger.counts.items())),
    }


def _shown(one: Audited) -> dict[str, int | None]:
    """The counts, or none of them where one of persons is so small that the source forbids to show it: the others would
    tell it."""
    small = any(0 < one.counts.get(name, 0) < one.smallest_count for name in PERSONAL)
    return {name: None if small and name in PERSONAL else number for name, number in one.counts.items()}


def _broken(one: Broken) -> dict[str, str]:
    return {
        "dataset": one.dataset,
        "space": one.space,
        "partition": one.partition,
        "link": one.link,
        "rule": one.rule,
        "object": one.object,
        "detail": one.detail,
        "remedy": one.remedy,
    }


def write(report: dict[str, Any], settings: Settings, folder: str) -> dict[str, str]:
    """Write JSON and page, a signature beside each, and the public key, into `folder` (a path or s3://); name -> URI."""
    signer, store = Signer(settings.home), ObjectStore(folder)
    stem = f"lineage-audit-{report['started_at'][:19].replace(':', '')}-{report['id'][:8]}"
    told = report | {"signed_by": signer.key_id}
    files = {
        f"{stem}.json": (json.dumps(told, indent=1, sort_keys=True) + "\n").encode(),
        f"{stem}.html": as_page(told).encode(),
    }
    files |= {f"{name}{SIGNATURE}": signer.sign(data) for name, data in files.items()}
    files[public_name(signer.key_id)] = signer.public_key()
    for name, data in files.items():
        store.put(name, data)
    return {name: store.uri_of(name) for name in files}


def as_page(report: dict[str, Any]) -> str:
    """The report for a reader."""
    verdict = ("ok", "No broken link.") if report["ok"] else ("broken", f"{report['broken_links']:,} broken links.")
    facts = [
        ("Report", report["id"]),
        ("Made", f"{report['started_at']} to {report['finished_at']}"),
        (
            "By",
            f"{report['code_version']}, image {report['image_digest']}, run {report['run_id']}, site {report['site']}",
        ),
        ("Vectors", report["scope"]["vectors"]),
        ("Made again from the source", f"{report['scope']['recompute_of_each_space']} of each space"),
        ("Seed of the sample", str(report["scope"]["seed"])),
        ("Signed by key", report.get("signed_by", "nobody")),
    ]
    head = ("Dataset", "Verdict", *(name.replace("_", " ") for name in PERSONAL), "Lowest cosine", "Note")
    rows = [
        (
            one["dataset"],
            "whole" if one["ok"] else f"{sum(one['broken'].values())} broken",
            *(one["counts"].get(name, 0) for name in PERSONAL),
            "" if one["lowest_cosine"] is None else f"{one['lowest_cosine']:.7f}",
            one["note"],
        )
        for one in report["datasets"]
    ]
    columns = ("dataset", "space", "partition", "link", "rule", "object", "detail", "remedy")
    broken = [[one[name] for name in columns] for one in report["broken"][:MAX_SHOWN]]
    parts = [
        "<h1>Lineage audit</h1>",
        f'<p class="{verdict[0]}"><strong>{escape(verdict[1])}</strong></p>',
        html.table("What was looked at, and by what", ("", ""), facts),
        html.table("By dataset", head, rows),
    ]
    if broken:
        caption = f"Broken links ({len(broken)} of {report['broken_links']:,}; the JSON names more)"
        parts.append(html.table(caption, [name.capitalize() for name in columns], broken))
    said = [(name, rule.link, rule.says) for name, rule in RULES.items()]
    parts.append(html.table("What holds where nothing is broken", ("Rule", "Link", "Says"), said))
    return html.page("Lineage audit", "\n".join(parts))
