"""GEO's series matrix files: one pass from a gzipped table to a column-wise form. A helper of geo_series, not a connector.

Belongs here: the file's layout, what makes one unusable, the canonical bytes of a sample's column. Does not belong here:
where files are (geo_series), what the values mean (modality expression).

A matrix may have gigabytes: it is read once, a block of rows at a time, into Parquet with a column a sample, from which
one sample is read without the others. The canonical bytes of a sample are UTF-8, one `\\n` a line:

    #tissue: lung            (the sample's characteristics, which are the submitter's words)
    #series: GSE1000
    #platform: GPL96
    #sample: GSM15785
    #type: RNA
    #molecule: total RNA
    #organism: Homo sapiens
    feature_id	value
    1007_s_at	8.21         (values as the file spells them, without quotes)
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import polars as pl

from resources.errors import ObjectRejected

SAMPLE = re.compile(r"GSM[0-9]+")
SERIES = re.compile(r"GSE[0-9]+")
BLOCK_BYTES = 8 << 20  # of rows in memory at a time, at least; at most 64 MB, which take 1 GB as columns
BLOCK_ROWS = 1_000  # of a wide table: each block costs a chunk a column, which reading one column must look up
MAX_HEADER_BYTES = 512 << 20  # 50 lines of 200 bytes for each of 50,000 samples
TABLE, SAMPLES, BROKEN = "table.parquet", "samples.json", "broken.json"
_BEGIN, _END = "!series_matrix_table_begin", "!series_matrix_table_end"
_KEPT = {
    "!Series_geo_accession": "series",
    "!Sample_geo_accession": "sample",
    "!Sample_platform_id": "platform",
    "!Sample_type": "type",
    "!Sample_molecule_ch1": "molecule",
    "!Sample_organism_ch1": "organism",
    "!Sample_characteristics_ch1": "characteristic",
}
_LINES = ("series", "platform", "sample", "type", "molecule", "organism")
_RESERVED = (*_LINES, "value_type")  # keys that no submitter's characteristic may take
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_ ]{0,63}")
# Characteristics whose value names the person or animal that a sample is of: GEO has no field for it.
_SUBJECT = re.compile(
    r"(patient|subject|donor|individual|participant|case|animal|mouse)([ _]?(id|number|no\.?|identifier))?"
)
_MESSAGES = {  # what acc.cgi says where an accession has no public data
    "was deleted by": "series_withdrawn",
    "has been deleted": "series_withdrawn",
    "is currently private": "series_private",
    "could not find a public or private accession": "series_missing",
}
_REMEDIES = {
    "series_withdrawn": "GEO has deleted the series; nothing to do: what was made of it goes",
    "series_private": "the series is not public now; it is listed again when GEO releases it",
    "series_missing": "GEO knows no such series: correct the accession in MEDVEC_SOURCES",
    "not_gzip": "the file is no gzip file: mirror it again",
    "truncated_gzip": "the file ends too early, or its checksum is wrong: mirror it again",
    "matrix_layout": "the file is not laid out as a series matrix: mirror it again, or ask GEO",
    "matrix_encoding": "sample names and values must be UTF-8: ask GEO, or convert the mirrored file",
    "matrix_shifted": "a line has more or fewer fields than there are samples, so no column can be trusted: ask GEO",
    "matrix_empty": "the series has no values in its matrix (they are in its supplementary files); nothing to do",
    "duplicate_sample": "a sample stands twice in the table: ask the submitter which column is meant",
    "sample_mismatch": "the sample stands in the header or in the table, and not in both: ask the submitter",
    "bad_accession": "a column is not named after a sample of GEO (GSM...): ask the submitter",
}


def refused(code: str) -> ObjectRejected:
    """The refusal called `code`, in words that quote nothing of the file."""
    return ObjectRejected(f"a series matrix is refused ({code})", code=code, remedy=_REMEDIES[code])


def message_code(page: bytes) -> str | None:
    """What GEO's page says of an accession without public data: a code, or None if it is no such page."""
    text = page[:100_000].decode("utf-8", "replace").lower()
    return next((code for phrase, code in _MESSAGES.items() if phrase in text), None)


@dataclass
class _Sample:
    """One sample of the header, and the digest of its bytes as far as the table has been read."""

    accession: str
    lines: bytes
    subject: str | None
    platform: str
    digest: Any = field(default_factory=hashlib.sha256)
    size_bytes: int = 0
    code: str | None = None

    def add(self, data: bytes) -> None:
        self.digest.update(data)
        self.size_bytes += len(data)

    def facts(self) -> dict[str, Any]:
        return {
            "accession": self.accession,
            "lines": self.lines.decode(),
            "subject": self.subject,
            "platform": self.platform,
            "sha256": self.digest.hexdigest(),
            "size_bytes": self.size_bytes,
            "code": self.code,
        }


