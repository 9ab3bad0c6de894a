"""EHR tables: a stay's or a person's rows to events, to one record, to the model inputs of its spaces.

Belongs here: the `ehr` modality; its parts are rows (text to values), mimic and omop (what the columns mean, and the rule of
each), vocabulary (what may stand in some of them), bag (codes to features). Does not belong here: where the rows are
(connectors), what a rule does (deid.tables), free text such as notes.

    codes   float32 [2048]   how often each code occurs, hashed (bag)
    text    str              a vocabulary's own descriptions of diagnoses, procedures, drugs; no date, no name, no free text

Nothing of a record tells a date or an id: it keeps a pseudonym, counts, bands, and these descriptions. A row is parsed once:
the features of its stay are the record's payload, and encoding needs nothing of the source.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import array_digest, text_digest
from medvec_assets.json_columns import json_objects
from medvec_assets.modalities import RECORD_FRAME, ReadObject, Rejected
from medvec_assets.modalities.ehr import mimic, omop
from medvec_assets.modalities.ehr.bag import INPUT_VERSION, code_counts, features_of, packed, unpacked
from medvec_assets.modalities.ehr.rows import OLDEST_SHOWN, age_band, events_of, rows_of
from resources.errors import ObjectRejected

PIECE = 512  # parts at a time: 150,000 rows of a hospital's stays, some 200 MB
PERSON = b'"table":"person"'  # a line that every part of an OMOP CDM has
REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
_REMEDIES = {
    "wrong_encoding": "a field of these rows is no UTF-8; ask the source to write the table again",
    "no_patient": "the table of patients has no row of this subject; ask the source to complete it",
    "duplicate_subject": "the table of patients has two rows of this subject; ask the source which one is meant",
    "duplicate_stay": "the table of admissions has two rows of this stay; ask the source which one is meant",
    "impossible_date": "a date is none, lies outside the years of the source's dates, or a stay ends before it begins; "
    "ask the source to correct it",
    "impossible_age": "the age is missing, below 0 or above 130; ask the source to correct it",
    "bad_number": "a result in a column of numbers is none: the columns may be shifted; ask the source to correct it",
    "missing_field": "a field that every stay has is empty or no term known here (vocabulary); ask the source, or add the term",
    "no_events": "these rows hold no code; nothing can be made of them",
}


class Ehr:
    """The modality `ehr` (medvec_assets.modalities.Modality)."""

    version = "ehr-2"
    deid_profile = "ehr-tables-2"
    input_versions: dict[str, str] = {"codes": INPUT_VERSION, "text": "titles-1"}  # noqa: RUF012  (the protocol's attribute)
    piece_objects = 0

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """One record for each object, or the reason why there is none: the keys of _REMEDIES, or why it was not read."""
        frames = [pl.DataFrame(schema=RECORD_FRAME)]
        rejected: list[Rejected] = []
        for piece in objects.iter_slices(PIECE):
            found, refused = _read_all(piece["object_id"], piece["uri"], read)
            rejected += refused
            kept = piece.filter(pl.Series([data is not None for data in found], dtype=pl.Boolean))
            told, steps = _understood([data for data in found if data is not None])
            described = kept.with_columns(told)
            unfit = described.filter(pl.col("flaw").is_not_null())
            rejected += [
                Rejected(name, code, _REMEDIES[code]) for name, code in unfit.select("object_id", "flaw").rows()
            ]
            fit = described["flaw"].is_null()
            frames.append(self._frame(described.filter(fit), steps[fit.to_numpy()], pseudonyms))
        return pl.concat(frames), rejected

    def _frame(self, described: pl.DataFrame, steps: NDArray[np.int64], pseudonyms: Pseudonyms) -> pl.DataFrame:
        subjects = [pseudonyms.subject(reference) for reference in described["subject_ref"]]
        digests = [_digests(row, text) for row, text in zip(features_of(steps), described["text"], strict=True)]
        collapsed = (pl.col("age") > OLDEST_SHOWN).cast(pl.Int64)
        return described.select(
            record_id="object_id",
            subject_key=pl.Series(subjects, dtype=pl.String()),
            object_ids=pl.concat_list("object_id"),
            cohort="cohort",
            modality=pl.lit("EHR"),
            license="license",
            access_tier="access_tier",
            text="text",
            attributes=json_objects(
                admission_type=pl.col("kind"),
                age_band=age_band(pl.col("age")),
                events=pl.col("events"),
                los_days=pl.col("span"),
                sex=pl.col("sex"),
            ),
            payload_uri=pl.format("object:{}", "object_id"),
            deid_profile=pl.lit(self.deid_profile),
            deid_actions=json_objects(
                ages_collapsed=collapsed, dates_left_out=pl.col("dates"), values_refused=pl.col("refused")
            ),
            content_digests=pl.Series(digests, dtype=pl.String()),
            payload=pl.Series(packed(steps), dtype=pl.Binary()),
        )

    def model_inputs(
        self, records: pl.DataFrame, space: str, read: ReadObject
    ) -> Sequence[NDArray[np.float32] | str | Rejected]:
        """The records' texts, or the features that are their payload; Rejected `payload_missing` where an older version of
        medvec made the record. `read` is not used."""
        if space == "text":
            texts: list[str] = records["text"].to_list()
            return texts
        features = iter(unpacked(records["payload"].drop_nulls().to_list()))
        return [
            Rejected(name, "payload_missing", "materialize the records of this partition again")
            if payload is None
            else next(features)
            for name, payload in records.select("record_id", "payload").iter_rows()
        ]


def _read_all(names: pl.Series, uris: pl.Series, read: ReadObject) -> tuple[list[bytes | None], list[Rejected]]:
    """Each object's bytes; None, and in the same order the reason, where there are none to be used."""
    found: list[bytes | None] = []
    refused = []
    for name, uri in zip(names, uris, strict=True):
        try:
            data = read(uri)
            if not data.isascii() and REPLACEMENT in data:
                raise ObjectRejected("not UTF-8", code="wrong_encoding", remedy=_REMEDIES["wrong_encoding"])
            found.append(data)
        except ObjectRejected as refusal:
            found.append(None)
            refused.append(Rejected(name, refusal.code, refusal.remedy, refusal.disposition))
    return found, refused


def _layout(parts: Sequence[bytes]) -> Any:
    """The module that knows the parts' columns; a dataset's parts are of one layout."""
    return omop if parts and PERSON in parts[0] else mimic


def _understood(parts: Sequence[bytes]) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """What may be said of each part (flaw, sex, age, kind, span, text, events, dates, refused) and its code_counts, in order."""
    layout = _layout(parts)
    tables, refusals = rows_of(parts, layout.RULES)
    events = events_of(tables, layout.kinds())
    told = layout.facts(tables, len(parts))
    for counted in (
        events.group_by("part").agg(events=pl.len(), dates=pl.col("time").count()),
        refusals.group_by("part").agg(refused=pl.len(), wrong=pl.col("flaw").drop_nulls().min()),
    ):
        told = told.join(counted, on="part", how="left", maintain_order="left")
    no_events = pl.when(pl.col("events").is_null()).then(pl.lit("no_events"))
    return told.with_columns(flaw=pl.coalesce("wrong", "flaw", no_events)), code_counts(events, len(parts))


def _digests(features: NDArray[np.float32], text: str | None) -> str:
    digests = {"codes": array_digest(features)} | ({"text": text_digest(text)} if text else {})
    return json.dumps(digests, sort_keys=True, separators=(",", ":"))


MODALITY = Ehr()
