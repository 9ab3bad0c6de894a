"""1000 Genomes on a real S3 server: signed and anonymous, refused, each file fetched once, as its mirror is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from medvec_assets.connectors import sample_folder
from medvec_assets.connectors.vcf_objects import open_connector
from resources.errors import StorageError
from resources.object_store import ObjectStore
from resources.settings import Settings
from tests.services import SeaweedFS

pytestmark = pytest.mark.integration

ID = "kgp_genotypes"
BUCKET, PREFIX = "source", "release/20130502"
PUBLIC = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{BUCKET}{inside}"}
        for action, inside in (("s3:ListBucket", ""), ("s3:GetObject", "/*"))
    ],
}

Become = Callable[[dict[str, str]], None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Puts AWS variables into the environment, and takes all others out."""

    def change(variables: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.fixture
def source(seaweedfs: SeaweedFS) -> str:
    """The sample bundle in a bucket."""
    client = seaweedfs.client()
    for path in sample_folder(ID).iterdir():
        client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{path.name}", Body=path.read_bytes())
    return f"s3://{BUCKET}/{PREFIX}"


def objects(source: str, home: Path) -> pl.DataFrame:
    connector = open_connector(Settings(home=home, sources={ID: source}), ID)
    return pl.concat([piece.objects for piece in connector.listings(pl.DataFrame())])


def test_a_bucket_gives_what_its_mirror_gives(
    seaweedfs: SeaweedFS, source: str, become: Become, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(seaweedfs.environment("reader"))
    found = objects(source, tmp_path / "home")
    mirror = objects(str(sample_folder(ID)), tmp_path / "mirror")
    same = ["object_id", "checksum", "size_bytes", "license", "subject_ref", "upstream_version"]
    assert found.select(same).equals(mirror.select(same))
    monkeypatch.setattr(ObjectStore, "get_range", lambda *_: pytest.fail("fetched again"))
    connector = open_connector(Settings(home=tmp_path / "home", sources={ID: source}), ID)
    row = found.row(7, named=True)
    assert len(connector.read(row["uri"], max_bytes=1 << 20)) == row["size_bytes"]


def test_a_public_bucket_needs_no_keys_and_a_closed_one_refuses(
    seaweedfs: SeaweedFS, source: str, become: Become, tmp_path: Path
) -> None:
    become(seaweedfs.environment("stranger"))
    with pytest.raises(StorageError) as refusal:
        objects(source, tmp_path / "stranger")
    assert refusal.value.code == "storage_permission"
    seaweedfs.client().put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(PUBLIC))
    try:
        keyless = {name: value for name, value in seaweedfs.environment().items() if "KEY" not in name}
        become(keyless | {"AWS_SKIP_SIGNATURE": "true"})
        assert objects(source, tmp_path / "anonymous").height == 2_507
    finally:
        seaweedfs.client().delete_bucket_policy(Bucket=BUCKET)
