"""Persons of an OMOP CDM release: one object for each, made of its rows of five tables and the concepts' codes (ADR 0013).

Belongs here: which tables and columns make a person, what a person is called, which release it is. Does not belong here:
reading tables (omop_tables), sorting (parts), what a row means or whether a person is fit (modalities.ehr).

A release is a cohort: All of Us publishes a new one whole, and who withdrew is not in it (CDR = curated data repository).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import polars as pl

from medvec_assets.connectors import LISTING, Listing, Rejection, sample_folder
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.omop_tables import Layout, Tables, open_tables
from medvec_assets.connectors.parts import (
    SHARDS,
    Parts,
    ShardedTable,
    digest,
    listed,
    require_rows_kept,
    shard_table,
)
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.json_columns import json_objects
from resources.errors import ObjectRejected, SourceError
from resources.settings import Settings

VERSION = "omop-rows-1"  # of a person's bytes: the columns below, the concepts joined, how they are written
MEDIA_TYPE = "application/x-ndjson"
LICENSE = "All of Us Data User Code of Conduct"
PERSON = "person"
_CDR = re.compile(r"[A-Za-z0-9_-]{1,60}")
_SHARDS_AT_ONCE = 16  # when the concepts in use are looked for


def _layout(documented: str, kept: str, optional: str = "") -> Layout:
    return Layout(tuple(documented.split()), tuple(kept.split()), tuple(optional.split()))


# CDM 5.3.1, and what All of Us adds to it
TABLES: dict[str, Layout] = {
    PERSON: _layout(
        "person_id gender_concept_id year_of_birth month_of_birth day_of_birth birth_datetime race_concept_id "
        "ethnicity_concept_id location_id provider_id care_site_id person_source_value gender_source_value "
        "gender_source_concept_id race_source_value race_source_concept_id ethnicity_source_value "
        "ethnicity_source_concept_id state_of_residence_concept_id state_of_residence_source_value "
        "sex_at_birth_concept_id sex_at_birth_source_concept_id sex_at_birth_source_value",
        "person_id gender_concept_id year_of_birth sex_at_birth_concept_id",
        optional="sex_at_birth_concept_id",
    ),
    "visit_occurrence": _layout(
        "visit_occurrence_id person_id visit_concept_id visit_start_date visit_start_datetime visit_end_date "
        "visit_end_datetime visit_type_concept_id provider_id care_site_id visit_source_value visit_source_concept_id "
        "admitting_source_concept_id admitting_source_value discharge_to_concept_id discharge_to_source_value "
        "preceding_visit_occurrence_id",
        "person_id visit_concept_id visit_start_date",
    ),
    "condition_occurrence": _layout(
        "condition_occurrence_id person_id condition_concept_id condition_start_date condition_start_datetime "
        "condition_end_date condition_end_datetime condition_type_concept_id condition_status_concept_id stop_reason "
        "provider_id visit_occurrence_id visit_detail_id condition_source_value condition_source_concept_id "
        "condition_status_source_value",
        "person_id condition_concept_id condition_start_date",
    ),
    "drug_exposure": _layout(
        "drug_exposure_id person_id drug_concept_id drug_exposure_start_date drug_exposure_start_datetime "
        "drug_exposure_end_date drug_exposure_end_datetime verbatim_end_date drug_type_concept_id stop_reason refills "
        "quantity days_supply sig route_concept_id lot_number provider_id visit_occurrence_id visit_detail_id "
        "drug_source_value drug_source_concept_id route_source_value dose_unit_source_value",
        "person_id drug_concept_id drug_exposure_start_date",
    ),
    "measurement": _layout(
        "measurement_id person_id measurement_concept_id measurement_date measurement_datetime measurement_time "
        "measurement_type_concept_id operator_concept_id value_as_number value_as_concept_id unit_concept_id range_low "
        "range_high provider_id visit_occurrence_id visit_detail_id measurement_source_value "
        "measurement_source_concept_id unit_source_value value_source_value",
        "person_id measurement_concept_id measurement_date value_as_number unit_concept_id range_low range_high",
    ),
}
CONCEPT = _layout(
    "concept_id concept_name domain_id vocabulary_id concept_class_id standard_concept concept_code valid_start_date "
    "valid_end_date invalid_reason",
    "concept_id vocabulary_id concept_code concept_name",
)
CDM_SOURCE = _layout(
    "cdm_source_name cdm_source_abbreviation cdm_holder source_description source_documentation_reference "
    "cdm_etl_reference source_release_date cdm_release_date cdm_version vocabulary_version",
    "cdm_release_date cdm_version vocabulary_version",
)
# table -> the concepts of its rows: column of the id -> what its code, vocabulary and name are called in a line
CONCEPTS: dict[str, dict[str, str]] = {
    PERSON: {"gender_concept_id": "gender", "sex_at_birth_concept_id": "sex"},
    "visit_occurrence": {"visit_concept_id": "visit"},
    "condition_occurrence": {"condition_concept_id": "condition"},
    "drug_exposure": {"drug_concept_id": "drug_concept"},
    "measurement": {"measurement_concept_id": "measured", "unit_concept_id": "unit"},
}


def open_connector(settings: Settings, dataset_id: str) -> Omop:
    """The tables of MEDVEC_SOURCES' entry for this dataset (see omop_tables), or the sample bundle."""
    source = settings.sources.get(dataset_id) or str(Path(sample_folder(dataset_id)))
    pseudonyms = Pseudonyms(settings.pseudonym_secret, dataset_id)
    return Omop(open_tables(source), Landing(settings, dataset_id), pseudonyms)


