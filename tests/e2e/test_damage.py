"""Damage done to the index by hand: `verify` tells exactly it, `run` or `sync --full` heals exactly it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from command import COLLECTION, DATASET, SPACE, Home, commits, index_state, lake_state
from pymilvus import MilvusClient


@pytest.fixture
def client(done: Home) -> Iterator[MilvusClient]:
    with done.server_up() as uri:
        client = MilvusClient(uri)
        client.load_collection(COLLECTION)
        yield client
        client.close()


def test_deleted_and_foreign_entities_are_told_and_a_run_heals_just_them(done: Home, client: MilvusClient) -> None:
    entities, lake = index_state(done), lake_state(done)
    # In different partitions: where as many came as went, a count shows nothing, and only a full sync heals.
    lost = sorted(entity for entity, fields in entities.items() if fields["partition"] == "lctsc")[:3]
    twin = min(entity for entity, fields in entities.items() if fields["partition"] == "tcga_lihc")
    [row] = client.get(COLLECTION, ids=[twin], output_fields=["*"])
    client.delete(COLLECTION, ids=lost)
    client.upsert(COLLECTION, [row | {"entity_id": "f" * 32}])

    whole = len(entities)
    told = {**_all_there(entities), "indexed": whole - 2, "missing": 3, "extra": 1, "ok": False}
    assert _verified(done, code=1) == told
    assert _totals(done.fine("run", "--dataset", DATASET)) == (0, 3, 1, whole - 3)
    assert _verified(done, code=0) == _all_there(entities)
    assert index_state(done) == entities
    assert lake_state(done) == lake


def test_a_changed_fingerprint_is_stale_and_a_full_sync_writes_just_it(done: Home, client: MilvusClient) -> None:
    entities = index_state(done)
    victim = sorted(entities)[0]
    [row] = client.get(COLLECTION, ids=[victim], output_fields=["*"])
    client.upsert(COLLECTION, [row | {"row_fingerprint": "0" * 32}])

    assert _verified(done, code=1) == {**_all_there(entities), "stale": 1, "ok": False}
    before = commits(done)
    # Count and receipt cannot show it: a run believes them, that is what makes a second run cheap.
    assert _totals(done.fine("run", "--dataset", DATASET)) == (0, 0, 0, len(entities))
    assert commits(done) == before
    synced = done.fine("sync", "--dataset", DATASET, "--full")
    assert (synced["upserted"], synced["deleted"], synced["unchanged"]) == (1, 0, len(entities) - 1)
    assert _verified(done, code=0) == _all_there(entities)
    assert index_state(done) == entities


def test_a_dropped_collection_is_filled_again_from_gold(done: Home, client: MilvusClient) -> None:
    entities, lake = index_state(done), lake_state(done)
    for alias in client.list_aliases(COLLECTION)["aliases"]:
        client.drop_alias(alias)
    client.drop_collection(COLLECTION)

    lost = {**_all_there(entities), "indexed": 0, "missing": len(entities), "ok": False}
    assert _verified(done, code=1) == lost
    assert _totals(done.fine("run", "--dataset", DATASET)) == (0, len(entities), 0, 0)
    assert _verified(done, code=0) == _all_there(entities)
    assert index_state(done) == entities
    assert lake_state(done) == lake
    assert client.describe_alias(f"{DATASET}__{SPACE}__open")["collection_name"] == COLLECTION


def _verified(home: Home, code: int) -> dict[str, Any]:
    """The one collection's report, which must end with exit `code`."""
    result = home.medvec("verify", "--dataset", DATASET, "--json")
    assert (result.code, result.stderr) == (code, "")
    assert result.json["ok"] is (code == 0)
    [report] = result.json["collections"]
    # A sample; what is lost has no vector to compare.
    compared, differ = report.pop("vectors_compared"), report.pop("vectors_differ")
    assert (report.pop("layout"), report.pop("recall")) == ([], [])  # as planned; not asked for
    assert (compared > 0, differ) == (report["indexed"] > 0, 0)
    return dict(report)


def _all_there(entities: dict[str, Any]) -> dict[str, Any]:
    partitions = len({entity["partition"] for entity in entities.values()})
    whole = len(entities)
    return {
        "collection": COLLECTION,
        "partitions": partitions,
        "desired": whole,
        "indexed": whole,
        "missing": 0,
        "extra": 0,
        "stale": 0,
        "ok": True,
    }


def _totals(report: dict[str, Any]) -> tuple[int, int, int, int]:
    """(embeddings computed, entities written, deleted, unchanged)"""
    totals = report["datasets"][DATASET]["spaces"][SPACE]
    return (
        totals["embeddings_computed"],
        totals["vectors_upserted"],
        totals["vectors_deleted"],
        totals["vectors_unchanged"],
    )
