"""What is in a file beside its own bytes: decompressed streams, decoded columns, members of archives.

Belongs here: recognising a container by its bytes and opening it, within limits. Does not belong here: what is looked for.

A container that is damaged gives what of it can be read: its raw bytes are searched in any case.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

MAX_DEPTH = 4
MAX_INFLATED_BYTES = 256 << 20  # of one stream
_ZLIB_HEADS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_MAX_STREAMS = 4_096  # tried in one piece of bytes: random bytes hold a zlib head every 16 kB
_DAMAGED = (
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
)

Piece = tuple[str, bytes]
"""(where in the file, "" for its own bytes; the bytes)"""


def pieces(data: bytes, depth: int = 0) -> Iterator[Piece]:
    """`data` itself and everything that can be unpacked of it."""
    yield "", data
    if depth >= MAX_DEPTH:
        return
    for opened in (_parquet, _arrow, _zip_members, _streams, _dicom_deflated):
        for where, inner in _readable(opened, data):
            for below, piece in pieces(inner, depth + 1):
                yield " > ".join(filter(None, (where, below))), piece


def _readable(opened: Any, data: bytes) -> Iterator[Piece]:
    try:
        yield from opened(data)
    except _DAMAGED:
        return


# ---------------------------------------------------------------- tables


def _parquet(data: bytes) -> Iterator[Piece]:
    if data[:4] != b"PAR1":
        return
    file = pq.ParquetFile(pa.BufferReader(data))
    for key, value in (file.schema_arrow.metadata or {}).items():
        yield "parquet metadata", key + b"\n" + value
    for batch in file.iter_batches():
        yield from _columns(batch)


def _arrow(data: bytes) -> Iterator[Piece]:
    if data[:6] == b"ARROW1":
        opened = pa.ipc.open_file(pa.BufferReader(data))
        batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
    elif data[:4] == b"\xff\xff\xff\xff":
        batches = iter(pa.ipc.open_stream(pa.BufferReader(data)))
    else:
        return
    for batch in batches:
        yield from _columns(batch)


def _columns(batch: pa.RecordBatch) -> Iterator[Piece]:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        yield f"column {name}", b"\n".join(_values(column))


def _values(column: pa.Array) -> Iterator[bytes]:
    """The text of every value at any depth; numbers and times as they are written, floats not at all."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary, kind.value_type
    if pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield kind.field(number).name.encode()
            yield from _values(column.field(number))
    elif pa.types.is_map(kind):
        yield from _values(column.keys)
        yield from _values(column.items)
    elif pa.types.is_nested(kind):
        yield from _values(column.flatten())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        yield from (value for value in column.to_pylist() if value is not None)
    elif not pa.types.is_floating(kind) and not pa.types.is_null(kind):
        yield from (str(value).encode() for value in column.to_pylist() if value is not None)


# ---------------------------------------------------------------- streams


def _zip_members(data: bytes) -> Iterator[Piece]:
    start = data.find(b"PK\x03\x04")
    if start < 0 or data.rfind(b"PK\x05\x06") < 0:
        return
    with zipfile.ZipFile(BytesIO(data[start:])) as archive:
        for member in archive.infolist():
            yield "zip member names", member.filename.encode() + b"\n" + member.comment
            if member.file_size <= MAX_INFLATED_BYTES:
                yield "zip member", archive.read(member)


def _streams(data: bytes) -> Iterator[Piece]:
    """Compressed streams wherever they begin: gzip members, zlib (as in PNG chunks), and bz2, xz, zstd files."""
    tried = 0
    for name, heads, bits in (("gzip member", (b"\x1f\x8b\x08",), 31), ("zlib stream", _ZLIB_HEADS, 15)):
        for head in heads:
            at = data.find(head)
            while at >= 0 and tried < _MAX_STREAMS:
                tried += 1
                inflated, used = _inflated(data, at, bits)
                if inflated:
                    yield name, inflated
                at = data.find(head, at + max(used, 1))
    if data[:3] == b"BZh":
        yield "bz2", bz2.BZ2Decompressor().decompress(data, MAX_INFLATED_BYTES)
    if data[:6] == b"\xfd7zXZ\x00":
        yield "xz", lzma.LZMADecompressor().decompress(data, MAX_INFLATED_BYTES)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        yield "zstd", pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(MAX_INFLATED_BYTES)


def _inflated(data: bytes, start: int, bits: int) -> tuple[bytes, int]:
    """(what can be inflated of the stream at `start`, its length); less than 8 bytes are taken for chance."""
    inflater = zlib.decompressobj(bits)
    view, out, at = memoryview(data), BytesIO(), start
    try:
        while at < len(data) and not inflater.eof and out.tell() < MAX_INFLATED_BYTES:
            step = view[at : at + 65_536]
            out.write(inflater.decompress(step, MAX_INFLATED_BYTES))
            at += len(step)
    except zlib.error:
        pass  # a stream that breaks off is worth what came before
    found = out.getvalue()
    return (found, at - start - len(inflater.unused_data)) if len(found) >= 8 else (b"", 0)


def _dicom_deflated(data: bytes) -> Iterator[Piece]:
    """The data set of a DICOM file in the deflated transfer syntax: raw, behind the file meta."""
    if data[128:132] != b"DICM" or b"1.2.840.10008.1.2.1.99" not in data[132:1_024]:
        return
    (length,) = struct.unpack_from("<I", data, 140)  # of the file meta, which stands in its first element
    yield "deflated data set", _inflated(data, 144 + length, -15)[0]
