"""Runs one server where only loopback exists, and ends it when whoever asked for it ends.

A script of the standard library alone, started by `server.py`. It leaves the machine's network for an empty one (so a
server that insists on listening everywhere is seen by nobody, and fixed ports collide with nobody's), starts the
server there, and forwards one port to it: the listening socket was made outside and stays there, whoever connects on.
With --reach, a port of the machine's loopback is the same port in there: for a server that is another one's client.

Stdin is the lifeline: its end is the order to stop, also when the test run was killed with -9. The word before it says
how: `keep` as an operator would, `kill` at once; no word means that nobody is left to tidy up, so the folder goes too.
Stdout tells the server's pid, once.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
PR_SET_PDEATHSIG = 1
PUMP_BYTES = 256 << 10
NO_NAMESPACE = 3  # exit status: the kernel or the container refuses a network namespace

_libc = ctypes.CDLL(None, use_errno=True)


def enter_empty_network() -> None:
    """A network namespace of our own with nothing but loopback; without root, inside a user namespace of our own."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWNET if uid == 0 else CLONE_NEWUSER | CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        sys.stderr.write(f"no network namespace: {os.strerror(code)}\n")
        raise SystemExit(NO_NAMESPACE)
    if uid != 0:  # stay who we are: initdb refuses root
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:  # iproute2 may be missing
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
        struct.pack_into("h", request, 16, struct.unpack_from("h", request, 16)[0] | IFF_UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def carry_outside(port: int, folder: str) -> Path:
    """Forks a process that stays in the machine's network and joins a socket in `folder` with its `port`."""
    path = Path(folder) / f"reach-{port}.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(128)
    if os.fork():
        listener.close()
        return path
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.stdin.close()
    sys.stdout.close()
    forward(listener, partial(socket.create_connection, ("127.0.0.1", port)))


def carry_inside(port: int, path: Path) -> None:
    """Joins `port` in here with the socket of `carry_outside`."""

    def connect() -> socket.socket:
        outside = socket.socket(socket.AF_UNIX)
        outside.connect(str(path))
        return outside

    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=forward, args=(listener, connect), daemon=True).start()


def forward(listener: socket.socket, connect: Callable[[], socket.socket]) -> NoReturn:
    """Joins every connection to `listener` with one that `connect` makes. A server that is down refuses it."""
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_join, args=(client, connect), daemon=True).start()


def _join(client: socket.socket, connect: Callable[[], socket.socket]) -> None:
    with client:
        try:
            server = connect()
        except OSError:
            return
        with server:
            for end in (client, server):
                if end.family == socket.AF_INET:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    buffer = memoryview(bytearray(PUMP_BYTES))
    try:
        while count := source.recv_into(buffer):
            sink.sendall(buffer[:count])
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # reset on one side: on both
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def end_group(server: subprocess.Popen[bytes], first: int, patience_s: float) -> None:
    """`first` to the server; SIGKILL to it and whatever it started, if that does not end it."""
    with suppress(ProcessLookupError):
        os.kill(server.pid, first)
    with suppress(subprocess.TimeoutExpired):
        server.wait(patience_s)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)


def watch_lifeline(server: subprocess.Popen[bytes], arguments: argparse.Namespace, ending: threading.Event) -> None:
    word = sys.stdin.buffer.read()
    ending.set()
    end_group(server, signal.SIGKILL if word == b"kill" else arguments.stop_signal, arguments.patience)
    server.wait()
    if word not in (b"kill", b"keep"):
        shutil.rmtree(arguments.folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", default=None)
    parser.add_argument("--stop-signal", type=int, required=True)
    parser.add_argument("--patience", type=float, required=True)
    parser.add_argument("--reach", type=int, action="append", default=[])
    parser.add_argument("--litter", action="append", default=[])
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    listener = socket.socket(fileno=arguments.listen_fd)
    carried = {port: carry_outside(port, arguments.folder) for port in arguments.reach}
    enter_empty_network()
    for port, path in carried.items():
        carry_inside(port, path)
    server = subprocess.Popen(
        arguments.command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        cwd=arguments.folder,
        user=arguments.user,
        group=arguments.user,
        extra_groups=[] if arguments.user else None,
        start_new_session=True,
        preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, arguments.stop_signal),  # if this keeper is killed
    )
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    inside = partial(socket.create_connection, ("127.0.0.1", arguments.port))
    threading.Thread(target=forward, args=(listener, inside), daemon=True).start()
    ending = threading.Event()
    lifeline = threading.Thread(target=watch_lifeline, args=(server, arguments, ending), daemon=True)
    lifeline.start()
    code = server.wait()
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    for path in arguments.litter:
        Path(path.format(pid=server.pid)).unlink(missing_ok=True)
    if ending.is_set():
        lifeline.join()
    os._exit(code if code >= 0 else 128 - code)  # not waiting for open connections


if __name__ == "__main__":
    main()