def convert(source: io.RawIOBase | io.BufferedIOBase, target: Path) -> None:
    """Makes the folder `target` of a matrix file: TABLE and SAMPLES, or BROKEN with the code if it cannot be used.

    That a file is broken is kept too: it is not read again until it changes.
    """
    target.mkdir()
    try:
        facts = _converted(source, target / TABLE)
    except ObjectRejected as refusal:
        (target / TABLE).unlink(missing_ok=True)
        (target / BROKEN).write_text(json.dumps({"code": refusal.code}))
        return
    (target / SAMPLES).write_text(json.dumps(facts))


def samples(folder: Path) -> list[dict[str, Any]]:
    """What `convert` found of each sample. Raises ObjectRejected if the file is broken."""
    broken = folder / BROKEN
    if broken.exists():
        raise refused(json.loads(broken.read_text())["code"])
    found: list[dict[str, Any]] = json.loads((folder / SAMPLES).read_text())
    return found


def sample_bytes(folder: Path, accession: str) -> bytes:
    """The canonical bytes of one sample. Raises ObjectRejected `object_missing` if the file does not hold it."""
    import pyarrow.parquet as pq

    lines, layout = _opened(folder)
    if accession not in lines:
        remedy = "refresh the manifest: the file changed"
        raise ObjectRejected("the matrix does not hold the sample", code="object_missing", remedy=remedy)
    columns = pq.ParquetFile(folder / TABLE, metadata=layout).read(["feature_id", accession], use_threads=False)
    table = pl.from_arrow(columns)
    assert isinstance(table, pl.DataFrame)
    return lines[accession] + _rows(table, accession)


@lru_cache(maxsize=4)  # a landed folder never changes; of 10,000 samples each costs 50 ms to look up anew
def _opened(folder: Path) -> tuple[dict[str, bytes], Any]:
    """The head lines of the samples that can be used, and the table's layout."""
    import pyarrow.parquet as pq

    lines = {one["accession"]: one["lines"].encode() for one in samples(folder) if one["code"] is None}
    return lines, pq.read_metadata(folder / TABLE)


def _rows(table: pl.DataFrame, accession: str) -> bytes:
    lines = table.select(pl.concat_str("feature_id", pl.lit("\t"), accession, pl.lit("\n")).str.join(""))
    return str(lines.item() or "").encode()


# ---------------------------------------------------------------- the one pass


def _converted(source: io.RawIOBase | io.BufferedIOBase, table: Path) -> list[dict[str, Any]]:
    start = source.read(512) or b""
    if not start.startswith(b"\x1f\x8b"):
        raise refused(message_code(start + (source.read(100_000) or b"")) or "not_gzip")
    source.seek(0)
    try:
        with io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=source)), BLOCK_BYTES) as lines:
            found = _header(lines)
            columns = _columns(lines, found)
            _write(lines, columns, found, table)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise refused("truncated_gzip") from None
    for sample in found.values():
        if sample.accession not in columns and sample.code is None:
            sample.code = "sample_mismatch"
    return [sample.facts() for sample in found.values()]


def _header(lines: BinaryIO) -> dict[str, _Sample]:
    """The samples of the `!Sample_` lines, by accession. Lines that are not kept may hold any bytes."""
    kept: dict[str, list[list[str]]] = {name: [] for name in _KEPT.values()}
    size = 0
    while True:
        line = lines.readline(MAX_HEADER_BYTES)
        size += len(line)
        if not line or size >= MAX_HEADER_BYTES:
            raise refused("matrix_layout")
        name, _, rest = line.partition(b"\t")
        if name.strip() == _BEGIN.encode():
            return _sample_heads(kept)
        known = _KEPT.get(name.decode("latin-1"))
        if known:
            kept[known].append([_unquoted(cell) for cell in _decoded(rest).rstrip("\r\n").split("\t")])