class Omop:
    """Connector of dataset aou_persons (medvec_assets.connectors.Connector)."""

    is_remote = False  # what crosses a wire are tables, which are landed here; a person is read from them

    def __init__(self, tables: Tables, landing: Landing, pseudonyms: Pseudonyms) -> None:
        self._source, self._landing, self._pseudonyms = tables, landing, pseudonyms

    def version(self) -> str:
        """`<CDR> (<release date>, vocabulary <version>) <digest of the tables' etags>`; reads cdm_source alone."""
        facts = self._release
        etags = digest(*self._etags().values())
        return f"{facts['name']} ({facts['cdm_release_date']}, {facts['vocabulary_version']}) {etags}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Every person, a group of parts at a time; then the rows without one.

        Nothing of `previous` is needed: tables of known etags are landed and not read again. Raises SourceError if a
        table lacks a column, if most of its rows are of nobody, or if one of them changed while it was read.
        """
        etags = self._etags()
        tables = self._tables(etags)
        left_out = tuple(_left_out(tables))
        for index in self._parts(etags, tables).indexes():
            yield Listing(self._listed(index))
        if self._etags() != etags:
            remedy = "run again: tables that did not change are not read again"
            raise SourceError("tables were changed while they were read", code="release_changed", remedy=remedy)
        yield Listing(pl.DataFrame(schema=LISTING), left_out)

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """A person's rows as JSON, one a line. ObjectRejected `object_missing` if this release has no such person."""
        found = parse_qs(urlsplit(uri).fragment).get("person_id", [""])[0]
        if not re.fullmatch(r"-?\d+", found):
            remedy = "refresh the manifest: it names objects of another source"
            raise ObjectRejected("the object is no person of a CDM", code="object_missing", remedy=remedy)
        return self._current_parts.read(int(found), int(found), max_bytes)

    @cached_property
    def _current_parts(self) -> Parts:
        etags = self._etags()
        return self._parts(etags, self._tables(etags))

    @cached_property
    def _release(self) -> dict[str, str]:
        rows = pl.concat(list(self._source.frames("cdm_source", CDM_SOURCE))).to_dicts()
        if len(rows) != 1 or not _CDR.fullmatch(self._source.name):
            raise SourceError(
                "cdm_source does not describe one release, or its folder is not named as a release is",
                code="schema_drift",
                remedy="one row in cdm_source, and a name such as C2022Q4R13",
            )
        return {name: str(value) for name, value in rows[0].items()} | {"name": self._source.name}

    def _etags(self) -> dict[str, str]:
        return {name: self._source.etag(name) for name in (*TABLES, "concept", "cdm_source")}

    def _tables(self, etags: Mapping[str, str]) -> dict[str, ShardedTable]:
        def sharded(name: str, layout: Layout) -> ShardedTable:
            landed = f"table-{digest(etags[name], *layout.kept)}"
            return shard_table(self._landing, landed, "person_id", lambda: self._source.frames(name, layout))

        return {name: sharded(name, layout) for name, layout in TABLES.items()}

    def _parts(self, etags: Mapping[str, str], tables: Mapping[str, ShardedTable]) -> Parts:
        name = f"persons-{digest(VERSION, *etags.values())}"

        def write_concepts(path: Path) -> None:
            path.mkdir()
            self._concepts_in_use(tables).write_parquet(path / "concept.parquet")

        def lines(shards: range) -> pl.DataFrame:
            folder = self._landing.made(f"{name}-concepts", write_concepts)
            concepts = pl.read_parquet(folder / "concept.parquet")
            return _lines({name: table.of(shards) for name, table in tables.items()}, concepts)

        return Parts(self._landing, name, tables.values(), lines)

    def _concepts_in_use(self, tables: Mapping[str, ShardedTable]) -> pl.DataFrame:
        """CONCEPT's columns of the concepts that a row names: of six million some fifty thousand."""
        used: set[str] = set()
        for first in range(0, SHARDS, _SHARDS_AT_ONCE):
            for name, columns in CONCEPTS.items():
                rows = tables[name].of(range(first, first + _SHARDS_AT_ONCE))
                used.update(value for column in columns for value in rows[column].drop_nulls().unique())
        wanted = pl.DataFrame({"concept_id": sorted(used)}, schema={"concept_id": pl.String()})
        frames = self._source.frames("concept", CONCEPT)
        return pl.concat([frame.join(wanted, on="concept_id", how="semi") for frame in frames]).unique("concept_id")

    def _listed(self, index: pl.DataFrame) -> pl.DataFrame:
        persons = index["part"].to_list()
        ids = [self._pseudonyms.of("person", str(person)) for person in persons]
        release = self._release["name"]
        uris = [f"omop:person#person_id={person}" for person in persons]
        return listed(
            index, ids, uris, cohort=release, license=LICENSE, tier="controlled", media_type=MEDIA_TYPE, release=release
        )


