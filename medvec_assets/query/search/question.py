"""What may be asked, and what is answered, as plain data.

Belongs here: the request with its bounds, its canonical form, hits and answers. Does not belong here: JSON bodies (api),
what a question means to the lake and the index (the other modules of this package).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resources.errors import QueryInvalid
from resources.vector_index.filters import Condition

MAX_LIMIT = 1_000
MAX_QUERIES = 64
MAX_HITS = 10_000  # of all queries of a request together: 10 MB of answer
MAX_TEXT_CHARS = 8_192
MAX_DIM = 16_384
KINDS = ("text", "record_id", "vector_id", "vector", "image")
GROUPS = ("subject", "study")
_CANONICAL: dict[str, Any] = {"sort_keys": True, "separators": (",", ":")}


@dataclass(frozen=True)
class Upload:
    """An image that was sent: `digest` of its bytes, and what the modality's path made of them."""

    digest: str
    model_input: NDArray[np.uint8] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Question:
    """Exactly one of its fields. Raises QueryInvalid otherwise."""

    text: str | None = field(default=None, repr=False)
    record_id: str | None = None
    vector_id: str | None = None
    vector: Sequence[float] | None = field(default=None, repr=False)
    image: Upload | None = None

    def __post_init__(self) -> None:
        asked = [name for name in KINDS if getattr(self, name) is not None]
        if len(asked) != 1:
            raise QueryInvalid(
                f"a search asks one question, and this one has {len(asked)} ({', '.join(asked) or 'none'})",
                remedy=f"give exactly one of {', '.join(KINDS[:-1])}, or send an image",
            )
        if self.text is not None and not 1 <= len(self.text.strip()) <= MAX_TEXT_CHARS:
            raise QueryInvalid(
                f"the text has {len(self.text.strip())} characters", remedy=f"give 1 to {MAX_TEXT_CHARS} of them"
            )

    @property
    def kind(self) -> str:
        return next(name for name in KINDS if getattr(self, name) is not None)

    @cached_property
    def canonical(self) -> dict[str, Any]:
        value = getattr(self, self.kind)
        if isinstance(value, Upload):
            value = value.digest
        elif self.vector is not None:  # as numbers, a raw vector would be the slowest part of a repeated question
            value = hashlib.sha256(np.asarray(self.vector, np.float64).tobytes()).hexdigest()
        return {self.kind: value.strip() if self.text is not None else value}


@dataclass(frozen=True)
class SearchRequest:
    """One question, or several in `queries`. Raises QueryInvalid where a bound is broken.

    `datasets`, `cohorts`, `modalities`, `licenses` and `attributes` narrow the answer (empty: all that are visible);
    `space` is needed only where the question would reach several. `cursor` goes on after an earlier page.
    """

    text: str | None = field(default=None, repr=False)
    record_id: str | None = None
    vector_id: str | None = None
    vector: Sequence[float] | None = field(default=None, repr=False)
    image: Upload | None = None
    queries: tuple[Question, ...] = ()
    datasets: tuple[str, ...] = ()
    space: str | None = None
    cohorts: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    attributes: tuple[Condition, ...] = ()
    limit: int = 10
    cursor: str | None = None
    group_by: str | None = None
    questions: tuple[Question, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        single = {name: value for name in KINDS if (value := getattr(self, name)) is not None}
        if self.queries and single:
            raise QueryInvalid("there are both one question and a list of them", remedy="give one of the two")
        if len(self.queries) > MAX_QUERIES:
            raise QueryInvalid(f"there are {len(self.queries)} queries", remedy=f"ask at most {MAX_QUERIES} at once")
        if len(self.queries) * self.limit > MAX_HITS:
            raise QueryInvalid(
                f"{len(self.queries)} queries of {self.limit} hits are more than {MAX_HITS}", remedy="ask for fewer"
            )
        if self.queries and self.cursor is not None:
            raise QueryInvalid("a cursor goes on with one question, not with a list", remedy="ask page by page alone")
        if not 1 <= self.limit <= MAX_LIMIT:
            raise QueryInvalid(f"limit is {self.limit}", remedy=f"ask for 1 to {MAX_LIMIT} hits")
        if self.group_by is not None and self.group_by not in GROUPS:
            raise QueryInvalid("hits cannot be grouped by that", remedy=f"group by {', '.join(GROUPS)}")
        object.__setattr__(self, "questions", self.queries or (Question(**single),))

    def canonical(self, *, paging: bool = True) -> str:
        """The request as one line of JSON, equal for equal requests; without `paging` also for all pages of an answer."""
        return self._paged if paging else json.dumps(self._told, **_CANONICAL)

    @cached_property
    def _paged(self) -> str:
        """Kept, for it is asked for as what is recorded and as what an answer is kept under."""
        return json.dumps(self._told | {"limit": self.limit, "cursor": self.cursor}, **_CANONICAL)

    @cached_property
    def _told(self) -> dict[str, Any]:
        return {
            "questions": [one.canonical for one in self.questions],
            "datasets": sorted(set(self.datasets)),
            "space": self.space,
            "cohorts": sorted(set(self.cohorts)),
            "modalities": sorted(set(self.modalities)),
            "licenses": sorted(set(self.licenses)),
            "attributes": sorted({one.expression for one in self.attributes}),
            "group_by": self.group_by,
        }


@dataclass(frozen=True)
class Hit:
    """One answer: the representative of `members` records with identical content in one partition, and its provenance.

    `score` is cosine similarity; `delta_version` is the embeddings table's version the index was reconciled with.
    `group` names the subject or study within this one answer (None: the record is of no study), `group_size` how many of
    its hits were looked at.
    `subject_key` is for the access log, `study` for the groups, and neither is ever shown: `shown` leaves them out.
    """

    score: float
    vector_id: str
    members: int
    dataset: str
    cohort: str
    record_id: str
    modality: str
    source_uri: str
    thumbnail: str | None
    license: str
    encoder: str
    weights_digest: str
    delta_version: int
    upstream_version: str
    deid_profile: str
    attributes: dict[str, Any]
    group: str | None = None
    group_size: int | None = None
    subject_key: str = field(default="", repr=False)
    study: str | None = field(default=None, repr=False)

    def shown(self) -> dict[str, Any]:
        told = vars(self)
        return {name: told[name] for name in HIT_FIELDS}


HIT_FIELDS = tuple(one.name for one in fields(Hit) if one.name not in ("subject_key", "study"))


@dataclass(frozen=True)
class Searched:
    """A collection that was asked, and how widely it looked."""

    dataset: str
    space: str
    collection: str
    generation: int
    delta_version: int
    index_type: str
    params: dict[str, int]


@dataclass(frozen=True)
class Explain:
    """How an answer came about. `timings_ms`: encode, index, lake, total. `coalesced`: questions in the widest index call."""

    timings_ms: dict[str, float]
    collections: tuple[Searched, ...]
    cached: bool
    coalesced: int


@dataclass(frozen=True)
class Answer:
    """`answers` has the hits of each question, best first; `cursor` asks for the next page of a single one."""

    answers: tuple[tuple[Hit, ...], ...]
    cursor: str | None
    explain: Explain

    @property
    def hits(self) -> tuple[Hit, ...]:
        """All hits, of one question best first."""
        return self.answers[0] if len(self.answers) == 1 else tuple(hit for hits in self.answers for hit in hits)

    @property
    def versions(self) -> dict[str, int]:
        return {f"{one.dataset}/{one.space}": one.delta_version for one in self.explain.collections}

    @property
    def subjects(self) -> set[str]:
        return {hit.subject_key for hit in self.hits}
