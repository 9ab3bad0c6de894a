"""What the access log adds to an answer: the same app with and without its recording, on one uvicorn each, asked in turns.

The route answers at once with 10 subjects of 2 datasets, as a search of 10 hits would have recorded. All clients ask one
service a few times over kept connections, then all the other: what else the machine does meets both, and both meet all
clients at once. The disk's own fdatasync of one event's bytes is told beside it.

    python -m bench.access_log [--requests N] [--clients 1 8] [--json]
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Request

from api.access import look_of
from api.app import create_app
from api.recording import Recording
from api.server import log_config
from resources.settings import Settings

SUBJECTS = 10
BLOCK = 10  # requests of each client in turn
WARM_BLOCKS = 4
EVENT_BYTES = 1_500


def _serve(home: str, port: int, is_recorded: bool) -> None:
    app = create_app(Settings(home=Path(home)))
    if not is_recorded:
        app.user_middleware = [one for one in app.user_middleware if one.cls is not Recording]

    @app.get("/bench")
    async def bench(request: Request) -> dict[str, str]:
        look = look_of(request)
        look.who, look.question, look.results = "bench", "contrast enhanced CT of the liver", SUBJECTS
        look.versions = {"tcia_catalog/text": 11, "tcia_radiology/text": 3}
        look.subjects = {f"{number:064x}" for number in range(SUBJECTS)}
        return {"answer": "x" * 4_000}

    quiet = log_config("line") | {"loggers": {name: {"level": "ERROR"} for name in ("medvec", "uvicorn.error")}}
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=quiet, access_log=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _connected(port: int) -> http.client.HTTPConnection:
    for _ in range(600):
        try:
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            line.connect()
            return line
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the service does not start")


def _ask(line: http.client.HTTPConnection) -> float:
    started = time.perf_counter()
    line.request("GET", "/bench")
    answer = line.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"answered with {answer.status}")
    return (time.perf_counter() - started) * 1_000


def _client(
    ports: tuple[int, int], blocks: int, turn: threading.Barrier, found: tuple[list[float], list[float]]
) -> None:
    lines = [_connected(port) for port in ports]
    for block in range(WARM_BLOCKS + blocks):
        for side in (0, 1):
            turn.wait()
            times = [_ask(lines[side]) for _ in range(BLOCK)]
            if block >= WARM_BLOCKS:
                found[side].extend(times)


def _disk(folder: str) -> float:
    """Milliseconds of an append and fdatasync of one event's bytes, median of 200."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(200):
            started = time.perf_counter()
            os.write(file.fileno(), b"x" * EVENT_BYTES)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1_000)
    return statistics.median(times)


def measure(requests: int, clients: list[int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="medvec-bench-") as folder:
        ports = (_free_port(), _free_port())
        spawn = multiprocessing.get_context("spawn")
        services = [
            spawn.Process(target=_serve, args=(f"{folder}/{side}", port, bool(side))) for side, port in enumerate(ports)
        ]
        for one in services:
            one.start()
        told: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 1), "fdatasync_ms": round(_disk(folder), 3)}
        try:
            for number in clients:
                told |= _of_clients(ports, requests, number)
        finally:
            for one in services:
                one.terminate()
                one.join(30)
    return told | {"load_after": round(os.getloadavg()[0], 1)}


def _of_clients(ports: tuple[int, int], requests: int, clients: int) -> dict[str, Any]:
    found: tuple[list[float], list[float]] = ([], [])
    turn, blocks = threading.Barrier(clients), requests // clients // BLOCK
    threads = [threading.Thread(target=_client, args=(ports, blocks, turn, found)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bare, recorded = (sorted(times) for times in found)
    added = statistics.median(recorded) - statistics.median(bare)
    of = f"{clients}_clients"
    return {
        f"{of}_bare_p50_ms": round(statistics.median(bare), 3),
        f"{of}_recorded_p50_ms": round(statistics.median(recorded), 3),
        f"{of}_added_p50_ms": round(added, 3),
        f"{of}_added_p95_ms": round(recorded[int(0.95 * len(recorded))] - bare[int(0.95 * len(bare))], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the access log adds to an answer")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.requests, options.clients)
    print(json.dumps(result) if options.json else "\n".join(f"{name:28} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
