"""From records to vectors: windows of model inputs, prepared by decode workers while the encoder works on the last.

Belongs here: windowing, prefetch, threads or processes, isolating one bad input. Does not belong here: which records
(embeddings stage), what a process is (processes).
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.modalities import ReadObject, Rejected, modality
from medvec_assets.stages import records as records_stage
from medvec_assets.stages.context import Context
from medvec_assets.stages.payloads import DAMAGED, Payloads
from medvec_assets.stages.pieces import worth_starting
from medvec_assets.stages.processes import Processes
from resources import encoders, tables
from resources.errors import CommitConflict, IntegrityError
from resources.lakehouse import Snapshot

if TYPE_CHECKING:
    from medvec_assets.stages.embeddings import Target

# The encoder sorts a window's texts by length: 4,096 keep its padding at what a full sort would give (docs/benchmarks.md).
# An image window is 256 x 150 kB of input: two in flight are 77 MB; 512 rows of 60,000 genes are 123 MB.
WINDOW = {"text": 4_096, "image": 256, "features": 512}
# A process is started for 2,048 images: 15 s of decoding or more, for up to 10 s of imports.
PIECES_EACH = 32
LEAST_PRIORITY = 19
Prepare = Callable[[pl.DataFrame], Sequence[Any]]
"""Model inputs, or Rejected, of some records."""
Encoded = tuple[list[str], NDArray[np.float32], list[Rejected]]
"""A window: (fingerprints, float32 [n, dim], rejected)"""
_JOB_COLUMNS = ("record_id", "object_ids", "text", "content_digests", "payload_uri", "payload")


def encode_records(
    ctx: Context, aim: Target, partition: str, records: Snapshot, missing: pl.DataFrame
) -> Iterator[Encoded]:
    """A vector, or a reason why not, for each record of `missing` (columns record_id and fingerprint), of its payload or its
    source's objects. Records whose payload is damaged come last, once it was made again."""
    read = Payloads(ctx.lake.root, aim.spec.id).reader(records_stage.reader(ctx, aim.spec, partition))
    damaged: list[str] = []

    def encoded(wanted: pl.DataFrame) -> Iterator[Encoded]:
        frames = jobs(ctx, aim.spec, partition, records, wanted)
        return encode(ctx, aim, partition, frames, read, wanted.height)

    for names, vectors, rejected in encoded(missing):
        damaged += [one.object_id for one in rejected if one.code == DAMAGED]
        yield names, vectors, [one for one in rejected if one.code != DAMAGED]
    if damaged:
        records_stage.land_again(ctx, aim.spec, partition, damaged)
        yield from encoded(missing.filter(pl.col("record_id").is_in(damaged)))