def _left_out(tables: Mapping[str, ShardedTable]) -> Iterator[Rejection]:
    if not tables[PERSON].rows:
        remedy = "export the table of persons again; nothing was committed"
        raise SourceError("the release has no person with a number", code="source_empty", remedy=remedy)
    for name, table in tables.items():
        require_rows_kept(name, table.rows, table.left_out)
        if table.left_out:
            remedy = "rows of it have no person_id and are of no person: ask the source to correct them"
            yield Rejection(f"table-{name}", "rows_without_subject", remedy)


def _lines(tables: Mapping[str, pl.DataFrame], concepts: pl.DataFrame) -> pl.DataFrame:
    """The rows of these tables that are of a person listed there, with their concepts' codes, as parts' lines."""
    number = pl.col("person_id").cast(pl.Int64)
    persons = tables[PERSON].select(part=number).unique()
    found = []
    for name, table in tables.items():
        rows = table.with_columns(part=number).join(persons, on="part", how="semi")
        require_rows_kept(name, rows.height, table.height - rows.height)
        fields = {column: pl.col(column) for column in table.columns if not column.endswith("_id")}
        for column, called in CONCEPTS[name].items():
            named = concepts.select(
                pl.col("concept_id").alias(column),
                pl.col("vocabulary_id").alias(f"{called}_vocabulary"),
                pl.col("concept_code").alias(f"{called}_code"),
                pl.col("concept_name").alias(f"{called}_name"),
            )
            rows = rows.join(named, on=column, how="left")
            fields |= {one: pl.col(one) for one in named.columns[1:]}
        found.append(rows.select("part", subject="part", line=json_objects(table=pl.lit(name), **fields)))
    return pl.concat(found)
