"""The program that the Milvus Lite server process runs. Started by `lite`, imported by nobody.

Belongs here: what must happen inside the server's own process. Does not belong here: who starts and shares it (lite).

It differs from `milvus-lite server` in six points, each for a reason seen in its source or measured:
- requests that touch data run one at a time: the engine is single-writer per collection (two writers could take the
  same sequence numbers), and a read during a flush misses the rows that are between memory and file;
- a flush is answered when its segments are compacted and indexed: the engine does that behind one's back, and says
  an index is finished that is not;
- queries for keys and fingerprints, and filtered counts, read no vectors (lite_queries);
- SIGTERM closes the data folder in order;
- the kernel picks the port and this process reports it, so nobody can take it in between;
- it ends by itself once no process has used it for ORPHAN_SECONDS, so a killed user leaves nothing behind for long.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import psutil
from filelock import FileLock, Timeout
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from milvus_lite.exceptions import MilvusLiteError
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

from resources.vector_index import lite_queries

ORPHAN_SECONDS = 30.0
_WATCH_SECONDS = 3.0
_MESSAGE_BYTES = 256 << 20  # as `milvus-lite server` allows
_WORKERS = 32  # requests may wait for one another, and a connect must find a free worker all the same
# Connection calls touch no data, and GetFlushState only waits: a build must not hold up searches.
_UNLOCKED_CALLS = frozenset({"Connect", "GetVersion", "CheckHealth", "GetFlushState"})


class OneAtATime(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Runs every call that touches data under one lock."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        name = details.method.rpartition("/")[2]
        if handler is None or handler.unary_unary is None or name in _UNLOCKED_CALLS:
            return handler

        def alone(request: Any, context: Any) -> Any:
            with self._lock:
                return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(alone, handler.request_deserializer, handler.response_serializer)


class Servicer(MilvusServicer):  # type: ignore[misc]  # milvus_lite has no types
    """Milvus Lite's answers, but for the two points above that are the engine's."""

    def __init__(self, database: MilvusLite, lock: threading.Lock) -> None:
        super().__init__(database)
        self._lock = lock

    def _get_collection(self, request: Any, context: Any) -> Any:
        collection = super()._get_collection(request, context)
        collection.query = partial(lite_queries.query, collection)
        return collection

    def Query(self, request: Any, context: Any) -> Any:
        """count(*) with a filter is counted here; everything else is the engine's."""
        if list(request.output_fields) != ["count(*)"] or not request.expr or request.partition_names:
            return super().Query(request, context)
        try:
            found = lite_queries.count(self._get_collection(request, context), request.expr)
        except MilvusLiteError:  # not loaded, not there, not a filter: the engine says which
            return super().Query(request, context)
        field = schema_pb2.FieldData(field_name="count(*)", type=schema_pb2.DataType.Int64)
        field.scalars.long_data.data.append(found)
        return milvus_pb2.QueryResults(
            status=common_pb2.Status(),
            fields_data=[field],
            collection_name=request.collection_name,
            output_fields=["count(*)"],
        )

    def GetFlushState(self, request: Any, context: Any) -> Any:
        """Waits for the build; pymilvus asks this after each flush, until it is told yes."""
        with self._lock:  # the first request for a collection opens it: never two at once
            collection = self._get_collection(request, context)
        collection._wait_for_bg()
        return super().GetFlushState(request, context)


def serve(folder: Path) -> None:
    """Serves `folder`/data on a free loopback port until SIGTERM or until nobody uses it."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    database = MilvusLite(str(folder / "data"))
    options = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]
    lock = threading.Lock()
    server = grpc.server(ThreadPoolExecutor(_WORKERS), interceptors=[OneAtATime(lock)], options=options)
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Servicer(database, lock), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    _report(folder / "server.json", port)
    _wait(stop, folder)
    server.stop(grace=5).wait()
    database.close()


def _report(state: Path, port: int) -> None:
    draft = state.with_suffix(".draft")
    created = psutil.Process().create_time()
    draft.write_text(json.dumps({"pid": os.getpid(), "create_time": created, "port": port}))
    draft.replace(state)


def _wait(stop: threading.Event, folder: Path) -> None:
    """Returns when told to stop, or holding both locks when unused for ORPHAN_SECONDS: nobody can come in between."""
    unused_seconds = 0.0
    start = FileLock(folder / "start.lock")
    users = os.open(folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
    while not stop.wait(_WATCH_SECONDS):
        try:
            start.acquire(blocking=False)
        except Timeout:  # somebody is coming or going
            unused_seconds = 0.0
            continue
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            unused_seconds = 0.0
        else:
            unused_seconds += _WATCH_SECONDS
            if unused_seconds >= ORPHAN_SECONDS:
                return
            fcntl.flock(users, fcntl.LOCK_UN)
        start.release()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    serve(parser.parse_args().folder)
