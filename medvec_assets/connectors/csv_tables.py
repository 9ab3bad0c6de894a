"""Large CSV tables as a stream: gzip, header, fields as text, in constant memory.

Belongs here: which columns a table must have, rows that are no rows, bytes that are no UTF-8. Does not belong here: what a
field means (modalities), where the file comes from (physionet).
"""

from __future__ import annotations

import csv
import gzip
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv

from resources.errors import SourceError

BLOCK_BYTES = 8 << 20  # parsed at a time
MAX_BROKEN_SHARE = 0.5  # of a table's rows; above it the columns have moved, and no row is what it seems
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # stands in a field whose bytes were no UTF-8
_GZIP = b"\x1f\x8b"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CsvTable:
    """`path` is CSV, plain or gzip, as its first bytes say; `layout` are its columns as documented, of which `columns` are
    read, in this order."""

    name: str
    path: Path
    layout: tuple[str, ...]
    columns: tuple[str, ...]

    def frames(self) -> Iterator[pl.DataFrame]:
        """`columns` as String, null where a field is empty, about BLOCK_BYTES at a time; then a row of nulls for each row
        whose number of fields is not the header's.

        Raises SourceError: `schema_drift` if a column is missing or most rows have another number of fields,
        `table_unreadable` if the file is no gzip or ends before its end. Further columns are logged and left out.
        """
        header = self._header()
        rows, broken = 0, _Broken()
        try:
            for batch in self._reader(header, broken):
                rows += batch.num_rows
                yield _decoded(batch)
        except (pa.ArrowInvalid, OSError, EOFError) as error:
            raise _unreadable(self.name, error) from None
        if broken.rows > MAX_BROKEN_SHARE * (rows + broken.rows):
            raise SourceError(
                f"of table {self.name} {broken.rows} rows have another number of fields than the header, {rows} have it",
                code="schema_drift",
                remedy="the table's layout has changed, or the file was cut by a tool: fetch it again and compare",
            )
        yield pl.DataFrame({name: [None] * broken.rows for name in self.columns}, schema=_strings(self.columns))

    def _header(self) -> list[str]:
        opener = gzip.open if self._is_gzip() else open
        try:
            with opener(self.path, "rt", encoding="utf-8", errors="replace", newline="") as file:
                header = next(csv.reader(file), [])
        except (OSError, EOFError, csv.Error) as error:
            raise _unreadable(self.name, error) from None
        names = [name.removeprefix("\ufeff").strip() for name in header]
        missing = [name for name in self.columns if names.count(name) != 1]
        if missing:
            raise SourceError(
                f"table {self.name} has no column, or two, called: {', '.join(missing)}",
                code="schema_drift",
                remedy="compare the release's description with the connector's columns; nothing was committed",
            )
        if further := sorted(set(names) - set(self.layout)):
            _log.warning("table %s has columns unknown here, which are left out: %s", self.name, ", ".join(further))
        return names

    def _is_gzip(self) -> bool:
        with self.path.open("rb") as file:
            return file.read(len(_GZIP)) == _GZIP

    def _reader(self, header: Sequence[str], broken: _Broken) -> Any:
        def left_out(_row: Any) -> str:
            broken.rows += 1
            return "skip"

        compression = "gzip" if self._is_gzip() else None
        return pa.csv.open_csv(
            pa.input_stream(str(self.path), compression=compression),
            read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES, column_names=list(header), skip_rows=1),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=left_out),
            convert_options=pa.csv.ConvertOptions(
                include_columns=list(self.columns),
                column_types={name: pa.binary() for name in self.columns},
                null_values=[""],
                strings_can_be_null=True,
            ),
        )


@dataclass
class _Broken:
    rows: int = 0


def _strings(columns: Sequence[str]) -> dict[str, pl.DataType]:
    return dict.fromkeys(columns, pl.String())


def _decoded(batch: pa.RecordBatch) -> pl.DataFrame:
    columns = [_text(column) for column in batch.columns]
    frame = pl.from_arrow(pa.table(columns, names=batch.schema.names))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _text(column: pa.Array) -> pa.Array:
    """Bytes as text; value by value only where one of them is no UTF-8."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        values = (value.as_py() for value in column)
        return pa.array([None if value is None else value.decode("utf-8", "replace") for value in values], pa.string())


def _unreadable(table: str, error: Exception) -> SourceError:
    return SourceError(
        f"table {table} cannot be read as CSV ({type(error).__name__})",
        code="table_unreadable",
        remedy="fetch the file again; if its checksum is the published one, tell the source",
    )
