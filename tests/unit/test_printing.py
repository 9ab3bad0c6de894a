"""What a person reads of a hit: of a series what it shows, of anything else its attributes by name, and that it is made up."""

from __future__ import annotations

from typing import Any

import pytest

from medvec_assets import printing

HIT = {
    "score": 0.5,
    "group": None,
    "dataset": "d",
    "cohort": "c",
    "license": "CC0",
    "members": 1,
    "record_id": "r-1",
    "source_uri": "s3://x",
    "encoder": "minilm@1",
    "weights_digest": "0" * 64,
    "delta_version": 1,
    "vector_id": "f" * 32,
}


@pytest.mark.parametrize(
    ("attributes", "first", "second"),
    [
        ({"modality": "CT", "series_description": "thin", "instances": 3}, "CT · thin", "d / c, CC0"),
        ({"note_type": "discharge", "synthetic": True}, "note_type discharge", "d / c, CC0, synthetic"),
        ({}, "r-1", "d / c, CC0"),
    ],
)
def test_a_hit_tells_what_it_is(attributes: dict[str, Any], first: str, second: str) -> None:
    lines = [line.strip() for line in printing.hits({"hits": [HIT | {"attributes": attributes}]})]
    assert lines[0] == f"1. 0.500  {first}"
    assert lines[1] == second
