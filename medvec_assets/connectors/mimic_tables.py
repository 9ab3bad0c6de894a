"""Hospital stays of MIMIC-IV: one object for each admission, made of its rows of nine tables (ADR 0013).

Belongs here: which tables and columns make a stay, what a stay is called, what the release publishes of it.
Does not belong here: fetching (physionet), sorting (parts), what a row means or whether a stay is fit (modalities.ehr).

The modules hosp and icu are read. Their dates are shifted per subject already and stay as they are; chartevents and the
other bedside tables are left out, and so are rows without an admission (outpatient laboratory results).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qs, urlsplit

import polars as pl

from medvec_assets.connectors import LISTING, Listing, Rejection
from medvec_assets.connectors.csv_tables import CsvTable
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.parts import (
    SHARDS,
    Parts,
    ShardedTable,
    digest,
    listed,
    require_rows_kept,
    shard_table,
)
from medvec_assets.connectors.physionet import PhysioNetProject, Published, open_project
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.json_columns import json_objects
from resources.errors import ObjectRejected, SourceError
from resources.settings import Settings

VERSION = "mimic-rows-2"  # of a stay's bytes: the columns below and how they are written
COHORT = "hosp"
MEDIA_TYPE = "application/x-ndjson"
ADMISSIONS, PATIENTS = "admissions", "patients"


@dataclass(frozen=True)
class _Layout:
    """One table: its path in a release, its columns as documented for release 3.1, and those that are kept of it."""

    path: str
    documented: str
    kept: str
    titles: str | None = None  # the dictionary that its ICD codes stand in


_ICD = "icd_code icd_version long_title"
TABLES: dict[str, _Layout] = {
    ADMISSIONS: _Layout(
        "hosp/admissions.csv.gz",
        "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id admission_location "
        "discharge_location insurance language marital_status race edregtime edouttime hospital_expire_flag",
        "subject_id hadm_id admittime dischtime deathtime admission_type",
    ),
    PATIENTS: _Layout(
        "hosp/patients.csv.gz",
        "subject_id gender anchor_age anchor_year anchor_year_group dod",
        "subject_id gender anchor_age anchor_year",
    ),
    "diagnoses_icd": _Layout(
        "hosp/diagnoses_icd.csv.gz",
        "subject_id hadm_id seq_num icd_code icd_version",
        "subject_id hadm_id seq_num icd_code icd_version",
        titles="hosp/d_icd_diagnoses.csv.gz",
    ),
    "procedures_icd": _Layout(
        "hosp/procedures_icd.csv.gz",
        "subject_id hadm_id seq_num chartdate icd_code icd_version",
        "subject_id hadm_id seq_num chartdate icd_code icd_version",
        titles="hosp/d_icd_procedures.csv.gz",
    ),
    "prescriptions": _Layout(
        "hosp/prescriptions.csv.gz",
        "subject_id hadm_id pharmacy_id poe_id poe_seq order_provider_id starttime stoptime drug_type drug "
        "formulary_drug_cd gsn ndc prod_strength form_rx dose_val_rx dose_unit_rx form_val_disp form_unit_disp "
        "doses_per_24_hrs route",
        "subject_id hadm_id starttime drug route",
    ),
    "labevents": _Layout(
        "hosp/labevents.csv.gz",
        "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value valuenum valueuom "
        "ref_range_lower ref_range_upper flag priority comments",
        "subject_id hadm_id itemid charttime valuenum valueuom ref_range_lower ref_range_upper",
    ),
    "transfers": _Layout(
        "hosp/transfers.csv.gz",
        "subject_id hadm_id transfer_id eventtype careunit intime outtime",
        "subject_id hadm_id eventtype careunit intime",
    ),
    "icustays": _Layout(
        "icu/icustays.csv.gz",
        "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
        "subject_id hadm_id first_careunit intime",
    ),
}


def open_connector(settings: Settings, dataset_id: str) -> MimicTables:
    """MEDVEC_SOURCES' release for this dataset (see physionet), or the sample bundle."""
    return MimicTables(
        open_project(settings, dataset_id),
        Landing(settings, dataset_id),
        Pseudonyms(settings.pseudonym_secret, dataset_id),
    )


