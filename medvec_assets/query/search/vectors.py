"""From questions to unit vectors of one space: texts and images are encoded, ids looked up in gold, vectors checked.

Belongs here: what a question means. Does not belong here: from a file's bytes to a model input (uploads), the search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvec_assets.query.facts import Moment
from medvec_assets.query.held import HeldRecords
from medvec_assets.query.published import LiveSpace
from medvec_assets.query.rows import entity_of, find_embeddings, read_vector
from medvec_assets.query.search.coalescing import Coalescer
from medvec_assets.query.search.question import Question, SearchRequest
from medvec_assets.query.search.targets import one_space
from resources import encoders
from resources.errors import NotFound, QueryInvalid
from resources.tracing import span

# As many texts as the encoder computes in little more than the time of one.
ENCODED_TOGETHER = 16
_ENCODED = {"text": "text", "image": "image"}  # kind of question -> what an encoder must take


@dataclass(frozen=True)
class Query:
    """A unit vector [dim] and its space; `source_*` say which stored content asked, so that it is not its own hit."""

    vector: NDArray[np.float32]
    comparable: tuple[str, str]
    weights_digest: str | None = None  # of the weights that made it; None for a caller's own vector
    source_entity: str | None = None
    source_record: str | None = None


class Vectors:
    """Turns questions into vectors. Safe between threads; encoders are loaded once, and encode one call at a time:
    torch already uses all cores, so what comes meanwhile is encoded together."""

    def __init__(self, records: HeldRecords, dimension: Callable[[LiveSpace, Moment], int]) -> None:
        self._records = records
        self._dimension = dimension
        self._encoding = Coalescer(ENCODED_TOGETHER)

    def of(self, request: SearchRequest, candidates: list[LiveSpace], moment: Moment) -> list[Query]:
        """One for each question, all of one space. Raises QueryInvalid, NotFound."""
        queries: list[Query | None] = [None] * len(request.questions)
        for kind in _ENCODED:
            places = [place for place, one in enumerate(request.questions) if one.kind == kind]
            if places:
                encoded = self._encoded(
                    kind, [request.questions[place] for place in places], request, candidates, moment
                )
                for place, query in zip(places, encoded, strict=True):
                    queries[place] = query
        found = [
            query or self._stored(one, candidates, moment)
            for query, one in zip(queries, request.questions, strict=True)
        ]
        if len({query.comparable for query in found}) > 1:
            raise QueryInvalid(
                "the questions are of several spaces", remedy="ask those of one space at once, or name the space"
            )
        return found

    def _encoded(
        self, kind: str, asked: list[Question], request: SearchRequest, candidates: list[LiveSpace], moment: Moment
    ) -> list[Query]:
        settings = moment.facts.settings
        takers = [one for one in candidates if encoders.card(one.space_version, settings).input_kind == _ENCODED[kind]]
        deaf = sorted(set(request.datasets) - {live.dataset for live in takers})
        if deaf or not takers:
            raise QueryInvalid(
                f"{', '.join(deaf) or 'the chosen space'} cannot be searched by {kind}: no live space takes it",
                remedy="search it by record_id, vector_id or vector",
            )
        chosen = one_space(takers)
        inputs = [one.text.strip() if one.text is not None else one.image.model_input for one in asked]  # type: ignore[union-attr]
        encoder = encoders.load(chosen.space_version, settings)
        key = (chosen.space_version, kind)
        vectors, _ = self._encoding.ask(key, inputs, lambda batch: _encoded(encoder, batch))
        return [Query(vector, chosen.comparable, encoder.card.weights_digest) for vector in vectors]

    def _stored(self, question: Question, candidates: list[LiveSpace], moment: Moment) -> Query:
        if question.vector is not None:
            return self._given(question.vector, candidates, moment)
        column = question.kind
        value = getattr(question, column)
        places = self._places(column, value, candidates, moment)
        if not places:
            raise NotFound(
                f"no live vector has the {column} that was asked for",
                remedy="check the id and the datasets; a withdrawn or suppressed record is not found either",
            )
        chosen = one_space([live for live, _ in places])
        if len({live.dataset for live, _ in places}) > 1:
            raise QueryInvalid(
                f"that {column} is in several datasets: {', '.join(sorted({live.dataset for live, _ in places}))}",
                remedy="ask by vector_id, which is of one dataset",
            )
        row = places[0][1]
        vector = read_vector(moment.facts.lake, chosen.dataset, chosen.space, row)
        if vector is None:
            raise NotFound(f"the vector of that {column} was replaced just now", remedy="ask again")
        return Query(unit(vector), chosen.comparable, row["weights_digest"], entity_of(row), row["record_id"])

    def _given(self, values: Sequence[float], candidates: list[LiveSpace], moment: Moment) -> Query:
        chosen = one_space(candidates)
        dim = self._dimension(chosen, moment)
        if len(values) != dim:
            raise QueryInvalid(
                f"the vector has {len(values)} dimensions and space {chosen.space} ({chosen.space_version}) has {dim}",
                remedy=f"give {dim} numbers made by {chosen.space_version}",
            )
        return Query(unit(values), chosen.comparable)

    def _places(
        self, column: str, value: str, candidates: list[LiveSpace], moment: Moment
    ) -> list[tuple[LiveSpace, dict[str, Any]]]:
        """Live embedding rows with that id whose record may still be shown, first part first."""
        places = []
        for live in candidates:
            rows = find_embeddings(moment.facts.lake, live.dataset, live.space, column, value)
            for row in rows.sort("part_kind", "part_index").iter_rows(named=True):
                here = (row["space_version"], row["access_tier"]) == (live.space_version, live.access_tier)
                if here and self._records.find(moment, live.spec, {row["record_id"]: row["partition"]}):
                    places.append((live, row))
        return places


def unit(values: Sequence[float] | NDArray[np.float32]) -> NDArray[np.float32]:
    """`values` [dim] at unit norm. Raises QueryInvalid where no direction is left."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise QueryInvalid("the vector has a component that is not a finite number", remedy="give finite numbers only")
    largest = np.abs(vector).max(initial=0.0)
    if largest == 0.0:
        raise QueryInvalid("the vector is zero and has no direction", remedy="give a vector with a non-zero component")
    scaled = vector / largest  # so that neither 1e300 nor 1e-300 leaves float64 when squared
    return np.asarray(scaled / np.linalg.norm(scaled), dtype=np.float32)


def _encoded(encoder: encoders.Encoder, batch: list[Any]) -> list[NDArray[np.float32]]:
    with span("encode"):
        return list(encoder.encode(batch))
