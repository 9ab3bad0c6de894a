"""Promote and rollback on real servers while clients search: no failed answer and no mixed one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from helpers.counting_encoder import CountingEncoders
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets.catalog.spec import Space
from medvec_assets.query.search import SearchEngine, SearchRequest
from medvec_assets.stages.promote import promote, rollback
from resources import tables
from resources.vector_index import VectorIndex

pytestmark = pytest.mark.integration

ROWS = [series(str(n), "lung" if n < 30 else "liver", patient=f"P{n}", what=f"series {n}") for n in range(40)]
GENERATIONS = ("tcia_catalog__text__open__g1", "tcia_catalog__text__open__g2")


@pytest.fixture
def two(index: VectorIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """tiny@1 live and tiny@2 filled beside it, on a real server."""
    for name in GENERATIONS:
        index.drop(name)  # another test's, of another lake
    encoders = CountingEncoders()
    encoders.install(monkeypatch)
    pipeline = Pipeline(tmp_path, encoders, index=index)  # type: ignore[arg-type]
    pipeline.list_source(*ROWS)
    pipeline.run()
    pipeline.spec = small_spec(spaces={SPACE: Space(encoder="tiny@2")})
    pipeline.run()
    return pipeline


def test_readers_see_one_generation_or_the_other_while_it_is_promoted_and_taken_back(
    two: Pipeline, index: VectorIndex
) -> None:
    engine, moved = SearchEngine(two.settings, two.lake, index), Event()

    def ask() -> list[frozenset[tuple[str, str]]]:
        seen = []
        while not moved.is_set():
            hits = engine.search(SearchRequest(text="series 7", limit=12)).hits
            assert len(hits) == 12
            seen.append(frozenset((hit.encoder, hit.weights_digest) for hit in hits))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(ask) for _ in range(2)]
        try:
            done = promote(two.context(), two.spec, SPACE)
            assert (done.changed, done.recall[0].recall) == (True, 1.0)
            # Written to while it is read: a new series reaches both generations that are maintained.
            two.list_source(*ROWS, series("40", patient="P40", what="new"))
            two.run()
            rollback(two.context(), two.spec, SPACE)
        finally:
            moved.set()
        answers = [answer for reader in readers for answer in reader.result(60)]
    assert [answer for answer in answers if len(answer) != 1] == []
    assert {encoder for answer in answers for encoder, _ in answer} == {"tiny@1", "tiny@2"}
    assert index.alias_target("tcia_catalog__text__open") == GENERATIONS[0]
    kept = two.read(tables.index_recall())
    assert set(kept["collection"].to_list()) == {GENERATIONS[1]}
