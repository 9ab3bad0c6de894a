"""Tables of the OMOP Common Data Model as streams of text columns: a folder of Parquet, or BigQuery inside a Workbench.

Belongs here: the two places, a table's columns, what tells that a table has changed. Does not belong here: which tables
make a person (omop), what a column means (modalities.ehr).

    /data/C2022Q4R13                               <table>.parquet, or <table>/*.parquet as BigQuery exports it
    bigquery://fc-aou-cdr-prod-ct.C2022Q4R13       project and data set, with the environment's own credentials
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet

from resources.errors import ConfigError, SourceError, SourceUnavailable

BATCH_ROWS = 65_536
_FOOTER_BYTES = 8  # a Parquet file ends with its footer's length and "PAR1"
_NAME = re.compile(r"bigquery://([a-z0-9-]+)\.([A-Za-z0-9_]+)/?")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """A table: its columns as documented, those that are read, and those that a CDM need not have."""

    documented: tuple[str, ...]
    kept: tuple[str, ...]
    optional: tuple[str, ...] = ()


class Tables(Protocol):
    is_remote: bool
    name: str
    """Of the release, as its folder or data set is called."""

    def etag(self, table: str) -> str:
        """Changes when the table's content does. Cheap. SourceError `source_missing` if there is no such table."""
        ...

    def frames(self, table: str, layout: Layout) -> Iterator[pl.DataFrame]:
        """`layout.kept` as String, one frame at least. SourceError `schema_drift` if a column is missing, but an optional
        one, which is null then; further columns are logged and left out."""
        ...


def open_tables(source: str) -> Tables:
    """The tables at a MEDVEC_SOURCES entry. Opens nothing yet."""
    if source.startswith("bigquery://"):
        found = _NAME.fullmatch(source)
        if not found:
            raise ConfigError(f"{source} names no data set", remedy="write bigquery://<project>.<data set>")
        return BigQueryTables(found[1], found[2])
    return ParquetTables(Path(source.removeprefix("file://")).expanduser().absolute())


class ParquetTables:
    is_remote = False

    def __init__(self, folder: Path) -> None:
        below = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        releases = [path for path in below if _files(path, "person")]
        # The sample and an export are folders of one release: it may be named itself, or the folder that holds it.
        self._folder = releases[0] if len(releases) == 1 and not _files(folder, "person") else folder
        self.name = self._folder.name

    def etag(self, table: str) -> str:
        """Of the files' names, sizes, times and footers, which hold each column's own extent and statistics."""
        digest = hashlib.sha256()
        for path in self._found(table):
            facts = path.stat()
            digest.update(f"{path.name} {facts.st_size} {facts.st_mtime_ns}".encode() + _footer(path))
        return digest.hexdigest()

    def frames(self, table: str, layout: Layout) -> Iterator[pl.DataFrame]:
        for path in self._found(table):
            try:
                file = pa.parquet.ParquetFile(path)
                missing = _missing(table, file.schema_arrow.names, layout)
                kept = [name for name in layout.kept if name not in missing]
                yield _as_text(pa.Table.from_batches([], file.schema_arrow).select(kept), layout)
                for batch in file.iter_batches(BATCH_ROWS, columns=kept):
                    batch.validate(full=True)  # that texts are UTF-8, which Parquet promises and nobody checks
                    yield _as_text(pa.Table.from_batches([batch]), layout)
            except (pa.ArrowInvalid, OSError) as error:
                raise SourceError(
                    f"table {table} cannot be read as Parquet ({type(error).__name__})",
                    code="table_unreadable",
                    remedy="export the table again",
                ) from None

    def _found(self, table: str) -> list[Path]:
        found = _files(self._folder, table)
        if not found:
            remedy = f"export it as {table}.parquet or {table}/*.parquet, or correct MEDVEC_SOURCES"
            raise SourceError(f"the folder has no table {table}", code="source_missing", remedy=remedy)
        return found


