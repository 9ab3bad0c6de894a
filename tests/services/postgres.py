"""PostgreSQL of the operating system's package: one cluster with a password, one fresh database per use."""

from __future__ import annotations

import itertools
import os
import pwd
import signal
from pathlib import Path

from .install import postgres_programs
from .server import Server, call

PASSWORD = "postgres-secret"


class Postgres(Server):
    """`database()` makes a new database and answers its URL. Up in 3 s, 1 s on old data."""

    name = "postgres"
    inner_port = 5432
    stop_signal = signal.SIGINT  # fast: sessions are ended, shared memory is given back
    user = "postgres" if os.geteuid() == 0 else None

    def __init__(self) -> None:
        self.programs = postgres_programs()
        super().__init__()
        self._numbers = itertools.count()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://medvec:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        name = f"medvec_{next(self._numbers)}"
        self._execute(f"create database {name}")
        return self.url(name)

    def prepare(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if self.user is not None:
            owner = pwd.getpwnam(self.user)
            for path in (self.folder, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        # No fsync: the tests end processes, not the machine, and what the kernel has survives that.
        options = ["--auth=scram-sha-256", f"--pwfile={password}", "--username=medvec", "--encoding=UTF8"]
        options += ["--locale=C.UTF-8", "--no-sync", f"--pgdata={self._data}"]
        call(self.programs / "initdb", *options, user=self.user)

    def command(self) -> list[str]:
        settings = {"listen_addresses": "127.0.0.1", "port": "5432", "unix_socket_directories": "", "fsync": "off"}
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self._data), *flags]

    def ask(self) -> None:
        self._execute("select 1")

    def close(self) -> None:
        self.stop()  # killed, it would leave shared memory behind
        super().close()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _execute(self, statement: str) -> None:
        import psycopg2

        connection = psycopg2.connect(self.url(), connect_timeout=2)
        try:
            connection.autocommit = True  # create database runs in no transaction
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()
