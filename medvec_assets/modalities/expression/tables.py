"""A sample's expression table, from bytes to numbers: what it is laid out as, and what makes it unusable.

Belongs here: the two layouts and the rules that a table must satisfy by itself. Does not belong here: scales
(normalise), which genes a space wants (genes), where tables come from (connectors).

    GDC      `# gene-model: ...`, a header `gene_id gene_name gene_type unstranded ... tpm_unstranded ...`, four rows of
             STAR's own counts (N_unmapped, ...), a row per gene; tabs. Counts and TPM
    sample   `#key: value` lines, the header `feature_id value`, a row per probe or gene; tabs. What connectors make of
             a matrix' column. `#value_type: counts` or `tpm` says that it is not an array's intensities

A table of GDC's has a value in every row. In a sample's, an empty value or NA is a probe that was not measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resources.errors import ObjectRejected

Quantity = Literal["counts", "tpm", "intensity"]
GDC_COLUMNS = (
    "gene_id",
    "gene_name",
    "gene_type",
    "unstranded",
    "stranded_first",
    "stranded_second",
    "tpm_unstranded",
    "fpkm_unstranded",
    "fpkm_uq_unstranded",
)
SAMPLE_COLUMNS = ("feature_id", "value")
NOT_MEASURED = ["", "NA", "NaN", "nan", "null", "NULL", "N/A"]
MAX_HEAD_BYTES = 64 << 10  # of comment lines: a table with more of them is something else
_KEY_VALUE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9_ ]*?)\s*:\s*(.*)")
_REMEDIES = {
    "empty_object": "the object holds nothing: fetch it again",
    "wrong_encoding": "the table must be UTF-8: convert it (iconv -f ... -t UTF-8) at the source",
    "html_page": "a web page stands where the table should: the download was answered by a login or error page; fetch again",
    "compressed_table": "the table is compressed: let the connector unpack it, or unpack it at the source",
    "unknown_layout": "the columns are not those of GDC's STAR counts nor feature_id and value: compare the source's "
    "documentation with medvec_assets/modalities/expression/tables.py",
    "truncated_table": "the table ends in the middle of a row: fetch it again",
    "shifted_columns": "rows do not have their header's columns: a delimiter or a column was lost; fetch it again, or ask "
    "the source to correct it",
    "not_a_number": "a value is not a number (decimal commas, words, infinity): ask the source to correct it",
    "negative_counts": "counts and TPM are zero or more: these values are something else; correct the value type",
    "duplicate_genes": "a gene or probe stands twice: ask the source which row is meant",
    "nothing_measured": "no probe has a value: the sample was not measured, or the wrong column was exported",
    "all_zero": "every value is zero: the sample failed, or the wrong column was exported",
    "constant_values": "every value is the same: the sample failed, or the wrong column was exported",
}


@dataclass(frozen=True)
class SampleTable:
    """`features` [n], no id twice; `values`: quantity -> float64 [n], where NaN was not measured; `head`: what the
    comment lines say, keys in lower_snake_case."""

    features: pl.Series
    values: dict[Quantity, NDArray[np.float64]]
    head: dict[str, str]


def refused(code: str) -> ObjectRejected:
    """The refusal with this code. No message quotes the table."""
    return ObjectRejected("a sample's expression table breaks a rule", code=code, remedy=_REMEDIES[code])


def read_table(data: bytes) -> SampleTable:
    """The table in `data`. Raises ObjectRejected with one of the codes above."""
    _check_text(data)
    comments, start = _comments(data)
    end = data.find(b"\n", start)
    header = data[start : end if end >= 0 else len(data)].decode().rstrip("\r").split("\t")
    if tuple(header[:4]) == GDC_COLUMNS[:4]:
        return _gdc(data, header, comments, start)
    if tuple(header) == SAMPLE_COLUMNS:
        return _sample(data, comments, start)
    raise refused("unknown_layout")


def _check_text(data: bytes) -> None:
    if not data.strip():
        raise refused("empty_object")
    if data.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh")):
        raise refused("compressed_table")
    # UTF-16 shows by its byte order mark, or by a zero byte in every ASCII character.
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise refused("wrong_encoding")
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            raise refused("wrong_encoding") from None
    if data[:MAX_HEAD_BYTES].lstrip()[:1] == b"<":
        raise refused("html_page")


def _comments(data: bytes) -> tuple[list[str], int]:
    """The lines that begin with #, and the offset of the header behind them."""
    found, start = [], 3 if data.startswith(b"\xef\xbb\xbf") else 0
    while data.startswith(b"#", start):
        end = data.find(b"\n", start)
        if end < 0 or end > MAX_HEAD_BYTES:
            raise refused("unknown_layout")
        found.append(data[start:end].decode().rstrip("\r"))
        start = end + 1
    return found, start


