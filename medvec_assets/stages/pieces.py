"""Records made in pieces, side by side in processes: where a partition is cut, and in which order what is made comes back.

Belongs here: cutting, order, how many pieces wait, when processes are worth their start. Does not belong here: a process
(processes) and what happens inside one (piece_process), the rules for records (records stage).

Parsing and de-identification are Python, of which one process does one thing at a time. So each core has a process. Where
pieces begin and the order of what comes out do not depend on how many processes there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import polars as pl

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import LandPayload, Modality, ReadObject, make_records, modality
from medvec_assets.stages.processes import Made, Processes

BULK_OBJECTS = 4_096  # per call of a modality that has no pieces
PIECES_EACH = (
    8  # a process is started for so many: its imports take up to 10 s of a core (torch), and a piece about one
)
AHEAD = 2  # pieces given out for each process: it never waits, and what is made waits in memory for few


def worth_starting(form: Modality, objects: int, workers: int, pieces_each: int) -> int:
    """How many processes; 1 or 0 is none, and then this one does it."""
    return min(workers, objects // (form.piece_objects * pieces_each)) if form.piece_objects else 0


def cut(objects: pl.DataFrame, size: int) -> Iterator[pl.DataFrame]:
    """Pieces of about `size` rows that never cut a record (rows are sorted by record_ref)."""
    refs = objects["record_ref"]
    start = 0
    while start < objects.height:
        end = min(start + size, objects.height)
        while end < objects.height and refs[end] == refs[end - 1]:
            end += 1
        yield objects.slice(start, end - start)
        start = end


def records(
    name: str, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload, workers: int
) -> Generator[tuple[pl.DataFrame, Made]]:
    """(piece, what the modality called `name` makes of it), in order. `read` and `land` must be safe between threads.

    Close it, so that its processes end. Raises what `read`, `land` and the modality raise, and StorageError `process_ended`.
    """
    form = modality(name)
    count = worth_starting(form, objects.height, workers, PIECES_EACH)
    pieces = cut(objects, form.piece_objects or BULK_OBJECTS)
    if count > 1:
        yield from side_by_side(name, pieces, read, pseudonyms, land, count)
        return
    for piece in pieces:
        yield piece, make_records(form, piece, read, pseudonyms, land)


def side_by_side(
    name: str, pieces: Iterator[pl.DataFrame], read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload, count: int
) -> Generator[tuple[pl.DataFrame, Made]]:
    """`records` by `count` processes."""
    # Processes end first: a thread that waits for one is told, and the pool can end.
    with ThreadPoolExecutor(count, "records") as pool, Processes(name, count, pseudonyms) as processes:
        given: deque[tuple[pl.DataFrame, Future[Made]]] = deque()
        try:
            for piece in pieces:
                given.append((piece, pool.submit(processes.records, piece, read, land)))
                if len(given) > AHEAD * count:
                    first, future = given.popleft()
                    yield first, future.result()
            for first, future in given:
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
