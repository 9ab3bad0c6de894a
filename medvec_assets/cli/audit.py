"""`medvec audit ...`: the commands of whoever must prove something.

Belongs here: the sub-app, and what is asked of the access log: verify, export, seal, alerts. Does not belong here: any
work (resources.access_log, query.harvesting), the audit of lineage (audit_lineage).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from medvec_assets import printing
from medvec_assets.cli.shared import AsJson, app, settings_here, show

audit = typer.Typer(no_args_is_help=True, help="Prove where answers come from, and who was given which.")
app.add_typer(audit, name="audit")


class Format(StrEnum):
    JSONL = "jsonl"
    FHIR = "fhir"  # Bundles of AuditEvent, one a line


@audit.command()
def verify(as_json: AsJson = False) -> None:
    """Find every changed, missing or reordered event or segment and every cut tail; exit 1 if there is one."""
    from resources.access_log import Keys
    from resources.access_log.places import Place
    from resources.access_log.sealing import archive
    from resources.access_log.verifying import verify as look

    settings = settings_here()
    keys = Keys.of(settings)
    report = look(archive(settings), Place.of(settings), keys)
    show({"ok": report.ok, **asdict(report), "public_key": keys.public_key}, as_json, printing.access_log)
    if not report.ok:
        raise typer.Exit(1)


@audit.command()
def export(
    since: Annotated[datetime | None, typer.Option(help="UTC, inclusive; default: a day before until.")] = None,
    until: Annotated[datetime | None, typer.Option(help="UTC, exclusive; default: now.")] = None,
    format: Annotated[
        Format, typer.Option(help="jsonl: an event a line; fhir: R4 Bundles of AuditEvent.")
    ] = Format.JSONL,
) -> None:
    """Write events to stdout, one JSON object a line. What was tampered with is not among them: verify names it."""
    from resources.access_log import Keys, fhir
    from resources.access_log.places import Place
    from resources.access_log.reading import events
    from resources.access_log.sealing import archive

    settings = settings_here()
    end = until.replace(tzinfo=UTC) if until else datetime.now(UTC)
    begin = since.replace(tzinfo=UTC) if since else end - timedelta(days=1)
    lines = events(archive(settings), Place.of(settings), Keys.of(settings), begin, end)
    rows: Iterator[dict[str, Any]] = (
        fhir.bundles(lines)
        if format is Format.FHIR
        else (
            {"writer": one.writer, "sequence": one.sequence, **one.facts, "previous": one.previous, "hash": one.hash}
            for one in lines
        )
    )
    for row in rows:
        print(json.dumps(row))


@audit.command()
def seal(as_json: AsJson = False) -> None:
    """Seal what services that do not run any more left; a running one seals its own."""
    from resources.access_log import Keys
    from resources.access_log.places import Place
    from resources.access_log.sealing import archive
    from resources.access_log.sealing import seal as put

    settings = settings_here()
    done = put(archive(settings), Place.of(settings), Keys.of(settings))
    show({"sealed": [asdict(one) for one in done]}, as_json, printing.sealed)


@audit.command()
def alerts(
    since: Annotated[datetime | None, typer.Option(help="UTC; default: a week ago.")] = None, as_json: AsJson = False
) -> None:
    """Callers who walk through the neighbours of a whole dataset; exit 1 if there is one."""
    from medvec_assets.query.harvesting import harvesting
    from resources.lakehouse import Lakehouse

    settings = settings_here()
    found = harvesting(settings, Lakehouse.open(settings), since.replace(tzinfo=UTC) if since else None)
    show({"alerts": [asdict(one) for one in found]}, as_json, printing.harvesting)
    if found:
        raise typer.Exit(1)
