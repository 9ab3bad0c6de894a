"""Redis of the operating system's package, with a password; what it holds outlives a kill."""

from __future__ import annotations

from .install import redis_program
from .server import Server

PASSWORD = "redis-secret"


class Redis(Server):
    """`url` is its address, the password in it. Up in 0.2 s."""

    name = "redis"
    inner_port = 6379

    def __init__(self) -> None:
        self.program = redis_program()
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}"

    def prepare(self) -> None:
        settings = {"bind": "127.0.0.1", "port": self.inner_port, "requirepass": PASSWORD, "appendonly": "yes"}
        lines = "\n".join(f"{name} {value}" for name, value in settings.items())
        (self.folder / "redis.conf").write_text(f"{lines}\n")

    def command(self) -> list[str]:
        return [str(self.program), "redis.conf"]

    def ask(self) -> None:
        from redis import Redis as Client

        with Client.from_url(self.url, socket_timeout=2) as client:
            client.ping()
