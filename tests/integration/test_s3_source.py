"""Sources in a bucket of a real S3 server: each object crosses the web once, for listing, records and embeddings together.

What crosses is counted by a proxy between medvec and the server: GETs, by object.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import unquote

import polars as pl
import pytest
from helpers.listing_process import Job, listed

from medvec_assets.catalog import dataset
from medvec_assets.connectors import sample_folder
from medvec_assets.query import thumbnails
from medvec_assets.query.published import LiveSpace
from medvec_assets.stages import embeddings, manifest, records
from medvec_assets.stages.context import Context
from resources import tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from tests.services import SeaweedFS
from tests.services import proxy as faults
from tests.services.proxy import Exchange, Proxy

pytestmark = pytest.mark.integration

DICOM = "tcia_radiology"
BUCKET = "source"
_prefixes = count()


@dataclass
class Source:
    """One prefix of the bucket; `gets` are the GETs below it that came by, by URI."""

    prefix: str
    client: Any
    gets: list[str] = field(default_factory=list)
    kill_at: int = 0
    """The GET of this number kills the process that `started` tells of, before it is answered."""
    started: Queue[BaseProcess] = field(default_factory=Queue)

    @property
    def uri(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}", Body=data)

    def put_sample(self, name: str) -> None:
        folder = sample_folder(name)
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(path.relative_to(folder).as_posix(), path.read_bytes())

    async def watch(self, exchange: Exchange) -> None:
        method, _, target = exchange.line.partition(" ")
        uri = "s3:/" + unquote(target.partition("?")[0])
        if method == "GET" and uri.startswith(f"{self.uri}/"):
            self.gets.append(uri)
            if len(self.gets) == self.kill_at:
                self.started.get(timeout=60).kill()
        await faults.none(exchange)

    def crossed(self, objects: Iterable[str]) -> dict[str, int]:
        """How often each of these objects did, by URI, since this was asked last."""
        count = Counter(self.gets)
        self.gets.clear()
        return {uri: count[uri] for uri in objects}


@pytest.fixture
def source(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with Proxy(seaweedfs.port) as between:
        for name, value in (seaweedfs.environment("reader") | {"AWS_ENDPOINT_URL": between.endpoint}).items():
            monkeypatch.setenv(name, value)
        found = Source(f"once-{os.getpid()}-{next(_prefixes)}", seaweedfs.client())
        between.fault = found.watch
        yield found


def run(source: Source, home: Path) -> tuple[pl.Series, int]:
    """The stages that may read objects, as `medvec run` goes through them: the objects' URIs and how many vectors stand."""
    spec, settings = dataset(DICOM), Settings(home=home, sources={DICOM: source.uri}, pseudonym_key="33" * 32)
    lake = Lakehouse.open(settings)
    for partition in manifest.refresh(Context(settings, lake, "listing"), spec).plan["partition"]:
        records.build(Context(settings, lake, f"records of {partition}"), spec, partition)
        embeddings.build(Context(settings, lake, f"vectors of {partition}"), spec, "image", partition)
    vectors = lake.ensure(tables.embeddings(spec.id, "image")).count()
    return lake.ensure(tables.manifest(spec.id)).read()["uri"], vectors


def test_an_object_crosses_once_for_all_stages_and_again_only_when_it_changed(source: Source, tmp_path: Path) -> None:
    source.put_sample(DICOM)
    objects, vectors = run(source, tmp_path)
    assert set(source.crossed(objects).values()) == {1} and len(objects) == 6 and vectors == 2

    assert run(source, tmp_path)[1] == vectors and set(source.crossed(objects).values()) == {0}

    source.put("chest_ct/another.dcm", (sample_folder(DICOM) / "brain_mr" / "MR_small.dcm").read_bytes())
    objects, more = run(source, tmp_path)
    new = f"{source.uri}/chest_ct/another.dcm"
    assert source.crossed(objects) == dict.fromkeys(objects, 0) | {new: 1} and more == vectors + 1


def test_a_service_keeps_nothing_of_what_it_shows(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its home may be another than the pipeline's, where nobody would remove what was withdrawn."""
    source.put_sample(DICOM)
    objects, _ = run(source, tmp_path)
    source.gets.clear()
    spec = dataset(DICOM)
    live = LiveSpace(spec, "image", spec.spaces["image"].version, "open", 1, "none is asked")
    monkeypatch.setattr(thumbnails, "live_spaces", lambda *_: [live])
    lake = Lakehouse.open(Settings(home=tmp_path))
    shown = lake.ensure(tables.embeddings(spec.id, "image")).read(["vector_id"])["vector_id"][0]
    for home, fetched in ((tmp_path, 0), (tmp_path / "service", 1)):
        settings = Settings(home=home, sources={DICOM: source.uri}, pseudonym_key="33" * 32)
        assert thumbnails.thumbnail(shown, settings, lake).png.startswith(b"\x89PNG")
        assert sum(source.crossed(objects).values()) == fetched
    assert not (tmp_path / "service" / "landed").exists()


@pytest.mark.parametrize(
    ("name", "refused"), [("aimi_chest_xray", 0), ("ukb_brain_mri", 0), ("gdc_rna_seq", 1), ("sra_runs", 0)]
)
def test_what_a_listing_reads_is_not_fetched_for_the_records(
    name: str, refused: int, source: Source, tmp_path: Path
) -> None:
    """`refused`: objects whose bytes are not what their checksum says, and are not kept."""
    source.put_sample(name)
    checked = pl.col("checksum_kind").is_in(records.CHECKED_ON_READ)
    objects = listed(Job(name, source.uri), tmp_path).filter(checked)["uri"].str.replace("#.*", "")
    assert set(source.crossed(objects).values()) == {1}
    listed(Job(name, source.uri), tmp_path)
    assert sorted(source.crossed(objects).values()) == [0] * (len(objects) - refused) + [1] * refused


def test_a_killed_listing_of_a_bucket_goes_on_and_fetches_nothing_again(source: Source, tmp_path: Path) -> None:
    source.put_sample(DICOM)
    job, source.kill_at = Job(DICOM, source.uri), 4
    process = multiprocessing.get_context("spawn").Process(target=listed, args=(job, tmp_path / "home"))
    process.start()
    source.started.put(process)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL and len(source.gets) == 4
    killed = source.gets[-1]
    objects = listed(job, tmp_path / "home")["uri"]
    assert source.crossed(objects) == dict.fromkeys(objects, 1) | {killed: 2}