class MimicTables:
    """Connector of dataset mimic_stays (medvec_assets.connectors.Connector)."""

    is_remote = False  # what crosses the web are tables, which are landed here; a stay is read from them

    def __init__(self, project: PhysioNetProject, landing: Landing, pseudonyms: Pseudonyms) -> None:
        self._project, self._landing, self._pseudonyms = project, landing, pseudonyms

    def version(self) -> str:
        """`mimiciv <release> sha256sums:<digest>`: one small request."""
        return f"{self._project.name} {self._project.published().version}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Every admission, a group of parts at a time; then what of the tables has no place in any stay.

        Nothing of `previous` is needed: tables of known checksums are landed and not read again. Raises SourceError,
        before the last listing, if a table is not the published one, lacks a column, if its columns have moved, or the
        release changed meanwhile.
        """
        published = self._project.published()
        license = self._project.license(published)
        tables = self._tables(published)
        left_out = tuple(_left_out(tables))
        release = f"{self._project.name} {published.release}"
        for index in self._parts(published, tables).indexes():
            yield Listing(self._listed(index, license, release))
        self._project.confirm(published)
        yield Listing(pl.DataFrame(schema=LISTING), left_out)

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """A stay's rows as JSON, one a line. ObjectRejected `object_missing` if this release has no such stay."""
        fields = parse_qs(urlsplit(uri).fragment)
        try:
            subject, stay = int(fields["subject_id"][0]), int(fields["hadm_id"][0])
        except (KeyError, ValueError):
            remedy = "refresh the manifest: it names objects of another source"
            raise ObjectRejected("the object is no stay of MIMIC-IV", code="object_missing", remedy=remedy) from None
        return self._current_parts.read(stay, subject, max_bytes)

    @cached_property
    def _current_parts(self) -> Parts:
        published = self._project.published()
        return self._parts(published, self._tables(published))

    def _tables(self, published: Published) -> dict[str, ShardedTable]:
        return {name: self._table(published, name, layout) for name, layout in TABLES.items()}

    def _table(self, published: Published, name: str, layout: _Layout) -> ShardedTable:
        kept = tuple(layout.kept.split())

        def frames() -> Iterator[pl.DataFrame]:
            path = self._project.fetch(published, layout.path)
            return CsvTable(name, path, tuple(layout.documented.split()), kept).frames()

        landed = f"table-{published.sha256(layout.path)}-{digest(*kept)}"
        return shard_table(self._landing, landed, "subject_id", frames)

    def _parts(self, published: Published, tables: Mapping[str, ShardedTable]) -> Parts:
        paths = [path for layout in TABLES.values() for path in (layout.path, layout.titles) if path]
        name = f"stays-{digest(VERSION, *(published.sha256(path) for path in paths))}"
        titles: dict[str, pl.DataFrame] = {}

        def lines(shards: range) -> pl.DataFrame:
            if not titles:
                titles.update(self._titles(published))
            return _lines({name: table.of(shards) for name, table in tables.items()}, titles)

        return Parts(self._landing, name, tables.values(), lines)

    def _titles(self, published: Published) -> dict[str, pl.DataFrame]:
        """Per table the dictionary of its ICD codes: icd_code, icd_version, long_title, each code once."""
        found = {}
        columns = tuple(_ICD.split())
        for name, layout in TABLES.items():
            if layout.titles:
                table = CsvTable(layout.titles, self._project.fetch(published, layout.titles), columns, columns)
                frame = pl.concat(list(table.frames())).drop_nulls()
                found[name] = frame.sort(columns).unique(columns[:2], keep="first")
        return found

    def _listed(self, index: pl.DataFrame, license: str, release: str) -> pl.DataFrame:
        subjects, stays = index["subject"].to_list(), index["part"].to_list()
        ids = [self._pseudonyms.of("stay", str(stay)) for stay in stays]
        uris = [
            f"physionet:{self._project.name}#subject_id={a}&hadm_id={b}" for a, b in zip(subjects, stays, strict=True)
        ]
        return listed(
            index, ids, uris, cohort=COHORT, license=license, tier="registered", media_type=MEDIA_TYPE, release=release
        )


def _left_out(tables: Mapping[str, ShardedTable]) -> Iterator[Rejection]:
    """What has no place in any stay, a line for each table. Some rows of an admission that is not listed are left out unsaid:
    a release may hold fewer admissions than a table names. SourceError where that is most of a table."""
    for name, table in tables.items():
        require_rows_kept(name, table.rows, table.left_out)
        if table.left_out:
            remedy = (
                f"{table.left_out} rows of it have no whole number as subject_id, or another number of fields than its "
                "header; they are in no stay: ask the source to correct them"
            )
            yield Rejection(f"table-{name}", "rows_without_subject", remedy)
    admissions = tables[ADMISSIONS].of(range(SHARDS))
    unnamed = admissions.height - _with_part(admissions).height
    if unnamed == admissions.height:
        remedy = "fetch the table of admissions again; nothing was committed"
        raise SourceError("the release has no admission with a number", code="source_empty", remedy=remedy)
    require_rows_kept(ADMISSIONS, admissions.height - unnamed, unnamed)
    if unnamed:
        remedy = f"{unnamed} admissions have no whole number as hadm_id: ask the source to correct them"
        yield Rejection(f"table-{ADMISSIONS}", "stay_without_id", remedy)


def _lines(tables: Mapping[str, pl.DataFrame], titles: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The rows of these tables that belong to an admission listed there, as parts' lines."""
    stays = _with_part(tables[ADMISSIONS]).select("part", "subject").unique()
    found = []
    for name, table in tables.items():
        if name in titles:
            table = table.join(titles[name], on=["icd_code", "icd_version"], how="left")
        if name == PATIENTS:
            subject = pl.col("subject_id").cast(pl.Int64, strict=False)
            rows = table.with_columns(subject=subject).join(stays, on="subject")
        else:
            rows = _with_part(table).join(stays, on=["part", "subject"], how="semi")
            require_rows_kept(name, rows.height, table["hadm_id"].count() - rows.height)
        fields = {column: pl.col(column) for column in table.columns if column not in ("subject_id", "hadm_id")}
        found.append(rows.select("part", "subject", line=json_objects(table=pl.lit(name), **fields)))
    return pl.concat(found)


def _with_part(table: pl.DataFrame) -> pl.DataFrame:
    """`part` and `subject` as Int64, without the rows that are of no admission."""
    numbers = {"part": "hadm_id", "subject": "subject_id"}
    return table.with_columns(
        pl.col(column).cast(pl.Int64, strict=False).alias(name) for name, column in numbers.items()
    ).drop_nulls("part")
