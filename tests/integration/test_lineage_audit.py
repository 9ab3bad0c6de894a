"""`medvec audit lineage` over real DICOM files, Delta tables, the image encoder and Milvus Lite: whole, and then one byte of a
source file, one record, one vector in gold and one in the index are changed, each found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from helpers.filling import fill
from typer.testing import CliRunner

from medvec_assets.catalog import dataset
from medvec_assets.cli import app
from medvec_assets.stages import entities
from medvec_assets.stages.context import Context
from resources import tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.tables import TableSpec
from resources.vector_index import ENTITY_SCHEMA, VectorIndex, open_index

pytestmark = pytest.mark.integration

SPEC = dataset("tcia_radiology")
FIXTURES = Path(__file__).parents[1] / "datasets" / SPEC.id / "in"
COLLECTION = "tcia_radiology__image__open__g1"


@dataclass(frozen=True)
class World:
    settings: Settings
    source: Path
    index: VectorIndex

    def audited(self, *options: str, code: int) -> dict[str, set[str]]:
        """rule -> the objects that the command names."""
        sources = json.dumps({SPEC.id: str(self.source)})
        environment = {"MEDVEC_HOME": str(self.settings.home), "MEDVEC_SOURCES": sources}
        command = ["audit", "lineage", "--dataset", SPEC.id, "--all", "--json", *options]
        done = CliRunner().invoke(app, command, env=environment)
        assert done.exit_code == code, done.output
        told = json.loads(done.stdout.splitlines()[-1])
        named: dict[str, set[str]] = {}
        for one in told["broken"]:
            named.setdefault(one["rule"], set()).add(one["object"])
        return named

    def read(self, table: TableSpec) -> pl.DataFrame:
        return Lakehouse.open(self.settings).ensure(table).read()

    def rewrite(self, table: TableSpec, rows: pl.DataFrame) -> None:
        lake = Lakehouse.open(self.settings)
        lake.replace(lake.ensure(table), {}, rows.to_arrow().cast(table.schema).to_batches(), {})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    source = home / "source"
    shutil.copytree(FIXTURES, source)
    settings = Settings(home=home, sources={SPEC.id: str(source)})
    with open_index(settings) as index:
        ctx = Context(settings, Lakehouse.open(settings), "run-of-the-test", index=index)
        fill(ctx, SPEC, "image")
        yield World(settings, source, index)


def test_each_thing_that_is_changed_is_found_and_named(world: World) -> None:
    assert world.audited("--recompute", "2", code=0) == {}

    gold, silver = tables.embeddings(SPEC.id, "image"), tables.records(SPEC.id)
    rows = world.read(gold).sort("vector_id")
    victim = rows.filter(pl.col("cohort") == "chest_ct").row(0, named=True)

    file = world.source / "chest_ct" / "CT_small.dcm"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    listed = world.read(tables.manifest(SPEC.id))
    [changed] = listed.filter(pl.col("uri").str.ends_with("/CT_small.dcm"))["object_id"]
    assert world.audited(code=1) == {"object_bytes": {changed}}
    file.write_bytes(whole)

    kept = world.read(silver)
    altered = pl.when(pl.col("record_id") == victim["record_id"]).then(pl.lit('{"x":1}')).otherwise("deid_actions")
    world.rewrite(silver, kept.with_columns(deid_actions=altered))
    assert world.audited(code=1) == {"rows_recorded": {victim["record_id"]}}
    world.rewrite(silver, kept)

    turned = pl.when(pl.col("vector_id") == victim["vector_id"]).then(_flipped(victim)).otherwise("vector")
    world.rewrite(gold, rows.with_columns(vector=turned))
    found = world.audited("--recompute", "1", code=1)
    assert found == {"entity_vector": {victim["vector_id"]}, "vector_again": {victim["vector_id"]}}
    world.rewrite(gold, rows)

    _write(world, victim)
    assert world.audited("--recompute", "1", code=1) == {"entity_vector": {victim["vector_id"]}}


def _flipped(row: dict[str, Any]) -> pl.Expr:
    return pl.lit([-value for value in row["vector"]], dtype=pl.List(pl.Float32))


def _write(world: World, row: dict[str, Any]) -> None:
    """Give the vector's entity in the index other floats and leave all else."""
    held = world.read(tables.embeddings(SPEC.id, "image")).sort("record_id")
    wanted = entities.of_rows(SPEC, held.filter(pl.col("partition") == row["partition"]), row["partition"])
    [entity_id] = wanted.filter(pl.col("vector_id") == row["vector_id"])["entity_id"]
    [entity] = world.index.get(COLLECTION, [entity_id])
    entity |= {"vector": [-value for value in row["vector"]], "attributes": json.dumps(entity["attributes"])}
    batch = pa.Table.from_pylist([entity], schema=ENTITY_SCHEMA).to_batches()
    world.index.write(COLLECTION, row["partition"], batch)