class BigQueryTables:
    """Needs the extra `bigquery`. One query a table and release: what it gives is landed by the table's etag."""

    is_remote = True

    def __init__(self, project: str, dataset: str, client: Any = None) -> None:
        self.name = dataset
        self._project, self._given = project, client

    def etag(self, table: str) -> str:
        found: str = self._asked(lambda client: client.get_table(self._table(table))).etag
        return found

    def frames(self, table: str, layout: Layout) -> Iterator[pl.DataFrame]:
        schema = self._asked(lambda client: client.get_table(self._table(table))).schema
        missing = _missing(table, [field.name for field in schema], layout)
        kept = ", ".join(f"`{name}`" for name in layout.kept if name not in missing)
        rows = self._asked(
            lambda client: client.query(f"SELECT {kept} FROM `{self._table(table)}`").result(page_size=BATCH_ROWS)
        )
        yield _empty(layout)
        pages = rows.to_arrow_iterable()
        while (page := self._asked(lambda _: next(pages, None))) is not None:
            yield _as_text(pa.Table.from_batches([page]), layout)

    def _table(self, table: str) -> str:
        return f"{self._project}.{self.name}.{table}"

    def _asked(self, request: Any) -> Any:
        """What `request(client)` gives. The service's messages, which may quote a query, are not passed on."""
        try:
            from google.api_core import exceptions
            from google.cloud import bigquery
        except ImportError:
            remedy = "install it: pip install 'medvec[bigquery]'"
            raise ConfigError("reading BigQuery needs google-cloud-bigquery", remedy=remedy) from None
        try:
            self._given = self._given or bigquery.Client()
            return request(self._given)
        except exceptions.NotFound:
            remedy = "correct the data set in MEDVEC_SOURCES; the Workbench shows it in WORKSPACE_CDR"
            raise SourceError("BigQuery has no such table", code="source_missing", remedy=remedy) from None
        except (exceptions.Forbidden, exceptions.Unauthorized):
            remedy = "run inside the Workbench, in a workspace of this access tier"
            raise SourceError("BigQuery refuses these credentials", code="credentials_refused", remedy=remedy) from None
        except exceptions.GoogleAPICallError as error:
            remedy = "run again later; tables that were read are kept"
            raise SourceUnavailable(f"BigQuery failed ({type(error).__name__})", remedy=remedy) from None


def _files(folder: Path, table: str) -> list[Path]:
    single = folder / f"{table}.parquet"
    return [single] if single.is_file() else sorted((folder / table).glob("*.parquet"))


def _footer(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _FOOTER_BYTES))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - _FOOTER_BYTES - length))
        return file.read()


def _missing(table: str, names: list[str], layout: Layout) -> set[str]:
    """The optional columns that the table lacks."""
    missing = [name for name in layout.kept if name not in names]
    twice = {name for name in layout.kept if names.count(name) > 1}
    if wanted := sorted(set(missing) - set(layout.optional) | twice):
        raise _drift(f"table {table} has no column, or two, called: {', '.join(wanted)}")
    if further := sorted(set(names) - set(layout.documented)):
        _log.warning("table %s has columns unknown here, which are left out: %s", table, ", ".join(further))
    return set(missing)


def _empty(layout: Layout) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(layout.kept, pl.String()))


def _as_text(table: pa.Table, layout: Layout) -> pl.DataFrame:
    """Columns as String, as JSON would spell them: whole numbers without a point, dates as ISO, null as null."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    texts = frame.select(_text(pl.col(name), dtype).alias(name) for name, dtype in frame.schema.items())
    return pl.concat([_empty(layout), texts], how="diagonal")


def _drift(what: str) -> SourceError:
    remedy = "compare the CDM's version with the connector's columns; nothing was committed"
    return SourceError(what, code="schema_drift", remedy=remedy)


def _text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_nested() or dtype == pl.Binary:
        raise _drift("a column of the CDM holds lists, structures or bytes where texts, numbers or dates are meant")
    if isinstance(dtype, pl.Datetime):
        return column.dt.strftime("%Y-%m-%d %H:%M:%S")
    return column.cast(pl.String)