def _sample_heads(kept: dict[str, list[list[str]]]) -> dict[str, _Sample]:
    series = kept["series"][0][0] if kept["series"] else ""
    accessions = kept["sample"][0] if kept["sample"] else []
    if not SERIES.fullmatch(series) or len(kept["sample"]) != 1:
        raise refused("matrix_layout")
    per_sample = [(name, cells) for name, lines in kept.items() if name != "series" for cells in lines]
    if any(len(cells) != len(accessions) for _, cells in per_sample):
        raise refused("matrix_shifted")
    heads: dict[str, _Sample] = {}
    for position, accession in enumerate(accessions):
        told = [(name, cells[position]) for name, cells in per_sample if cells[position]]
        characteristics = dict(_characteristic(value) for name, value in told if name == "characteristic")
        own = {"series": series} | dict(told)
        sample = _Sample(accession, _lines(characteristics, own), _subject(characteristics), own.get("platform", ""))
        if not SAMPLE.fullmatch(accession):
            sample.code = "bad_accession"
        elif accession in heads:
            heads[accession].code = "duplicate_sample"
            continue
        sample.add(sample.lines)
        heads[accession] = sample
    return heads


def _characteristic(value: str) -> tuple[str, str]:
    """`Tissue: lung` as a key in lower case and its value."""
    label, _, rest = value.partition(":")
    return label.strip().lower(), rest.strip()


def _lines(characteristics: dict[str, str], own: dict[str, str]) -> bytes:
    kept = [(label, value) for label, value in characteristics.items() if _LABEL.fullmatch(label) and value]
    lines = [(label, value) for label, value in kept if label.replace(" ", "_") not in _RESERVED]
    lines += [(name, own[name]) for name in _LINES if name in own]
    return ("".join(f"#{name}: {value}\n" for name, value in lines) + "feature_id\tvalue\n").encode()


def _subject(characteristics: dict[str, str]) -> str | None:
    """The value of the characteristic that names whom the sample is of."""
    return next((value for label, value in characteristics.items() if value and _SUBJECT.fullmatch(label)), None)


def _columns(lines: BinaryIO, found: dict[str, _Sample]) -> list[str]:
    """The table's column names after the first; those that cannot be told apart or are not in the header are marked."""
    cells = [_unquoted(cell) for cell in _decoded(lines.readline(MAX_HEADER_BYTES)).rstrip("\r\n").split("\t")]
    if cells[0] != "ID_REF":
        raise refused("matrix_layout")
    for name in cells[1:]:
        if name not in found:
            known = SAMPLE.fullmatch(name)
            found[name] = _Sample(name, b"", None, "", code="sample_mismatch" if known else "bad_accession")
        elif cells.count(name) > 1:
            found[name].code = "duplicate_sample"
    if len(cells) == 1:
        raise refused("matrix_empty")
    return cells[1:]


def _write(lines: BinaryIO, columns: list[str], found: dict[str, _Sample], table: Path) -> None:
    """The table's rows into Parquet, and into the digests of the samples that can be used."""
    import pyarrow.parquet as pq

    usable = [position for position, name in enumerate(columns) if found[name].code is None]
    rows, writer = 0, None
    try:
        for batch in _batches(lines, len(columns)):
            block = batch.select([0, *(position + 1 for position in usable)])
            block = block.rename_columns(["feature_id", *(columns[position] for position in usable)])
            writer = writer or pq.ParquetWriter(table, block.schema, compression="zstd", use_dictionary=False)
            writer.write_batch(block)
            frame = pl.from_arrow(block)
            assert isinstance(frame, pl.DataFrame)
            for position in usable:
                found[columns[position]].add(_rows(frame, columns[position]))
            rows += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    if not rows:
        raise refused("matrix_empty")


def _batches(lines: BinaryIO, samples: int) -> Iterator[Any]:
    """Record batches of strings, [rows, 1 + samples], up to the line that ends the table."""
    import pyarrow as pa
    from pyarrow import csv

    ended: list[int] = []

    def judged(row: Any) -> str:
        if row.text.strip() != _END:
            return "error"
        ended.append(1)
        return "skip"

    names = [str(number) for number in range(samples + 1)]
    block_bytes = min(max(BLOCK_BYTES, 10 * samples * BLOCK_ROWS), 64 << 20)
    try:
        reader = csv.open_csv(
            lines,
            csv.ReadOptions(column_names=names, block_size=block_bytes),
            csv.ParseOptions(delimiter="\t", invalid_row_handler=judged),
            csv.ConvertOptions(column_types={name: pa.string() for name in names}, quoted_strings_can_be_null=False),
        )
        yield from reader
    except pa.ArrowInvalid as error:
        if ended and "Empty CSV" in str(error):
            raise refused("matrix_empty") from None
        raise refused("matrix_encoding" if "UTF8" in str(error) else "matrix_shifted") from None
    if not ended:
        raise refused("matrix_layout")


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise refused("matrix_encoding") from None


def _unquoted(cell: str) -> str:
    """A cell without its quotes; control characters, which would break a line of ours, become spaces."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", cell.strip().removeprefix('"').removesuffix('"'))
