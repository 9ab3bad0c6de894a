"""A new dataset is one spec file and one fixture folder, and nothing else: assets, checks, page, policy and search follow."""

from __future__ import annotations

import shutil
import sys
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest

from medvec_assets import catalog
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.definitions import build_defs
from medvec_assets.query import published
from medvec_assets.query.search import SearchEngine, SearchRequest
from medvec_assets.query.search import targets as search_module
from medvec_assets.runner import Selection, dagster_instance, run
from medvec_assets.runtime import Runtime
from medvec_assets.source_pages import pages
from resources import policy, tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.vector_index import open_index

pytestmark = pytest.mark.integration

SPEC = '''
"""A leukaemia study of our own."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Residency, Space

GEO_LEUKAEMIA = DatasetSpec(
    id="geo_leukaemia",
    source="geo",
    title="Leukaemia expression of one hospital",
    citation="none yet",
    description="One record per sample.",
    homepage="https://example.org/",
    access="Ask the hospital.",
    raw_terabytes=0.1,
    connector="geo_series",
    modality="expression",
    spaces={"expression": Space(encoder="golub_pca@1")},
    licenses=frozenset({"NCBI GEO public"}),
    access_tier=AccessTier.CONTROLLED,
    residency=Residency(where="holders", agreement="dua-hospital"),
    freshness=Freshness(max_age=timedelta(days=60), observe_cron="30 7 * * 1"),
    owners=("team:genomics",),
    index_attributes=("class",),
    sample="synthetic",
)
'''


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetSpec:
    """The dataset geo_leukaemia: the two things that somebody adds, in folders of their own."""
    specs, fixtures = tmp_path / "catalog", tmp_path / "samples"
    specs.mkdir()
    (specs / "geo_leukaemia.py").write_text(SPEC)
    study = "in/geo/series/GSE900000nnn/GSE900000001"
    kept = Path(__file__).parents[1] / "datasets" / "geo_expression"
    shutil.copytree(kept / study, fixtures / "geo_leukaemia" / study)
    samples = find_spec("medvec_samples")
    assert samples is not None and samples.submodule_search_locations is not None
    locations = [*samples.submodule_search_locations, str(fixtures)]
    monkeypatch.setattr(samples, "submodule_search_locations", locations)
    monkeypatch.setattr("medvec_assets.connectors.find_spec", lambda name: samples)
    monkeypatch.setattr(catalog, "__path__", [*catalog.__path__, str(specs)])
    monkeypatch.delitem(sys.modules, "medvec_assets.catalog.geo_leukaemia", raising=False)
    found = catalog.discover(catalog.__path__)
    for module in (catalog, published, search_module):
        monkeypatch.setattr(module, "CATALOG", found)
    return catalog.dataset("geo_leukaemia")


def test_one_spec_and_one_folder_are_a_dataset(added: DatasetSpec, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", device="cpu")
    graph = build_defs([added], Runtime(settings)).resolve_asset_graph()
    names = {key.path[-1] for key in graph.get_all_asset_keys()}
    listed = {"upstream", "manifest", "partitions", "records"}
    assert names == listed | {"expression_embeddings", "expression_vectors", "lineage_report"}
    checked = {key.name for key in graph.asset_check_keys}
    assert {"quarantine_share", "vectors_valid", "agreement_valid", "withdrawals_honoured", "deid_scored"} <= checked

    assert "only to holders of dua-hospital" in pages([added])["geo.md"]
    elsewhere = Settings(home=tmp_path, sources={added.id: "/data/real"})
    refused = policy.refusal(elsewhere, added.terms, date(2026, 1, 1))
    assert refused is not None and refused.rule == "agreement"

    runtime = Runtime(settings)
    report = run(settings, [added], Selection(), runtime, lambda *progress: None)
    assert report.failures == []
    assert report.datasets[added.id]["records"] == 38
    with dagster_instance(settings) as instance:
        key = dg.AssetKey([added.id, "expression_vectors"])
        assert instance.get_latest_materialization_event(key) is not None

    with open_index(settings) as index:
        lake = Lakehouse.open(settings)
        records = lake.snapshot(tables.records(added.id))
        assert records is not None
        record = records.read(["record_id"])["record_id"][0]
        engine = SearchEngine(settings, lake, index)
        hits = engine.search(SearchRequest(record_id=record, datasets=(added.id,), limit=3)).hits
    assert len(hits) == 3
    assert all(hit.dataset == added.id and hit.attributes["synthetic"] is True for hit in hits)
