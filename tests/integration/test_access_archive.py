"""The access log sealed to a bucket with object lock, on a real S3 server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from resources.access_log import Event, Keys, Writer
from resources.access_log.places import Place
from resources.access_log.sealing import archive, seal
from resources.access_log.verifying import verify
from resources.errors import MedvecError
from resources.settings import Settings
from tests.services import SeaweedFS

pytestmark = pytest.mark.integration

BUCKET = "evidence"


def test_what_is_sealed_cannot_be_deleted_from_a_bucket_with_object_lock(
    seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    client = seaweedfs.client()
    client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=BUCKET, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    settings = Settings(home=tmp_path, access_uri=f"s3://{BUCKET}/medvec")
    lake, place, keys = archive(settings), Place.of(settings), Keys.of(settings)
    for _ in range(2):
        writer = Writer(place, keys)
        writer.submit(Event(who="ann", subjects=("subject-of-ann",))).result()
        writer.close()
        assert [one.events for one in seal(lake, place, keys)] == [3]
    report = verify(lake, place, keys)
    assert report.ok and (report.sealed_segments, report.open_segments) == (4, 0)

    kept = client.list_object_versions(Bucket=BUCKET)["Versions"]
    assert [one for one in kept if one["Key"].endswith(".parquet")]
    for one in kept:
        with pytest.raises(ClientError) as refused:
            client.delete_object(Bucket=BUCKET, Key=one["Key"], VersionId=one["VersionId"])
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    # Without a version's number S3 only hides it: the table cannot be read then, which is not taken for "nothing there",
    # and what was hidden comes back.
    data = [one["Key"] for one in kept if one["Key"].endswith(".parquet")]
    markers = {key: client.delete_object(Bucket=BUCKET, Key=key)["VersionId"] for key in data}
    with pytest.raises(MedvecError):
        verify(archive(settings), place, keys)
    for key, marker in markers.items():
        client.delete_object(Bucket=BUCKET, Key=key, VersionId=marker)
    assert verify(archive(settings), place, keys).ok
