"""The vector index: Milvus behind one small interface, and Milvus Lite as a server process that medvec owns.

Belongs here: everything that knows pymilvus or milvus-lite. Does not belong here: which entities the index should
hold (the sync stage), generations and promotion, what a hit means.

Importing this package imports no pymilvus: that happens when an index is opened.
"""

from resources.vector_index.connection import Patience
from resources.vector_index.filters import Condition
from resources.vector_index.lite import LiteServer, lite_server
from resources.vector_index.milvus import VectorIndex, open_index
from resources.vector_index.plan import Layout, differences, planned
from resources.vector_index.rows import ENTITY_SCHEMA
from resources.vector_index.types import (
    EF_SEARCH_KEY,
    ENTITY_FIELDS,
    SCALAR_FIELDS,
    CollectionInfo,
    CollectionSpec,
    IndexHit,
)

__all__ = [
    "EF_SEARCH_KEY",
    "ENTITY_FIELDS",
    "ENTITY_SCHEMA",
    "SCALAR_FIELDS",
    "CollectionInfo",
    "CollectionSpec",
    "Condition",
    "IndexHit",
    "Layout",
    "LiteServer",
    "Patience",
    "VectorIndex",
    "differences",
    "lite_server",
    "open_index",
    "planned",
]
