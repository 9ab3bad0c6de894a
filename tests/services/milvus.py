"""Milvus 2.3.5, the whole standalone server with its embedded etcd and local storage; TLS and RBAC where asked for."""

from __future__ import annotations

import logging
import re
import shutil
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

from .install import MILVUS, require
from .seaweedfs import SeaweedFS
from .server import Server
from .tls import Certificates, make_certificates

ROOT_TOKEN = "root:Milvus"
BUCKET = "milvus"
PROBE = "probe"  # a database of its own: what tests list and count does not show it


class Milvus(Server):
    """`uri`, and with `secured` the `token` of root and the `ca` that its certificate is signed by.

    `storage` keeps its data, in BUCKET there. `config` overrides the package's settings by their dotted names. First
    start 6-17 s. On old data it answers 6 s after the sessions of its former life have expired (`common.session.ttl`,
    30 s as shipped), long after /healthz.
    """

    name = "milvus"
    inner_port = 19530
    start_seconds = 180.0
    stop_signal = signal.SIGKILL  # SIGTERM does not stop it

    def __init__(
        self, *, secured: bool = False, config: dict[str, Any] | None = None, storage: SeaweedFS | None = None
    ) -> None:
        require(MILVUS)
        super().__init__()
        self._config = config or {}
        self._storage = storage
        self.certificates: Certificates | None = make_certificates(self.folder / "tls") if secured else None
        self.token = ROOT_TOKEN if secured else ""

    @property
    def uri(self) -> str:
        return f"{'https' if self.certificates else 'http'}://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path | None:
        return self.certificates.ca if self.certificates else None

    @property
    def settings(self) -> dict[str, Any]:
        """What `Settings(...)` needs to use it."""
        given = {"index_uri": self.uri, "index_token": self.token}
        return given | ({"index_ca": self.ca} if self.ca else {})

    def client(self, **options: Any) -> Any:
        """A MilvusClient of root."""
        from pymilvus import MilvusClient

        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # a traceback per refused call, and we poll
        secure = {"server_pem_path": str(self.ca)} if self.ca else {}
        return MilvusClient(
            uri=self.uri,
            token=self.token,
            dedicated=True,
            grpc_options={"grpc.enable_http_proxy": 0},
            **secure | options,
        )

    def prepare(self) -> None:
        for folder in ("configs", "data", "logs", "run"):
            (self.folder / folder).mkdir()
        values: dict[str, Any] = {
            "etcd.data.dir": str(self.folder / "data" / "etcd"),
            "etcd.log.path": str(self.folder / "logs" / "etcd.log"),
            "localStorage.path": str(self.folder / "data"),
            "rocksmq.path": str(self.folder / "data" / "rocksmq"),
            "log.file.rootPath": "",  # stderr: one log
        }
        if self.certificates is not None:
            values |= {"common.security.authorizationEnabled": True, "common.security.tlsMode": 1}
            values |= {
                "tls.serverPemPath": str(self.certificates.certificate),
                "tls.serverKeyPath": str(self.certificates.key),
                "tls.caPemPath": str(self.certificates.ca),
            }
        if self._storage is not None:
            values |= {"common.storageType": "minio", "minio.address": "127.0.0.1", "minio.port": self._storage.port}
            values |= {"minio.bucketName": BUCKET, "minio.region": "us-east-1"}
            values |= {"minio.accessKeyID": "writer-key", "minio.secretAccessKey": "writer-secret"}
        config = rendered((MILVUS / "config.yaml.template").read_text(), values | self._config)
        (self.folder / "configs" / "milvus.yaml").write_text(config)
        shutil.copy(MILVUS / "glog.conf", self.folder / "configs")

    def reach(self) -> list[int]:
        return [self._storage.port] if self._storage is not None else []

    def command(self) -> list[str]:
        return [str(MILVUS / "bin" / "milvus"), "run", "standalone"]

    def variables(self) -> dict[str, str]:
        return {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": "9091",
            "MILVUS_RUN_DIR": str(self.folder / "run"),
            "LD_LIBRARY_PATH": str(MILVUS / "bin"),
        }

    def litter(self) -> list[Path]:
        return [Path("/tmp/milvus/server_id_{pid}")]

    def ask(self) -> None:
        with closing(self.client(timeout=5)) as client:
            if PROBE not in client.list_databases(timeout=5):
                client.create_database(PROBE, timeout=5)
        with closing(self.client(timeout=5, db_name=PROBE)) as client:
            if not client.has_collection(PROBE, timeout=5):
                client.create_collection(PROBE, dimension=2, timeout=30)
            client.load_collection(PROBE, timeout=30)
            client.upsert(PROBE, {"id": 1, "vector": [0.0, 1.0]}, timeout=10)
            client.query(PROBE, filter="id == 1", consistency_level="Strong", timeout=10)


def rendered(template: str, values: dict[str, Any]) -> str:
    """The package's config template, `{{ name(type): default }}`, with its defaults and then `values` by dotted name."""
    import yaml

    config = yaml.safe_load(re.sub(r"\{\{\s*\w+(?:\(\w+\))?\s*(?::\s*(.*?))?\s*\}\}", r"\1", template))
    for name, value in values.items():
        *path, last = name.split(".")
        section = config
        for key in path:
            section = section.setdefault(key, {})
        section[last] = value
    return str(yaml.safe_dump(config))