def _head(comments: list[str]) -> dict[str, str]:
    matches = (_KEY_VALUE.fullmatch(line) for line in comments)
    return {m[1].lower().replace(" ", "_"): m[2].strip() for m in matches if m}


def _gdc(data: bytes, header: list[str], comments: list[str], start: int) -> SampleTable:
    if not data.endswith(b"\n"):
        raise refused("truncated_table")
    if "tpm_unstranded" not in header:
        raise refused("unknown_layout")
    _check_delimiters(data, start, len(header))
    types: dict[str, type[pl.DataType]] = {
        "gene_id": pl.String,
        "unstranded": pl.Int64,
        "tpm_unstranded": pl.Float64,
    }
    rows = _rows(data, len(comments), types)
    of_genes = ~rows["gene_id"].str.starts_with("N_").fill_null(False)
    rows = rows.filter(of_genes)
    if not rows["gene_id"].str.starts_with("ENS").fill_null(False).all() or rows.is_empty():
        raise refused("shifted_columns")
    counts, tpm = (rows[name].cast(pl.Float64).to_numpy() for name in ("unstranded", "tpm_unstranded"))
    for values in (counts, tpm):
        if not np.isfinite(values).all():
            raise refused("not_a_number")
    if counts.min() < 0 or tpm.min() < 0:
        raise refused("negative_counts")
    if not counts.any():
        raise refused("all_zero")
    # ENSG00000000003.15 -> ENSG00000000003; the copy on Y of a gene on X and Y, ENSG00000002586.20_PAR_Y, stays another gene.
    features = rows["gene_id"].str.replace(r"\.[0-9]+", "")
    return SampleTable(_distinct(features), {"counts": counts, "tpm": tpm}, _head(comments))


def _sample(data: bytes, comments: list[str], start: int) -> SampleTable:
    _check_delimiters(data if data.endswith(b"\n") else data + b"\n", start, len(SAMPLE_COLUMNS))
    rows = _rows(data, len(comments), {"feature_id": pl.String, "value": pl.Float64})
    if rows["feature_id"].has_nulls():
        raise refused("shifted_columns")
    values = rows["value"].to_numpy().astype(np.float64)
    head = _head(comments)
    quantity = _quantity(head.get("value_type", "intensity"))
    measured = values[~np.isnan(values)]
    if not measured.size:
        raise refused("nothing_measured")
    if not np.isfinite(measured).all():
        raise refused("not_a_number")
    if quantity != "intensity" and measured.min() < 0:
        raise refused("negative_counts")
    if not measured.any():
        raise refused("all_zero")
    if measured.min() == measured.max():
        raise refused("constant_values")
    ensembl = r"^(ENS[A-Z]*G[0-9]+)\.[0-9]+"
    return SampleTable(_distinct(rows["feature_id"].str.replace(ensembl, "$1")), {quantity: values}, head)


def _quantity(named: str) -> Quantity:
    if named == "counts":
        return "counts"
    if named == "tpm":
        return "tpm"
    if named == "intensity":
        return "intensity"
    raise refused("unknown_layout")


def _check_delimiters(data: bytes, start: int, columns: int) -> None:
    """Every line has as many tabs as it should, summed up: 1 ms for GDC's 60,664 lines, and polars fills up short rows."""
    lines, tabs = data.count(b"\n", start), data.count(b"\t", start)
    if tabs != lines * (columns - 1):
        raise refused("shifted_columns")


def _rows(data: bytes, comments: int, types: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    try:
        return pl.read_csv(
            data,
            skip_lines=comments,
            separator="\t",
            columns=list(types),
            schema_overrides=types,
            null_values=NOT_MEASURED,
            quote_char=None,
        )
    except pl.exceptions.PolarsError:
        raise refused("not_a_number") from None


def _distinct(features: pl.Series) -> pl.Series:
    if features.n_unique() != features.len():
        raise refused("duplicate_genes")
    return features