def jobs(
    ctx: Context, spec: DatasetSpec, partition: str, records: Snapshot, missing: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """The records to encode, streamed: _JOB_COLUMNS, `object_uris` and `fingerprint`.

    `missing`: columns record_id and fingerprint. Held meanwhile: the partition's object ids and URIs, about 200 bytes
    an object."""
    fingerprints, uris = missing.select("record_id", "fingerprint"), _object_uris(ctx, spec, partition)
    for batch in records.scan(_JOB_COLUMNS, pc.field("partition") == partition):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        frame = frame.join(fingerprints, on="record_id", maintain_order="left")
        if not frame.is_empty():
            yield _with_uris(frame, uris, tables.payloads(spec.id))


def _with_uris(frame: pl.DataFrame, uris: pl.DataFrame, payloads: str) -> pl.DataFrame:
    listed = frame.select("record_id", object_id="object_ids").explode("object_id")
    found = listed.join(uris, on="object_id", how="left", maintain_order="left")
    if found["uri"].has_nulls():
        # Not the object's fault: quarantining it here would outlive the refresh that moved it.
        raise CommitConflict(
            "the manifest no longer lists an object of this record in this partition: it was refreshed or split",
            remedy="materialize the manifest and the records, then the embeddings of the partition they are in now",
        )
    of_record = found.group_by("record_id", maintain_order=True).agg(object_uris="uri")
    # Of what has a payload below `payloads` no object is read again.
    landed = pl.when(pl.col("payload_uri").str.starts_with(payloads)).then(pl.concat_list("payload_uri"))
    joined = frame.join(of_record, on="record_id", maintain_order="left")
    return joined.with_columns(object_uris=landed.otherwise("object_uris"))


def encode(
    ctx: Context, aim: Target, partition: str, frames: Iterator[pl.DataFrame], read: ReadObject, total: int
) -> Iterator[Encoded]:
    """A window at a time."""
    encoder = encoders.load(aim.card.ref, ctx.settings)
    done = 0
    with _preparing(aim, read, total, ctx.settings.decode_threads) as (pool, workers, prepare):
        for window, inputs in _prefetched(pool, frames, aim, workers, prepare):
            usable = [i for i, item in enumerate(inputs) if not isinstance(item, Rejected)]
            rejected = [item for item in inputs if isinstance(item, Rejected)]
            names = window["fingerprint"].to_list()
            records = window["record_id"].to_list()
            good, vectors, failed = _encode_all(encoder, [inputs[i] for i in usable], [records[i] for i in usable])
            yield [names[usable[i]] for i in good], vectors, rejected + failed
            done += window.height
            ctx.progress(f"{aim.spec.id} {partition} {aim.space} embeddings", done, total)


@contextmanager
def _preparing(
    aim: Target, read: ReadObject, total: int, workers: int
) -> Iterator[tuple[ThreadPoolExecutor, int, Prepare]]:
    """Threads, how many, and what each does: asking a process of its own where `total` records are worth its start, since
    what decoders do in Python a process does one at a time."""
    form, space = modality(aim.spec.modality), aim.space
    is_decoded = aim.card.input_kind != "text"  # a text is made of its record: sending it costs more
    count = worth_starting(form, total, workers, PIECES_EACH) if is_decoded else 0
    if count > 1:
        pool = ThreadPoolExecutor(count, "decode")
        with pool, Processes(aim.spec.modality, count, niceness=LEAST_PRIORITY) as processes:
            yield pool, count, lambda rows: processes.inputs(rows, space, read)
    else:
        with ThreadPoolExecutor(workers, "decode", _yield_to_the_model) as pool:
            yield pool, workers, lambda rows: form.model_inputs(rows, space, read)


def _yield_to_the_model() -> None:
    """Decode with what the model leaves of the CPU. As equals they take cores from the threads of one layer, and the
    others wait for those at its end: an image then takes 8 % longer on 2 cores."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)


def _prefetched(
    pool: ThreadPoolExecutor, frames: Iterator[pl.DataFrame], aim: Target, workers: int, prepare: Prepare
) -> Iterator[tuple[pl.DataFrame, list[Any]]]:
    """Prepare the next window's inputs, in one slice per worker, while the caller encodes this one."""
    ahead: deque[tuple[pl.DataFrame, list[Future[Any]]]] = deque()
    for window in _windows(frames, WINDOW[aim.card.input_kind]):
        step = max(1, -(-window.height // workers))
        ahead.append((window, [pool.submit(prepare, piece) for piece in window.iter_slices(step)]))
        if len(ahead) > 1:
            yield _collected(*ahead.popleft())
    while ahead:
        yield _collected(*ahead.popleft())


def _collected(window: pl.DataFrame, parts: list[Future[Any]]) -> tuple[pl.DataFrame, list[Any]]:
    return window, [item for part in parts for item in part.result()]


def _windows(frames: Iterator[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        held.append(frame)
        rows += frame.height
        while rows >= size:
            joined = pl.concat(held)
            yield joined.head(size)
            held, rows = [joined.slice(size)], rows - size
    if rows:
        yield pl.concat(held)


def _encode_all(
    encoder: encoders.Encoder, inputs: list[Any], records: list[str]
) -> tuple[list[int], NDArray[np.float32], list[Rejected]]:
    """Encode a window; if the encoder refuses it, halve it until the one bad input stands alone."""
    try:
        return list(range(len(inputs))), encoder.encode(inputs), []
    except IntegrityError as error:
        if not error.code.startswith("encoder_"):  # the weights, not an input
            raise
        if len(inputs) == 1:
            return [], np.empty((0, encoder.card.dim), np.float32), [Rejected(records[0], error.code, error.remedy)]
        middle = len(inputs) // 2
        left, left_vectors, left_failed = _encode_all(encoder, inputs[:middle], records[:middle])
        right, right_vectors, right_failed = _encode_all(encoder, inputs[middle:], records[middle:])
        good = left + [i + middle for i in right]
        return good, np.concatenate([left_vectors, right_vectors]), left_failed + right_failed


def _object_uris(ctx: Context, spec: DatasetSpec, partition: str) -> pl.DataFrame:
    manifest = ctx.lake.snapshot(tables.manifest(spec.id))
    assert manifest is not None
    return manifest.read(["object_id", "uri"], pc.field("partition") == partition)
