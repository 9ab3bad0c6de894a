"""Search: one question or many, one vector each, every comparable collection, ranked hits with their provenance.

    question    what may be asked and what is answered
    filters     what a caller narrows by, as conditions on entities
    targets     which collections answer
    vectors     from a question to a unit vector
    coalescing  concurrent index calls become one
    ranking     merge, ties, groups, completing hits from the lake
    pages       cursors
    cache       answers kept for the same question
    engine      the steps in their order

Does not belong here: HTTP and JSON shapes (api), printing (cli), how an index searches (resources.vector_index).

Vectors of different spaces are never compared: a question that would reach two spaces is refused, not guessed. A hit
whose record is gone from silver, or suppressed, is not shown even while the index still holds it.
"""

from medvec_assets.query.search.engine import SearchEngine
from medvec_assets.query.search.question import (
    HIT_FIELDS,
    MAX_DIM,
    MAX_LIMIT,
    MAX_QUERIES,
    MAX_TEXT_CHARS,
    Answer,
    Explain,
    Hit,
    Question,
    SearchRequest,
    Upload,
)

__all__ = [
    "HIT_FIELDS",
    "MAX_DIM",
    "MAX_LIMIT",
    "MAX_QUERIES",
    "MAX_TEXT_CHARS",
    "Answer",
    "Explain",
    "Hit",
    "Question",
    "SearchEngine",
    "SearchRequest",
    "Upload",
]
