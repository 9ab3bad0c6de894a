"""The score of a partition: how many identifiers were planted in copies of its objects, and which of them came through.

Belongs here: the scored run in a lake and a home of its own, what is searched of it. Does not belong here: which copies
(source), what is done about a leak (checks), what is kept of a score (scores).

The run is the stages': manifest, records, and the entities that the index would be given. Encoders are not run: what
embeddings and entities hold beside vectors comes from the records.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import polars as pl
from pydantic import SecretStr

from medvec_assets import fingerprints
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.scorer.influence import leaks_of
from medvec_assets.scorer.plants import Mint, Token
from medvec_assets.scorer.search import Leak, Searcher
from medvec_assets.scorer.source import Copies, connector_of, copies_of
from medvec_assets.stages import entities, manifest, records
from medvec_assets.stages.context import Context
from resources import tables
from resources.errors import MedvecError
from resources.lakehouse import Lakehouse

VERSION = "scorer-3"  # declared by hand: it moves when every partition is to be scored again
SOURCE_COLUMNS = frozenset({"uri", "subject_ref", "record_ref", "attributes"})
"""Of the manifest in bronze: they hold what the source says. No other column of any table may."""


@dataclass(frozen=True)
class Score:
    """What one run showed. `planted` counts distinct tokens, `places` and `kinds` where and of what kind they were."""

    seed_digest: str
    planted: int = 0
    kinds: int = 0
    places: int = 0
    objects: int = 0
    copies: int = 0
    readable_copies: int = 0
    records: int = 0
    quarantined: int = 0
    leaks: tuple[Leak, ...] = ()
    not_plantable: tuple[str, ...] = ()
    failure: str = ""
    """The code of the error that ended the scored run, if one did: nothing is proved then."""
    resolved_uid_references: int = 0
    unresolved_uid_references: int = 0
    dates_kept: int = 0
    intervals_broken: int = 0
    codes_missing: int = 0
    ages_over_90: int = 0
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """No leak, and of files that were written everything that must still hold does."""
        faults = self.unresolved_uid_references + self.intervals_broken + self.codes_missing + self.ages_over_90
        return not (self.leaks or self.failure or faults)


def counted(tokens: list[Token]) -> tuple[int, int, int]:
    """(`planted`, `kinds`, `places`) of a score that planted `tokens`."""
    values, kinds, places = ({getattr(token, name) for token in tokens} for name in ("value", "kind", "place"))
    return len(values), len(kinds), len(places)


def score(ctx: Context, spec: DatasetSpec, partition: str, seed: bytes | None = None) -> Score:
    """Plant into copies of a few of the partition's objects, run them through the stages, look for what came through.

    The partition must have records. `seed` decides the tokens; without one they are new.
    """
    started = time.monotonic()
    mint = Mint(seed if seed is not None else secrets.token_bytes(32))
    with ctx.scratch() as folder:
        copies = copies_of(ctx, spec, partition, mint)
        searcher = Searcher(mint.tokens)
        with listening() as heard:
            run = _run(ctx, spec, copies, folder / "run", mint.seed_digest, heard)
            if run.failure and copies.damaged:
                # A damaged copy may be taken for a source that as a whole is not what it says.
                run = _run(ctx, spec, copies.whole(), folder / "run again", mint.seed_digest, heard)
        leaks = _search(searcher, spec, folder, run, heard) | run.influence
    planted, kinds, places = counted(mint.tokens)
    return Score(
        seed_digest=mint.seed_digest,
        planted=planted,
        kinds=kinds,
        places=places,
        objects=copies.objects,
        copies=len(copies.rows),
        readable_copies=len(copies.rows) - len(copies.damaged),
        records=run.records,
        quarantined=run.quarantined,
        leaks=tuple(sorted(leaks)),
        not_plantable=tuple(sorted(copies.not_plantable)),
        failure=run.failure,
        seconds=time.monotonic() - started,
    )


@dataclass
class _Run:
    records: int = 0
    quarantined: int = 0
    entities: bytes = b""
    influence: set[Leak] = field(default_factory=set)
    failure: str = ""


def _run(ctx: Context, spec: DatasetSpec, copies: Copies, folder: Path, name: str, heard: list[str]) -> _Run:
    """The stages over the copies, in a lake and a home below `folder`."""
    done = _Run()
    if not copies.rows:
        return done
    connector = connector_of(ctx, spec, copies, folder / "in", f"planted-{name}")
    key = SecretStr(ctx.settings.pseudonym_secret.hex())
    settings = ctx.settings.model_copy(
        update={"home": folder / "home", "lake_uri": str(folder / "lake"), "pseudonym_key": key}
    )
    scored = Context(settings, Lakehouse(settings.lake), f"score-{name}", progress=_progress(heard))
    scored._connectors[spec.id] = connector
    try:
        for partition in manifest.refresh(scored, spec).plan["partition"]:
            outcome = records.build(scored, spec, partition)
            done.records += outcome.rows_out
            done.quarantined += outcome.quarantined
        done.entities = _entities(scored, spec)
        done.influence = _influence(scored, spec, copies)
    except MedvecError as error:
        heard.append(str(error))
        done.failure = error.code
    return done


def _entities(ctx: Context, spec: DatasetSpec) -> bytes:
    """What the index would be told of the records beside their vectors, as JSON lines."""
    silver = ctx.lake.snapshot(tables.records(spec.id))
    if silver is None:
        return b""
    rows = silver.read()
    ids = [fingerprints.vector_id(spec.id, "-", record_id) for record_id in rows["record_id"]]
    constant = {"content_digest": "", "fingerprint": "", "part_kind": "whole"}
    rows = rows.with_columns(
        *(pl.lit(value).alias(name) for name, value in constant.items()),
        pl.lit(0, pl.Int32).alias("part_index"),
        pl.Series("vector_id", ids, pl.String),
    )
    found = [
        entities.of_rows(spec, part.with_columns(content_digest=pl.col("record_id")), part["partition"][0])
        for part in rows.drop("subject_key", "object_ids", "text", "payload_uri", "payload").partition_by("partition")
    ]
    return b"\n".join(frame.write_ndjson().encode() for frame in found)


def _influence(ctx: Context, spec: DatasetSpec, copies: Copies) -> set[Leak]:
    """Leaks of what a record depends on, though it may stand nowhere."""
    table = tables.records(spec.id)
    silver = ctx.lake.snapshot(table)
    return set() if silver is None or not copies.pairs else leaks_of(copies.pairs, silver.read(), table.path)


# ---------------------------------------------------------------- what is searched


def _search(searcher: Searcher, spec: DatasetSpec, folder: Path, run: _Run, heard: list[str]) -> set[Leak]:
    leaks: set[Leak] = set()
    for each in sorted(folder.glob("run*")):
        leaks |= searcher.in_folder(each / "lake", "lake", _is_sources_own(spec))
        leaks |= searcher.in_folder(each / "home", "home", lambda found: found.startswith("home/landed/"))
    leaks |= searcher.in_bytes(run.entities, "index entities")
    leaks |= searcher.in_text("\n".join(heard), "logs, warnings and error messages")
    return {Leak(leak.kind, leak.planted, _shortened(leak.found), leak.spelling) for leak in leaks}


def _is_sources_own(spec: DatasetSpec) -> Callable[[str], bool]:
    rows = f"lake/{tables.manifest(spec.id).path}/"

    def known(found: str) -> bool:
        if not found.startswith(rows) or "/_delta_log/" in found:
            return False
        _, column, name = found.partition(": column ")
        return not column or name in SOURCE_COLUMNS  # of a file's raw bytes no column can be told

    return known


def _shortened(found: str) -> str:
    """The table, or the dataset's payloads, without the random name or the digest of one of its files."""
    return re.sub(r"/[^/]*\.(parquet|json)(?=$|:)|/[0-9a-f]{2}/[0-9a-f]{64}(?=$|:)", "", found).removeprefix("lake/")


# ---------------------------------------------------------------- what is heard


def _progress(heard: list[str]) -> Callable[[str, int, int], None]:
    return lambda what, done, total: heard.append(what)


@contextmanager
def listening() -> Iterator[list[str]]:
    """What is logged, warned and printed by Python code meanwhile; printed and logged lines go on to where they went."""
    heard: list[str] = []
    handler = _Handler(heard)
    root, shown, streams = logging.getLogger(), warnings.showwarning, (sys.stdout, sys.stderr)

    def warned(message: Any, category: Any, *place: Any, **more: Any) -> None:
        heard.append(f"{category.__name__}: {message}")

    root.addHandler(handler)
    warnings.showwarning = warned
    sys.stdout, sys.stderr = (_Tee(stream, heard) for stream in streams)
    try:
        yield heard
    finally:
        sys.stdout, sys.stderr = streams
        warnings.showwarning = shown
        root.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.NOTSET)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(self.format(record))


@dataclass
class _Tee:
    stream: TextIO
    heard: list[str] = field(repr=False)

    def write(self, text: str) -> int:
        self.heard.append(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
