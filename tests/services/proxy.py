"""A proxy in front of an S3 server that misbehaves as asked: what a network or a busy store does, on demand.

    with Proxy(seaweedfs.port) as proxy:
        proxy.fault = lose_answer(committed_table)

It takes one request a connection (as `Connection: close` tells) and passes the Host header on as it came, because
signatures cover it. Does not belong here: TLS; a server that is dead (Server.kill).
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self

ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'


@dataclass
class Exchange:
    """One request on its way: `line` is `METHOD target`."""

    line: str
    request: bytes
    client: asyncio.StreamWriter
    upstream: Callable[[bytes], Awaitable[bytes]]

    async def forward(self) -> bytes:
        """The server's whole answer."""
        return await self.upstream(self.request)

    async def answer(self, response: bytes) -> None:
        self.client.write(response)
        await self.client.drain()

    def reset(self) -> None:
        """The connection is gone, with RST and no word."""
        self.client.transport.abort()


Fault = Callable[[Exchange], Awaitable[None]]


async def none(exchange: Exchange) -> None:
    await exchange.answer(await exchange.forward())


def refuse(status: int, code: str) -> Fault:
    """Every request is answered with an error of S3's, and does not reach the server."""
    body = ERROR.format(code=code).encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"

    async def fault(exchange: Exchange) -> None:
        await exchange.answer(head.encode() + b"Connection: close\r\n\r\n" + body)

    return fault


def slow(seconds: float, then: Fault = none) -> Fault:
    async def fault(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await then(exchange)

    return fault


def lose_answer(which: Callable[[str], str]) -> Fault:
    """The first request of each thing that `which` names is carried out, and its answer lost; "" names nothing."""
    seen = {""}

    async def fault(exchange: Exchange) -> None:
        answer = await exchange.forward()
        if (thing := which(exchange.line)) in seen:
            await exchange.answer(answer)
        else:
            seen.add(thing)
            exchange.reset()

    return fault


def committed_table(line: str) -> str:
    """The table to whose log a request adds an entry; "" if it does something else."""
    method, _, target = line.partition(" ")
    table, log, entry = target.partition("/_delta_log/")
    return table if method == "PUT" and log and entry.endswith(".json") else ""


def reset_every(nth: int) -> Fault:
    """Every nth connection breaks: by turns before the request reached the server, and in the middle of its answer."""
    number = 0

    async def fault(exchange: Exchange) -> None:
        nonlocal number
        number += 1
        if number % nth:
            await none(exchange)
        elif number % (2 * nth):
            exchange.reset()
        else:
            answer = await exchange.forward()
            await exchange.answer(answer[: len(answer) // 2])
            exchange.reset()

    return fault


class Proxy:
    """Listens on `port` of loopback while it is open; `counts` says how many requests of each method came by."""

    def __init__(self, upstream_port: int) -> None:
        self.fault: Fault = none
        self.counts: Counter[str] = Counter()
        self._upstream_port = upstream_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        serving: Future[Any] = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        )
        self._server = serving.result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            if headers.get("expect") == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            kept = [line for line in lines if not line.lower().startswith(("connection:", "expect:"))]
            request = "\r\n".join([*kept[:-2], "Connection: close", "", ""]).encode("latin-1") + body
            line = lines[0].rpartition(" ")[0]
            self.counts[line.partition(" ")[0]] += 1
            await self.fault(Exchange(line, request, writer, self._ask))
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()  # one side hung up: so does the other
        finally:
            writer.close()

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()
