"""What doctor asks of an S3 endpoint, asked of a real one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from medvec_assets.doctor import examine
from resources import s3_probe
from resources.errors import IntegrityError, StorageError
from resources.s3_probe import S3Probe
from resources.settings import Settings
from tests.services import SeaweedFS

pytestmark = pytest.mark.integration


@pytest.fixture
def as_(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], S3Probe]:
    def become(who: str, bucket: str = "probe") -> S3Probe:
        for name, value in seaweedfs.environment(who).items():
            monkeypatch.setenv(name, value)
        return S3Probe(f"s3://{bucket}/lake")

    return become


def test_a_fit_endpoint_passes_every_probe_and_is_left_as_it_was(
    seaweedfs: SeaweedFS, as_: Callable[[str], S3Probe], tmp_path: Any
) -> None:
    as_("admin")
    client = seaweedfs.client()

    def keys() -> list[str]:
        return [one["Key"] for one in client.list_objects_v2(Bucket="probe").get("Contents", [])]

    before = keys()
    report = examine(Settings(home=tmp_path, lake_uri="s3://probe/lake"))
    checks = {one["name"]: one for one in report["checks"] if one["name"].startswith("lake")}
    assert set(checks) == {"lake", *(f"lake {name}" for name in S3Probe("s3://probe/lake").probes())}
    assert all(one["ok"] for one in checks.values()), checks
    assert "honoured" in checks["lake conditional put"]["detail"]
    assert "not encrypted" in checks["lake encryption"]["detail"]
    assert keys() == before


def test_encryption_is_what_the_settings_ask_for_or_a_failure(
    as_: Callable[[str], S3Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_("admin")
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms")
    monkeypatch.setenv("AWS_SSE_KMS_KEY_ID", "lake-key")
    assert "aws:kms, key lake-key" in as_("admin").encryption()
    monkeypatch.setattr(s3_probe.ObjectStore, "put", lambda store, name, data: _plain(as_("admin"), name, data))
    with pytest.raises(IntegrityError, match="written with none"):
        as_("admin").encryption()


def _plain(probe: S3Probe, name: str, data: bytes) -> None:
    probe._client.put_object(Bucket="probe", Key=probe._key(name), Body=data)


@pytest.mark.parametrize(("who", "permission"), [("reader", "s3:PutObject"), ("stranger", "s3:PutObject")])
def test_a_missing_permission_is_named(as_: Callable[[str], S3Probe], who: str, permission: str) -> None:
    with pytest.raises(StorageError, match=permission) as refusal:
        as_(who).permissions()
    assert refusal.value.code == "storage_permission"
    assert f"{who}-secret" not in str(refusal.value)


def test_a_bucket_that_is_not_there_is_named(as_: Callable[..., S3Probe]) -> None:
    with pytest.raises(StorageError, match="no bucket nowhere"):
        as_("admin", "nowhere").permissions()


def test_an_endpoint_that_overwrites_is_refused(as_: Callable[[str], S3Probe], monkeypatch: pytest.MonkeyPatch) -> None:
    """As servers do that do not know the header: it is taken off before the request is sent."""
    probe = as_("admin")
    probe._client.meta.events.register(
        "before-sign.s3.PutObject", lambda request, **_: request.headers.__delitem__("If-None-Match")
    )
    with pytest.raises(IntegrityError, match="overwrites an object") as refusal:
        probe.conditional_put()
    assert refusal.value.code == "conditional_put_ignored"


def test_a_clock_that_is_off_is_told_with_how_much(
    as_: Callable[[str], S3Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(UTC) + timedelta(minutes=10)

    monkeypatch.setattr(s3_probe, "datetime", Late)
    with pytest.raises(IntegrityError, match=r"differ by (59\d|60\d) s"):
        as_("admin").clock()


def test_versioning_is_told(seaweedfs: SeaweedFS, as_: Callable[..., S3Probe]) -> None:
    client = seaweedfs.client()
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    assert "versioning is on" in as_("admin", "versioned").versioning()
    assert "versioning is off" in as_("admin").versioning()


def test_an_endpoint_that_is_down_is_told_with_what_to_look_at(
    as_: Callable[[str], S3Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_("admin")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="does not answer") as refusal:
        S3Probe("s3://probe/lake").permissions()
    assert "AWS_ENDPOINT_URL" in refusal.value.remedy
