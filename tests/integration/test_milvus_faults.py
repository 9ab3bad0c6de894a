"""A Milvus server that dies where it hurts, or loses all it had: what is told meanwhile, and what stands afterwards."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.counting_encoder import CountingEncoders
from helpers.index_data import batch, clustered, entity_ids, fingerprints, recall, spec
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets.catalog.spec import Space
from medvec_assets.stages import promote as promotion
from medvec_assets.stages.promote import promote
from medvec_assets.stages.verify import verify
from resources.errors import IndexUnavailable
from resources.settings import Settings
from resources.vector_index import VectorIndex, open_index
from tests.services import Milvus
from tests.services.fixtures import QUICK_RESTART

pytestmark = pytest.mark.integration

ROWS = [series(str(n), "lung" if n < 30 else "liver", patient=f"P{n}", what=f"series {n}") for n in range(40)]
ALIAS = "tcia_catalog__text__open"


@pytest.fixture(scope="module")
def mortal() -> Iterator[Milvus]:
    """A server of this module's own."""
    with Milvus(config=QUICK_RESTART) as server:
        yield server


@pytest.fixture(scope="module")
def index(mortal: Milvus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    with open_index(Settings(home=tmp_path_factory.mktemp("index"), **mortal.settings)) as opened:
        yield opened


@pytest.fixture
def pipeline(index: VectorIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A dataset that is indexed on the server."""
    for generation in (1, 2):
        index.drop(f"{ALIAS}__g{generation}")  # another test's, of another lake
    encoders = CountingEncoders()
    encoders.install(monkeypatch)
    made = Pipeline(tmp_path, encoders, index=index)  # type: ignore[arg-type]
    made.list_source(*ROWS)
    made.run()
    return made


def assert_whole(pipeline: Pipeline) -> None:
    for report in verify(pipeline.context(), pipeline.spec, every_vector=True):
        assert (report.ok, report.indexed, report.vectors_compared) == (True, len(ROWS), len(ROWS))


def test_killed_between_two_batches_of_an_upsert(mortal: Milvus, index: VectorIndex) -> None:
    wanted, whole = spec(), batch("p", clustered(2_000))
    index.ensure(wanted)

    def batches() -> Iterator[pa.RecordBatch]:
        yield whole.slice(0, 1_000)
        mortal.kill()
        yield whole.slice(1_000)

    with pytest.raises(IndexUnavailable, match="cannot") as error:
        index.write(wanted.name, "p", batches())
        index.settle(wanted.name)
    assert "MEDVEC_INDEX_URI" in error.value.remedy
    mortal.start()
    index.write(wanted.name, "p", [whole])
    index.settle(wanted.name)
    assert set(fingerprints(index, wanted.name, "p")) == set(entity_ids("p", 2_000))
    assert index.count(wanted.name) == 2_000


def test_killed_while_its_index_is_built(mortal: Milvus, index: VectorIndex) -> None:
    wanted, vectors = spec(dim=128), clustered(20_000, dim=128)
    index.ensure(wanted)
    index.write(wanted.name, "a", [batch("a", vectors)])
    killer = threading.Timer(0.5, mortal.kill)
    killer.start()
    try:
        index.settle(wanted.name)
    except IndexUnavailable as error:
        assert "MEDVEC_INDEX_URI" in error.remedy
    finally:
        killer.join()
        mortal.start()
    index.settle(wanted.name)
    assert index.count(wanted.name) == len(vectors)
    assert recall(index, wanted.name, vectors[:20], vectors) >= 0.98
    index.drop(wanted.name)


@pytest.mark.parametrize("moment", ["measure_and_record", "_set_aliases"])
def test_killed_in_the_middle_of_a_promote(
    moment: str, mortal: Milvus, pipeline: Pipeline, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the flip readers see what they saw; after it the new generation, and the alias follows."""
    pipeline.spec = small_spec(spaces={SPACE: Space(encoder="tiny@2")})
    pipeline.run()
    module = promotion.recall if moment == "measure_and_record" else promotion
    with monkeypatch.context() as patch:
        whole = getattr(module, moment)

        def killed(*args: object) -> object:
            mortal.kill()
            return whole(*args)

        patch.setattr(module, moment, killed)
        with pytest.raises(IndexUnavailable) as error:
            promote(pipeline.context(), pipeline.spec, SPACE)
    assert "MEDVEC_INDEX_URI" in error.value.remedy
    mortal.start()
    assert index.alias_target(ALIAS) == f"{ALIAS}__g1"
    assert promote(pipeline.context(), pipeline.spec, SPACE).changed is (moment == "measure_and_record")
    assert index.alias_target(ALIAS) == f"{ALIAS}__g2"
    assert_whole(pipeline)


def test_a_server_that_lost_its_volume_is_filled_again_whatever_receipts_say(
    mortal: Milvus, pipeline: Pipeline
) -> None:
    assert set(pipeline.due().values()) == {"current"}
    mortal.kill()
    shutil.rmtree(mortal.folder / "data")
    (mortal.folder / "data").mkdir()
    mortal.start()
    [lost] = verify(pipeline.context(), pipeline.spec)
    assert (lost.ok, lost.missing) == (False, len(ROWS))
    assert set(pipeline.due().values()) == {"text_vectors"}
    embedded = len(pipeline.encoders.encoded)
    pipeline.run()
    assert len(pipeline.encoders.encoded) == embedded
    assert_whole(pipeline)
