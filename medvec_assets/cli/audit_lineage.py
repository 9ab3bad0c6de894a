"""`medvec audit lineage` and `medvec audit check-report`.

Belongs here: options, and what is shown. Does not belong here: any rule (lineage_audit).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from medvec_assets.cli.audit import audit
from medvec_assets.cli.shared import AsJson, Datasets, settings_here, show, specs_of, stages
from resources.errors import ConfigError

DEFAULT_SAMPLE = 200
MAX_PRINTED = 50
_TOLD = {
    "vectors": "vectors",
    "records": "records",
    "objects_read": "objects read",
    "payloads_read": "payloads read",
    "entities": "entities",
    "entity_vectors_compared": "of them float by float",
    "vectors_made_again": "vectors made again",
}


@audit.command()
def lineage(
    datasets: Datasets = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help=f"So many vectors of each space; {DEFAULT_SAMPLE} without --all.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every vector.")] = False,
    recompute: Annotated[
        int, typer.Option(min=0, help="Make so many vectors of each space again from their source objects.")
    ] = 0,
    seed: Annotated[int | None, typer.Option(help="Of the sample; the report names the one that was used.")] = None,
    output: Annotated[
        str | None, typer.Option(help="Where the signed report goes: a folder or s3://; the lake's reports/.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Derive the chain of every vector again, down to the source's bytes; name every broken link. Exit 1 if there is one."""
    from medvec_assets.lineage_audit import audit, report

    if everything and sample is not None:
        raise ConfigError("--all and --sample exclude each other", remedy="give one of them")
    number = secrets.randbits(31) if seed is None else seed
    scope = audit.Scope(None if everything else sample or DEFAULT_SAMPLE, recompute, number)
    started = datetime.now(UTC)
    with stages() as ctx:
        audited = audit.run(ctx, specs_of(datasets), scope)
        made = report.of(ctx.settings, scope, audited, started, ctx.run_id)
        made["files"] = report.write(made, ctx.settings, output or f"{ctx.lake.root}/reports")
    show(made, as_json, _lines)
    if not made["ok"]:
        raise typer.Exit(1)


@audit.command("check-report")
def check_report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A report, its .sig and .pub.pem beside it.")],
    key: Annotated[
        Path | None, typer.Option(help="The public key that must have signed it; this deployment's, if it has.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a report is, byte for byte, what was signed. Exit 1 if not."""
    from resources.signatures import check

    show(check(file, key, settings_here().home), as_json, _checked)


def _lines(made: dict[str, Any]) -> Iterator[str]:
    for one in made["datasets"]:
        counts = {name: "hidden" if number is None else f"{number:,}" for name, number in one["counts"].items()}
        told = one["note"] or ", ".join(f"{counts[name]} {what}" for name, what in _TOLD.items() if name in counts)
        yield f"{'ok  ' if one['ok'] else 'FAIL'}  {one['dataset']}: {told}"
        yield from (f"      {rule}: {number:,} broken" for rule, number in one["broken"].items())
    for one in made["broken"][:MAX_PRINTED]:
        detail = f" ({one['detail']})" if one["detail"] else ""
        yield f"{one['dataset']} {one['rule']}: {one['object']}{detail}"
        yield f"      What to do: {one['remedy']}"
    if made["broken_links"] > MAX_PRINTED:
        yield f"... {made['broken_links']:,} in all; the report names them"
    yield from (f"report: {uri}" for name, uri in made["files"].items() if name.endswith((".json", ".html")))


def _checked(found: dict[str, Any]) -> Iterator[str]:
    yield f"the report stands: signed by key {found['key_id']} ({found['key']})"
    if found["key"] == "enclosed":
        yield "the key came with the report: compare its id with the one its maker publishes, or give --key"
