"""What only a real Milvus server has: TLS, users and roles, and a life of its own that may end at any moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from typing import Any

import numpy as np
import pytest
from helpers.index_data import EVERYWHERE, batch, clustered, entity_ids, fingerprints, spec

from resources.errors import IndexUnavailable
from resources.settings import Settings
from resources.vector_index import VectorIndex, open_index
from tests.services import Milvus

pytestmark = pytest.mark.integration

PASSWORD = "geheim-42"
_users = count()


def settings(server: Milvus, **changes: Any) -> Settings:
    return Settings(**(server.settings | changes))


@pytest.fixture(scope="module")
def secured(milvus_secured: Milvus) -> Iterator[VectorIndex]:
    with open_index(settings(milvus_secured)) as opened:
        yield opened


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What opening an index ends with, sooner than in production."""
    monkeypatch.setattr("resources.vector_index.connection.CONNECT_SECONDS", 1.0)

    def of(given: Settings) -> IndexUnavailable:
        with pytest.raises(IndexUnavailable) as error, open_index(given):
            pass
        return error.value

    return of


def user(server: Milvus, *privileges: str) -> str:
    """A new user with these privileges on every collection; answers its token."""
    name = f"u{next(_users)}"
    with closing(server.client()) as root:
        root.create_user(name, PASSWORD)
        root.create_role(f"{name}_role")
        for privilege in privileges:
            kind = (
                "Global" if privilege in ("CreateCollection", "DescribeCollection", "ShowCollections") else "Collection"
            )
            root.grant_privilege(f"{name}_role", kind, privilege, "*")
        root.grant_role(name, f"{name}_role")
    return f"{name}:{PASSWORD}"


def test_an_index_over_tls_with_a_token_is_written_and_searched(secured: VectorIndex) -> None:
    wanted, vectors = spec(), clustered(100)
    secured.ensure(wanted)
    assert secured.write(wanted.name, "p", [batch("p", vectors)]) == 100
    secured.settle(wanted.name)
    assert secured.search(wanted.name, vectors[7:8], 1, params=EVERYWHERE)[0][0].entity["record_id"] == "p/7"


def test_its_maker_fills_a_collection_before_it_is_loaded_unless_somebody_else_was_there(milvus: Milvus) -> None:
    alone, shared = spec(), spec()
    rows = batch("p", clustered(100))
    with (
        open_index(settings(milvus)) as maker,
        open_index(settings(milvus)) as other,
        closing(milvus.client()) as client,
    ):
        for wanted in (alone, shared):
            maker.ensure(wanted)
        other.ensure(shared)
        assert other.write(shared.name, "p", [rows]) == 100
        assert fingerprints(maker, shared.name, "p") == fingerprints(other, shared.name, "p") != {}
        for name in (alone.name, shared.name):
            maker.write(name, "p", [rows])
        assert client.get_load_state(alone.name)["state"].name == "NotLoad"
        for name in (alone.name, shared.name):
            maker.settle(name)
            assert maker.count(name) == 100
            assert len(fingerprints(maker, name, "p")) == 100


def test_what_readers_filter_by_has_a_scalar_index(milvus: Milvus) -> None:
    wanted = spec()
    with open_index(settings(milvus)) as index, closing(milvus.client()) as client:
        index.ensure(wanted)
        assert set(client.list_indexes(wanted.name)) == {"vector", "cohort", "license", "modality"}
        client.drop_index(wanted.name, "license")
        index.ensure(wanted)
        kinds = [client.describe_index(wanted.name, name)["index_type"] for name in ("cohort", "license", "modality")]
        assert kinds == ["Trie"] * 3
        index.drop(wanted.name)


@pytest.mark.parametrize("token", ["", "root:geheim", "nobody:geheim"])
def test_a_wrong_token_is_refused_and_not_repeated(milvus_secured: Milvus, refusal: Any, token: str) -> None:
    error = refusal(settings(milvus_secured, index_token=token))
    assert "refuses the token" in error.message and "MEDVEC_INDEX_TOKEN" in error.remedy
    assert "geheim" not in str(error)


def test_a_server_whose_certificate_nobody_vouches_for_is_refused(milvus_secured: Milvus, refusal: Any) -> None:
    error = refusal(settings(milvus_secured, index_ca=None))
    assert "cannot connect" in error.message and "MEDVEC_INDEX_CA" in error.remedy


def test_a_server_that_speaks_tls_is_not_reached_without(milvus_secured: Milvus, refusal: Any) -> None:
    plain = milvus_secured.uri.replace("https", "http")
    error = refusal(settings(milvus_secured, index_uri=plain, index_ca=None))
    assert "MEDVEC_INDEX_URI" in error.remedy


def test_a_user_may_do_what_its_role_grants_and_is_told_of_roles_otherwise(
    milvus_secured: Milvus, secured: VectorIndex
) -> None:
    wanted, vectors = spec(), clustered(20)
    secured.ensure(wanted)
    secured.write(wanted.name, "p", [batch("p", vectors)])
    secured.settle(wanted.name)
    reader = user(milvus_secured, "DescribeCollection", "ShowCollections", "Search", "Query", "Load", "GetLoadState")
    with open_index(settings(milvus_secured, index_token=reader)) as index:
        assert index.search(wanted.name, vectors[3:4], 1, params=EVERYWHERE)[0][0].entity["record_id"] == "p/3"
        assert index.count(wanted.name, "p") == 20
        with pytest.raises(IndexUnavailable, match="roles"):
            index.delete_partition(wanted.name, "p")
        with pytest.raises(IndexUnavailable, match="roles"):
            index.write(wanted.name, "p", [batch("p", vectors)])
        with pytest.raises(IndexUnavailable, match="roles"):
            index.drop(wanted.name)
    assert secured.count(wanted.name) == 20


def test_what_was_acknowledged_before_kill_9_is_there_for_the_same_client(milvus: Milvus) -> None:
    wanted, vectors = spec(), clustered(400)
    with open_index(settings(milvus)) as index:
        uuid = index.ensure(wanted).uuid
        index.write(wanted.name, "p", [batch("p", vectors).slice(0, 200)])
        index.settle(wanted.name)
        index.write(wanted.name, "p", [batch("p", vectors).slice(200)])
        index.delete(wanted.name, "p", entity_ids("p", 10))
        milvus.kill()
        with pytest.raises(IndexUnavailable, match="cannot") as error:
            index.count(wanted.name)
        assert "MEDVEC_INDEX_URI" in error.value.remedy
        milvus.start()
        found = index.describe(wanted.name)
        assert found is not None and found.uuid == uuid
        assert set(fingerprints(index, wanted.name, "p")) == set(entity_ids("p", 400)[10:])
        index.settle(wanted.name)
        hits = index.search(wanted.name, np.concatenate([vectors[399:], vectors[20:21]]), 1, params=EVERYWHERE)
        assert [hit.entity["record_id"] for [hit] in hits] == ["p/399", "p/20"]
