"""One typed Settings object, read from MEDVEC_* variables only.

Belongs here: where things are and how big a bite to take. Settings choose resources, never which assets exist.
Does not belong here: facts about datasets (catalog), defaults of an encoder (encoders).
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from datetime import date
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from resources.errors import ConfigError

SECRET_BYTES = 32


class Agreement(BaseModel):
    """A data-use agreement on file: who holds it, for which datasets, and the last day on which it is valid."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field(min_length=1)
    holder: str = Field(min_length=1)
    datasets: frozenset[str]
    expires: date


class Settings(BaseSettings):
    """Everything that differs between a laptop, a cluster and an enclave.

    `MEDVEC_HOME` holds what is local: the embedded lake and index, keys, Dagster's storage, the last run.
    """

    model_config = SettingsConfigDict(env_prefix="MEDVEC_", extra="ignore", frozen=True)

    home: Path = Path(".medvec")
    lake_uri: str = Field(default="", description="Delta tables: a folder or s3://; empty means HOME/lake")
    index_uri: str = Field(
        default="", description="a folder (Milvus Lite, run by medvec) or http(s)://; empty: HOME/index"
    )
    index_token: SecretStr = SecretStr("")
    index_ca: Path | None = Field(default=None, description="PEM of who signed an https:// index' certificate")
    index_bulk_uri: str = Field(
        default="", description="a folder or s3:// that a Milvus server reads itself: first fills are imported from it"
    )
    index_bulk_rows: int = Field(default=200_000, ge=1, description="partitions of fewer entities are inserted")
    sources: dict[str, str] = Field(
        default_factory=dict, description="dataset id -> URI read instead of its sample bundle"
    )
    credentials: dict[str, SecretStr] = Field(
        default_factory=dict, description="source -> its token, key, SAS or user:password, as its connector says"
    )
    landed_bytes: int = Field(
        default=20_000_000_000,
        ge=0,
        description="of each dataset's files that were fetched from the web or a bucket and are kept",
    )
    weights: dict[str, str] = Field(default_factory=dict, description="encoder ref -> path or s3:// of its weights")
    site: str = Field(
        default="anywhere", description="where this deployment runs; residency rules are checked against it"
    )
    site_hosts: frozenset[str] = Field(
        default_factory=frozenset, description="hosts of index servers and names of buckets that are at this site too"
    )
    agreements: tuple[Agreement, ...] = Field(default=(), description="agreements on file, as JSON objects")
    confirmed_removals: frozenset[str] = Field(
        default_factory=frozenset, description="`dataset@version`: a listing that takes away so much is meant"
    )
    pseudonym_key: SecretStr | None = Field(default=None, description="hex; empty means HOME/keys/pseudonym.key")
    audit_key: SecretStr | None = Field(
        default=None, description="hex; keys the access log, the same for all replicas; empty: HOME/keys/audit.key"
    )
    access_uri: str = Field(
        default="", description="where the access log is sealed: a bucket with object lock; empty: the lake"
    )
    access_budget_ms: int = Field(
        default=250, ge=1, description="an answer whose event is not written by then is refused"
    )
    harvest_share: float = Field(
        default=0.2, gt=0, le=1, description="a caller who saw so much of a dataset's subjects in 24 hours is told of"
    )
    device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$")
    threads: int = Field(default=0, ge=0, description="torch threads; 0 means the cores this process may use")
    decode_workers: int = Field(
        default=0, ge=0, description="threads, and for large partitions processes, that read and decode; 0: the cores"
    )
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8087, ge=0, le=65535)
    api_hosts: frozenset[str] = Field(
        default_factory=frozenset, description="names by which others reach the service, besides loopback's"
    )
    api_tls_cert: Path | None = Field(default=None, description="PEM of the service's certificate and its chain")
    api_tls_key: Path | None = None
    api_behind_proxy: bool = Field(default=False, description="an edge before the service ends TLS")
    api_proxies: frozenset[str] = Field(
        default_factory=frozenset, description="addresses or networks whose X-Forwarded-* headers are believed"
    )
    api_rate_limit: str = Field(default="100000/minute", description="requests of one caller")
    api_cost_limit: str = Field(default="200000/minute", description="one caller's questions, long answers more than 1")
    api_failure_limit: str = Field(default="60/minute", description="refused credentials of one client address")
    api_limits_uri: SecretStr = Field(
        default=SecretStr("memory://"), description="where limits are counted; redis:// counts for all replicas"
    )
    api_purposes: frozenset[str] = Field(
        default=frozenset(
            {"TREAT", "HRESCH", "CLINTRCH", "PUBHLTH", "HOPERAT", "HQUALIMP", "HCOMPL", "HSYSADMIN", "TRAIN"}
        ),
        description="HL7 PurposeOfUse codes that a caller may give",
    )
    api_purpose_required: bool = False
    oidc_issuer: str = Field(default="", description="whose tokens are accepted; empty: nobody's")
    oidc_audience: str = Field(default="", description="this service, as the issuer's tokens name it")
    oidc_jwks_uri: str = Field(default="", description="the issuer's keys; empty: where its discovery document says")
    oidc_ca: Path | None = Field(default=None, description="PEM of who signed the issuer's certificate")
    oidc_roles_claim: str = "roles"
    oidc_datasets_claim: str = "datasets"
    oidc_role_names: dict[str, str] = Field(
        default_factory=dict, description="a value of the roles claim -> the role it gives; empty: the roles' own names"
    )
    oidc_leeway_seconds: int = Field(default=60, ge=0, le=300, description="by how much the issuer's clock may differ")
    api_index_seconds: float = Field(default=5.0, gt=0, description="one request to the index; a slower one is a 503")
    api_concurrency: int = Field(
        default=16, ge=1, description="requests of a worker at work at once; more of them wait"
    )
    api_queue: int = Field(default=64, ge=0, description="requests of a worker that may wait; more of them are a 503")
    api_workers: int = Field(default=1, ge=1, description="processes of the query service")
    api_drain_seconds: float = Field(
        default=0.0, ge=0, description="after SIGTERM: not ready, still answering, until a balancer has noticed"
    )
    log_format: str = Field(default="line", pattern="^(line|ecs)$", description="ecs: JSON in Elastic's schema")
    api_upload_bytes: int = Field(default=64 << 20, ge=1, description="of an image that is searched by")
    api_upload_pixels: int = Field(
        default=1 << 28, ge=1, description="rows x columns x frames, or voxels, that such an image may declare"
    )
    api_upload_seconds: float = Field(
        default=20.0, gt=0, description="for such an image to come, and again for it to be read"
    )
    dagster_port: int = Field(default=3087, ge=0, le=65535)

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def lake(self) -> str:
        return self.lake_uri or str(self.home / "lake")

    @property
    def index(self) -> str:
        return self.index_uri or str(self.home / "index")

    @property
    def api_is_local(self) -> bool:
        """Whether nobody but this machine reaches the query service: on loopback, with no proxy in front."""
        try:
            loopback = self.api_host == "localhost" or ipaddress.ip_address(self.api_host).is_loopback
        except ValueError:
            loopback = False
        return loopback and not self.api_behind_proxy

    @property
    def torch_threads(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))

    @property
    def decode_threads(self) -> int:
        return self.decode_workers or len(os.sched_getaffinity(0))

    @cached_property
    def pseudonym_secret(self) -> bytes:
        """The HMAC key of every pseudonym, 32 bytes. Made on first use, readable by the owner only."""
        return self._secret(self.pseudonym_key, "pseudonym")

    @cached_property
    def audit_secret(self) -> bytes:
        """What the keys of the access log are derived from, 32 bytes: apart from pseudonyms, for another holder."""
        return self._secret(self.audit_key, "audit")

    def _secret(self, key: SecretStr | None, name: str) -> bytes:
        remedy = f"set MEDVEC_{name.upper()}_KEY to 64 hex digits, or unset it and keep HOME/keys/{name}.key"
        given = key.get_secret_value() if key else ""
        try:
            secret = bytes.fromhex(given or secret_file(self.home / "keys" / f"{name}.key"))
        except ValueError:
            raise ConfigError(f"the {name} key is not hexadecimal", remedy=remedy) from None
        if len(secret) < SECRET_BYTES:
            raise ConfigError(f"the {name} key has {len(secret)} bytes, not {SECRET_BYTES}", remedy=remedy)
        return secret


def secret_file(path: Path) -> str:
    """A secret of 32 random bytes in hex at `path`, made once with mode 0600; two first starts agree on one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(SECRET_BYTES))
        try:
            os.link(draft, path)  # fails if another process was first: then theirs counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
