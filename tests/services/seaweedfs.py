"""SeaweedFS: an S3 server with credentials, a local key service, and TLS where asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .install import WEED, require
from .server import Server
from .tls import Certificates, make_certificates

ACTIONS = {
    "admin": ["Admin"],
    "writer": ["Read", "Write", "List", "Tagging"],
    "reader": ["Read", "List"],
    "stranger": [],  # known, and allowed nothing
}
"""Who there is, and what each may do in every bucket. The secret of NAME is `NAME-secret`, its access key `NAME-key`."""

PROBE_BUCKET = "probe"
HTTP_PORT, HTTPS_PORT = 8333, 8334
PARTS = ("master", "volume", "filer", "s3", "admin")


class SeaweedFS(Server):
    """`endpoint`, the buckets, and `environment(who)`: the AWS variables that make obstore, delta-rs and boto3 use it.

    SSE-S3, SSE-KMS (any key id: keys are made on demand), versioning and object lock work. Up in 1-2 s.
    """

    name = "seaweedfs"
    start_seconds = 60.0

    def __init__(self, *buckets: str, tls: bool = False) -> None:
        require(WEED)
        super().__init__()
        self.buckets = (PROBE_BUCKET, *buckets)
        self.certificates: Certificates | None = make_certificates(self.folder / "tls") if tls else None
        self.inner_port = HTTPS_PORT if tls else HTTP_PORT

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificates else 'http'}://127.0.0.1:{self.port}"

    def environment(self, who: str = "writer") -> dict[str, str]:
        """AWS variables of one of ACTIONS' identities, to be set in a test or given to a child process."""
        variables = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": f"{who}-key",
            "AWS_SECRET_ACCESS_KEY": f"{who}-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        if self.certificates is None:
            return variables | {"AWS_ALLOW_HTTP": "true"}
        return variables | {"SSL_CERT_FILE": str(self.certificates.ca), "AWS_CA_BUNDLE": str(self.certificates.ca)}

    def client(self, who: str = "admin") -> Any:
        """A boto3 S3 client of one of ACTIONS' identities, without retries: what the server says, and nothing else."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=f"{who}-key",
            aws_secret_access_key=f"{who}-secret",
            verify=str(self.certificates.ca) if self.certificates else None,
            config=Config(
                retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10, proxies={"http": "", "https": ""}
            ),
        )

    def prepare(self) -> None:
        identities = [
            {
                "name": who,
                "credentials": [{"accessKey": f"{who}-key", "secretKey": f"{who}-secret"}],
                "actions": actions,
            }
            for who, actions in ACTIONS.items()
        ]
        keys = {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": True}}}
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities, "kms": keys}))
        (self.folder / "data").mkdir()

    def command(self) -> list[str]:
        flags = {
            "dir": "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "webdav": "false",
            "admin.ui": "false",
            "s3.port": str(HTTP_PORT),
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "s3.config": "s3.json",
            "s3.autoCreateBucket": "false",
            "s3.localSocket": "s3.sock",  # the default is in /tmp, under the fixed port's name
            "filer.localSocket": "filer.sock",
        }
        if self.certificates is not None:
            flags |= {"s3.port.https": str(HTTPS_PORT)}
            flags |= {"s3.cert.file": str(self.certificates.certificate), "s3.key.file": str(self.certificates.key)}
        flags |= {f"{part}.port.grpc": str(port) for part, port in self._grpc_ports.items()}
        return [str(WEED), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in flags.items())]

    def litter(self) -> list[Path]:
        return [Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock") for part, port in self._grpc_ports.items()]

    @property
    def _grpc_ports(self) -> dict[str, int]:
        """Ours alone on this machine: the parts also talk through sockets in /tmp that are named after these, which a
        network of one's own does not keep apart. Two servers at their defaults lose each other's volumes."""
        return {part: self.port + number for number, part in enumerate(PARTS, start=1)}

    def ask(self) -> None:
        """Buckets are there, and an object can be written and read: after a restart volumes come back later than S3."""
        client = self.client()
        present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for bucket in self.buckets:
            if bucket not in present:
                client.create_bucket(Bucket=bucket)
        for bucket in self.buckets:
            client.head_bucket(Bucket=bucket)
        client.put_object(Bucket=PROBE_BUCKET, Key="probe", Body=b"?")
        client.get_object(Bucket=PROBE_BUCKET, Key="probe")["Body"].read()
