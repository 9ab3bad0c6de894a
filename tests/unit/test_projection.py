"""Projections: what they compute, what they refuse, and that each one shipped is what its card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from resources import encoders
from resources.encoders.cards import fitted, write_card
from resources.errors import ConfigError, IntegrityError
from resources.settings import Settings

CARD = {"version": 1, "input_kind": "features", "license": "CC0-1.0", "medical": False}
ARRAYS = {
    "mean": np.array([1, 2, 3], np.float32),
    "scale": np.array([1, 2, 1], np.float32),
    "components": np.array([[1, 0, 0], [0, 1, 0]], np.float32),
}


def settings(tmp_path: Path, arrays: dict[str, np.ndarray], dim: int = 2) -> Settings:
    path = tmp_path / "map.safetensors"
    path.write_bytes(safetensors.numpy.save(arrays))
    write_card(path, name="map", dim=dim, **CARD)
    return Settings(home=tmp_path, weights={"map@1": str(path)}, device="cpu")


def test_a_row_is_centred_scaled_projected_and_of_unit_norm(tmp_path: Path) -> None:
    encoder = encoders.load("map@1", settings(tmp_path, ARRAYS))
    vectors = encoder.encode([np.array([4, 4, 9], np.float32), np.array([1, 0, 0], np.float32)])
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, [[0.6, 0.8], [0, -1]])
    assert encoder.encode([]).shape == (0, 2)


def test_without_arrays_a_row_is_its_own_direction(tmp_path: Path) -> None:
    encoder = encoders.load("map@1", settings(tmp_path, {"scale": np.ones(2, np.float32)}))
    assert np.allclose(encoder.encode([np.array([3, 4], np.float32)]), [[0.6, 0.8]])


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (np.array([1, 2], np.float32), "encoder_input"),
        (np.array([1, 2, 3], np.float64), "encoder_input"),
        (np.array([1, np.nan, 3], np.float32), "encoder_input"),
        ("text", "encoder_input"),
        (ARRAYS["mean"], "encoder_output"),  # it has no direction
    ],
)
def test_an_unfit_row_is_named(tmp_path: Path, item: object, code: str) -> None:
    encoder = encoders.load("map@1", settings(tmp_path, ARRAYS))
    with pytest.raises(IntegrityError) as refusal:
        encoder.encode([item])
    assert refusal.value.code == code


@pytest.mark.parametrize(
    "arrays", [ARRAYS | {"mean": np.ones(4, np.float32)}, ARRAYS | {"further": np.ones(3, np.float32)}]
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ConfigError, match="do not load as projection"):
        encoders.load("map@1", settings(tmp_path, arrays))


def test_what_is_shipped_loads_and_is_named_as_its_card_says(tmp_path: Path) -> None:
    for ref in fitted():
        card = encoders.card(ref, Settings(home=tmp_path))
        assert (card.ref, card.input_kind) == (ref, "features")
        assert encoders.load(ref, Settings(home=tmp_path, device="cpu")).card == card
