"""Bodies of lineage. Belongs here: the chain as JSON. Does not belong here: walking it (query.lineage)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict

VectorId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{32}$", description="the vector_id of a hit", examples=["29add84a6398e57b73e5b9e559597cfc"]
    ),
]


class LineageAnswer(BaseModel):
    """From the vector back to the source: each layer's row, the commits that hold them and the runs that made them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "vector": {
                        "vector_id": "29add84a6398e57b73e5b9e559597cfc",
                        "dataset": "tcia_catalog",
                        "space": "text",
                        "collection": "tcia_catalog__text__open__g1",
                    },
                    "embedding": {"encoder": "minilm@1", "weights_digest": "53aa51172d14", "dim": 384},
                    "record": {"cohort": "tcga_lihc", "license": "CC BY 3.0", "deid_profile": "open-catalogue-1"},
                    "objects": [{"checksum_kind": "crdc_series_uuid", "upstream_version": "v25"}],
                    "upstream": {"dataset": "tcia_catalog", "source": "tcia", "version": "IDC v25"},
                    "commits": [{"asset": "records", "table": "silver/tcia_catalog/records", "version": 11}],
                    "runs": [{"run_id": "39327d66-b0cd-4707-8f6a-e0f8e120f9e8", "code_version": "medvec 0.1.0"}],
                }
            ]
        }
    )

    vector: dict[str, Any]
    embedding: dict[str, Any]
    record: dict[str, Any]
    objects: list[dict[str, Any]]
    upstream: dict[str, Any]
    commits: list[dict[str, Any]]
    runs: list[dict[str, Any]]
