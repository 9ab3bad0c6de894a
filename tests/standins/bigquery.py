"""google.cloud.bigquery's client as omop_tables uses it, over the Parquet files of an OMOP release.

get_table(name).etag and .schema; query(sql).result(page_size=...).to_arrow_iterable(). NotFound, Forbidden and
ServiceUnavailable are the real library's. Only SELECT <columns> FROM <table> is understood.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core import exceptions
from google.cloud import bigquery

PROJECT = "fc-aou-cdr-prod-ct"


class Client:
    """`folder` holds <table>.parquet; the data set is called as the folder is."""

    def __init__(self, folder: Path, *, allowed: bool = True) -> None:
        self.folder, self.allowed = folder, allowed
        self.queries: list[str] = []
        self.fails_after: dict[str, int] = {}  # table -> pages that come before the service fails, once

    def get_table(self, name: str) -> Any:
        path = self._path(name)
        fields = [bigquery.SchemaField(field.name, "STRING") for field in pq.read_schema(path)]
        return SimpleNamespace(etag=hashlib.sha256(path.read_bytes()).hexdigest()[:24], schema=fields)

    def query(self, sql: str) -> Any:
        self.queries.append(sql)
        sys.audit("medvec.table", sql)  # for tests that watch a process from within
        found = re.fullmatch(r"SELECT ((?:`\w+`(?:, )?)+) FROM `([\w.-]+)`", sql)
        if not found:
            raise exceptions.BadRequest("Syntax error")
        columns, path = re.findall(r"`(\w+)`", found[1]), self._path(found[2])
        return SimpleNamespace(
            result=lambda page_size: _Rows(self, pq.read_table(path, columns=columns), path.stem, page_size)
        )

    def _path(self, name: str) -> Path:
        project, dataset, table = name.split(".")
        if not self.allowed:
            raise exceptions.Forbidden(f"Access Denied: Table {name}")
        path = self.folder / f"{table}.parquet"
        if (project, dataset) != (PROJECT, self.folder.name) or not path.is_file():
            raise exceptions.NotFound(f"Not found: Table {name}")
        return path


class _Rows:
    def __init__(self, client: Client, table: pa.Table, name: str, page_size: int) -> None:
        self._client, self._table, self._name, self._page_size = client, table, name, page_size

    def to_arrow_iterable(self) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(self._table.to_batches(max_chunksize=self._page_size)):
            if self._client.fails_after.get(self._name) == number:
                del self._client.fails_after[self._name]
                raise exceptions.ServiceUnavailable("backend error")
            yield batch
