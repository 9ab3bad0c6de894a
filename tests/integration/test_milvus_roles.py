"""The roles that `medvec roles` makes: enough for the work, and a reader that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from helpers.counting_encoder import CountingEncoders
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets.catalog.spec import Space
from medvec_assets.query.search import SearchEngine, SearchRequest
from medvec_assets.stages.promote import drop_retired, promote
from medvec_assets.stages.verify import verify
from resources.errors import ConfigError, IndexUnavailable
from resources.settings import Settings
from resources.vector_index import VectorIndex, open_index
from resources.vector_index.roles import READER, WRITER, ensure_roles
from tests.services import Milvus

pytestmark = pytest.mark.integration

PASSWORD = "geheim-42"
ROWS = [series(str(n), "lung" if n < 30 else "liver", patient=f"P{n}", what=f"series {n}") for n in range(40)]
_users = count()


@pytest.fixture(scope="module")
def granted(milvus_secured: Milvus) -> dict[str, list[str]]:
    settings = Settings(**milvus_secured.settings)
    assert ensure_roles(settings) == ensure_roles(settings)  # twice is once
    return ensure_roles(settings)


@pytest.fixture(scope="module")
def tokens(milvus_secured: Milvus, granted: dict[str, list[str]]) -> dict[str, str]:
    """Role -> the token of a user that has it. Both are made before the work, as an operator makes them: 2.3.5 denied
    Load to users made after an alias was moved and its collection dropped, whatever their role."""
    found = {}
    with closing(milvus_secured.client()) as root:
        for role in granted:
            name = f"user{next(_users)}"
            root.create_user(name, PASSWORD)
            root.grant_role(name, role)
            found[role] = f"{name}:{PASSWORD}"
    return found


@contextmanager
def index_of(server: Milvus, token: str, home: Path) -> Iterator[VectorIndex]:
    """The server as this user sees it."""
    own: dict[str, Any] = server.settings | {"index_token": token}
    with open_index(Settings(home=home, **own)) as index:
        yield index


def test_a_writer_does_all_that_runs_do_and_a_reader_searches_and_changes_nothing(
    milvus_secured: Milvus, tokens: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders = CountingEncoders()
    encoders.install(monkeypatch)
    with index_of(milvus_secured, tokens[WRITER], tmp_path) as index:
        for generation in (1, 2):
            index.drop(f"tcia_catalog__text__open__g{generation}")
        pipeline = Pipeline(tmp_path, encoders, index=index)  # type: ignore[arg-type]
        pipeline.list_source(*ROWS)
        pipeline.run()
        pipeline.list_source(*ROWS[5:])
        pipeline.run()  # deletes
        assert all(report.ok for report in verify(pipeline.context(), pipeline.spec, every_vector=True))
        pipeline.spec = small_spec(spaces={SPACE: Space(encoder="tiny@2")})
        pipeline.run()
        assert promote(pipeline.context(), pipeline.spec, SPACE).changed
        assert drop_retired(pipeline.context(), pipeline.spec, SPACE)
        index.compact("tcia_catalog__text__open__g2")
    with index_of(milvus_secured, tokens[READER], tmp_path) as index:
        hits = (
            SearchEngine(pipeline.settings, pipeline.lake, index).search(SearchRequest(text="series 7", limit=3)).hits
        )
        assert len(hits) == 3
        name = "tcia_catalog__text__open__g2"
        changes = (
            lambda: index.delete_partition(name, "lung"),
            lambda: index.drop(name),
            lambda: index.set_alias("tcia_catalog__text__another", name),
        )
        for change in changes:
            with pytest.raises(IndexUnavailable, match="medvec_writer") as error:
                change()
            assert not error.value.retryable
        assert index.count(name) == 35


def test_milvus_lite_knows_no_roles(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MEDVEC_INDEX_URI"):
        ensure_roles(Settings(home=tmp_path))
