"""The real servers that tests and benchmarks run against, each started on loopback, pinned, and ended with its user.

    with Milvus() as milvus, open_index(Settings(home=home, **milvus.settings)) as index: ...

`start` returns when the server answers a real request; `kill` and `start` again keep data and port. `make servers`
installs them. Does not belong here: Milvus Lite, which is medvec's own to start.
"""

from .azurite import Azurite
from .install import NotInstalled, chromium
from .milvus import Milvus
from .postgres import Postgres
from .redis import Redis
from .seaweedfs import SeaweedFS
from .server import Server, ServerFailed

__all__ = ["Azurite", "Milvus", "NotInstalled", "Postgres", "Redis", "SeaweedFS", "Server", "ServerFailed", "chromium"]
