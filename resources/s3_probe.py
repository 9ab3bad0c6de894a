"""Is an S3 endpoint fit to hold a lake? Each probe asks one thing of it and names the remedy.

Belongs here: what `medvec doctor` asks of an s3:// lake before it is trusted. Does not belong here: reading and writing
a lake (lakehouse, object_store), whose clients are tried as they are and looked at through boto3, which shows headers.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from resources.errors import IntegrityError, StorageError
from resources.object_store import ObjectStore

MAX_SKEW_SECONDS = 60  # S3 refuses every request at 900; audit rows and freshness are wrong long before
_BODY = b"medvec"


class S3Probe:
    """The probes of one s3:// URI. Objects are put below its `staging/` and deleted again.

    Every probe returns a sentence, or raises StorageError or IntegrityError with what to do.
    """

    def __init__(self, uri: str) -> None:
        self._store = ObjectStore(uri)
        self._bucket, _, prefix = uri.removeprefix("s3://").rstrip("/").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    def probes(self) -> dict[str, Callable[[], str]]:
        return {
            "permissions": self.permissions,
            "conditional put": self.conditional_put,
            "clock": self.clock,
            "encryption": self.encryption,
            "versioning": self.versioning,
        }

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        retries: Any = {"total_max_attempts": 2}
        # A session of its own: the default one keeps the first credentials that this process saw.
        return boto3.session.Session().client("s3", config=Config(retries=retries, connect_timeout=5, read_timeout=20))

    def permissions(self) -> str:
        """The account may do what a lake needs: put, get, list and delete."""
        name = self._name()
        steps: dict[str, Callable[[], Any]] = {
            "s3:PutObject": lambda: self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=_BODY),
            "s3:GetObject": lambda: self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read(),
            "s3:ListBucket": lambda: self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._key(name)),
            "s3:DeleteObject": lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(name)),
        }
        for permission, step in steps.items():
            with self._named(permission):
                step()
        return f"{', '.join(steps)} are granted on {self._bucket}"

    def conditional_put(self) -> str:
        """`If-None-Match: *` refuses to overwrite: Delta's commits are lost silently where it does not."""
        from botocore.exceptions import ClientError

        with self._probe_object() as name, self._named("s3:PutObject"):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=b"second", IfNoneMatch="*")
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                    return "If-None-Match is honoured: of two commits of one version one is refused"
                raise
        raise IntegrityError(
            "the endpoint overwrites an object in spite of If-None-Match: two commits at once would lose one of them",
            remedy="keep the lake on an endpoint that honours conditional puts (AWS S3, SeaweedFS 4, MinIO of 2024-12 or later)",
            code="conditional_put_ignored",
        )

    def clock(self) -> str:
        """This machine and the endpoint agree on the time."""
        with self._named("s3:ListBucket"):
            answer = self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if told is None:
            return "the endpoint does not tell its time"
        skew_seconds = abs((datetime.now(UTC) - parsedate_to_datetime(told)).total_seconds())
        if skew_seconds > MAX_SKEW_SECONDS:
            raise IntegrityError(
                f"this machine's clock and the endpoint's differ by {skew_seconds:.0f} s",
                remedy="synchronise both with NTP: signatures are refused at 900 s",
                code="clock_skew",
            )
        return f"clocks agree within {max(skew_seconds, 1):.0f} s"

    def encryption(self) -> str:
        """What an object that medvec's own client writes is encrypted with; what AWS_* asks for must be what is done."""
        wanted = os.environ.get("AWS_SERVER_SIDE_ENCRYPTION")
        with self._probe_object() as name, self._named("s3:GetObject"):
            head = self._client.head_object(Bucket=self._bucket, Key=self._key(name))
        found = head.get("ServerSideEncryption")
        key = head.get("SSEKMSKeyId")
        if wanted and found != wanted:
            raise IntegrityError(
                f"AWS_SERVER_SIDE_ENCRYPTION asks for {wanted}, and objects are written with {found or 'none'}",
                remedy="see that the endpoint supports it and that the account may use the key (kms:GenerateDataKey)",
                code="not_encrypted",
            )
        if not found:
            return (
                "objects are not encrypted by the endpoint; where data is not open, set AWS_SERVER_SIDE_ENCRYPTION=aws:kms "
                "and AWS_SSE_KMS_KEY_ID, or the bucket's default encryption"
            )
        return f"objects are encrypted with {found}{f', key {key}' if key else ''}"

    def versioning(self) -> str:
        """Whether deleted objects stay as versions, which erasure has to know."""
        with self._named("s3:GetBucketVersioning"):
            status = self._client.get_bucket_versioning(Bucket=self._bucket).get("Status", "off")
        if status == "Enabled":
            return "versioning is on: what vacuum deletes stays as old versions; add a lifecycle rule that expires them"
        return f"versioning is {status.lower()}: a deleted object is gone"

    def _name(self) -> str:
        return f"staging/.probe-{uuid.uuid4()}"

    def _key(self, name: str) -> str:
        return self._prefix + name

    @contextmanager
    def _probe_object(self) -> Iterator[str]:
        """An object written by medvec's own client, gone afterwards."""
        name = self._name()
        self._store.put(name, _BODY)
        try:
            yield name
        finally:
            self._store.delete(name)

    @contextmanager
    def _named(self, permission: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status in (401, 403):
                raise StorageError(
                    f"{permission} is refused on s3://{self._bucket}",
                    remedy=f"grant {permission} to this account, or correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                    code="storage_permission",
                ) from error
            if status == 404:
                raise StorageError(
                    f"there is no bucket {self._bucket}",
                    remedy="create it, or correct MEDVEC_LAKE_URI",
                    code="no_bucket",
                ) from error
            raise StorageError(
                f"s3://{self._bucket} answers {status} to a request that needs {permission}",
                remedy="see the endpoint's log; if it is overloaded, run again",
                retryable=status >= 500,
            ) from error
        except BotoCoreError as error:
            raise StorageError(
                f"s3://{self._bucket} does not answer ({type(error).__name__})",
                remedy="check AWS_ENDPOINT_URL, the network, and AWS_CA_BUNDLE and SSL_CERT_FILE for a private CA",
                retryable=True,
            ) from error
