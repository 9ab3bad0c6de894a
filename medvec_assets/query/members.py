"""The members of a hit: all records whose content is the one that an index entity stands for.

Belongs here: listing them. Does not belong here: finding hits (search), where one of them came from (lineage).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from operator import and_

import pyarrow.compute as pc

from medvec_assets.query.facts import Moment
from medvec_assets.query.held import HeldRecords
from medvec_assets.query.lineage import VECTOR_ID
from medvec_assets.query.published import Grants, LiveSpace
from medvec_assets.query.rows import find_embeddings, read_of
from resources import tables
from resources.errors import NotFound, QueryInvalid

_CONTENT = ("space_version", "partition", "license", "access_tier", "content_digest", "part_kind", "part_index")


@dataclass(frozen=True)
class Member:
    """`subject_key` is for the access log and never shown."""

    vector_id: str
    record_id: str
    cohort: str
    license: str
    source_uri: str
    subject_key: str = field(repr=False)


@dataclass(frozen=True)
class Members:
    """`members`: how many may be shown; `after`: what those that follow are asked for with, None if there are none."""

    vector_id: str
    members: int
    records: tuple[Member, ...]
    after: str | None
    versions: dict[str, int]


def members(
    vector_id: str, moment: Moment, held: HeldRecords, grants: Grants, limit: int, after: str | None = None
) -> Members:
    """At most `limit` members of the live vector's content, in the order of their record ids, from beyond `after`.

    Raises QueryInvalid if the id is not 32 hex digits, NotFound if nothing visible, granted and live has it.
    """
    if not VECTOR_ID.fullmatch(vector_id):
        raise QueryInvalid(
            "that is not a vector id: it must be 32 lower-case hex digits",
            remedy="copy the vector_id of a search hit",
        )
    for live in moment.live(grants):
        found = _members(live, vector_id, moment, held)
        if any(one.vector_id == vector_id for one in found):
            following = [one for one in found if after is None or one.record_id > after]
            page = tuple(following[:limit])
            goes_on = page[-1].record_id if len(following) > limit else None
            version = moment.reconciled(live.collection).delta_version
            return Members(vector_id, len(found), page, goes_on, {f"{live.dataset}/{live.space}": version})
    raise NotFound(
        "no live vector has that id",
        remedy="check the id; that of a withdrawn or suppressed record is not found either",
    )


def _members(live: LiveSpace, vector_id: str, moment: Moment, held: HeldRecords) -> list[Member]:
    table = tables.embeddings(live.dataset, live.space)
    rows = find_embeddings(moment.facts.lake, live.dataset, live.space, "vector_id", vector_id).to_dicts()
    here = [row for row in rows if (row["space_version"], row["access_tier"]) == (live.space_version, live.access_tier)]
    if not here:
        return []
    content = reduce(and_, (pc.field(name) == here[0][name] for name in _CONTENT))
    columns = ["vector_id", "record_id", "cohort", "license", "partition"]
    same = read_of(moment.snapshot(table), table, columns, content).sort("record_id")
    shown = held.find(moment, live.spec, dict(same.select("record_id", "partition").rows()))
    return [
        Member(found, record_id, cohort, license_, shown[record_id].source_uri, shown[record_id].subject_key)
        for found, record_id, cohort, license_, _ in same.iter_rows()
        if record_id in shown
    ]
