"""Figures: deterministic, small, legible PNGs, whatever the data."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvec_assets import figures
from medvec_assets.query.maps import principal_axes


def clustered(count: int, dim: int = 32) -> np.ndarray:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((5, dim))[rng.integers(0, 5, count)] + 0.3 * rng.standard_normal((count, dim))
    unit: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def colours(png: bytes) -> set[tuple[int, int, int]]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}


def near(colour: str, found: set[tuple[int, int, int]], tolerance: int = 12) -> bool:
    wanted = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return any(max(abs(a - b) for a, b in zip(wanted, c, strict=True)) <= tolerance for c in found)


def test_importing_figures_imports_no_matplotlib() -> None:
    code = "import sys, medvec_assets.figures; assert not {'matplotlib', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_drawing_leaves_no_global_figure() -> None:
    code = (
        "import sys, numpy as np; from medvec_assets import figures;"
        "figures.score_histogram(np.ones(3)); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_map_is_deterministic_and_small() -> None:
    vectors, labels = clustered(5000), [f"label {i % 14}" for i in range(5000)]
    png = figures.vector_map(vectors, labels, "a title")
    assert png == figures.vector_map(vectors, labels, "a title")
    assert len(png) < 60_000


def test_map_colours_ten_labels_and_greys_the_rest() -> None:
    ten = colours(figures.vector_map(clustered(100), [f"l{i % 10}" for i in range(100)]))
    assert all(near(colour, ten, 2) for colour, _ in figures._STYLES)
    assert not near(figures._OTHER, ten, 0)
    eleven = colours(figures.vector_map(clustered(100), [f"l{i % 11}" for i in range(100)]))
    assert near(figures._OTHER, eleven, 0)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_map_of_few_vectors(count: int) -> None:
    assert colours(figures.vector_map(clustered(count), ["CT"] * count))


def test_map_of_identical_vectors_and_odd_labels() -> None:
    assert colours(figures.vector_map(np.ones((4, 3), np.float32), ["", "$x_1$ $", "other", "l" * 300]))


def test_map_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="3 vectors and 2 labels"):
        figures.vector_map(clustered(3), ["a", "b"])


def test_principal_axes_are_those_of_the_svd() -> None:
    vectors = clustered(400)
    points, shares = principal_axes(vectors)
    centred = vectors - vectors.mean(axis=0)
    _, strength, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(centred @ directions[:2].T), atol=1e-3)
    np.testing.assert_allclose(shares, (strength**2 / (strength**2).sum())[:2], atol=1e-4)


def test_neighbour_scores_are_exact_and_leave_out_the_row_itself() -> None:
    vectors = clustered(60)
    found = figures.neighbour_scores(vectors, k=7)
    scores = vectors @ vectors.T
    expected = [sorted(np.delete(row, i), reverse=True)[:7] for i, row in enumerate(scores)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


def test_neighbour_scores_keep_duplicates() -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), 2, axis=0)
    np.testing.assert_array_equal(figures.neighbour_scores(vectors, k=3), [[1, 0, 0]] * 4)


@pytest.mark.parametrize(("count", "shape"), [(0, (0, 0)), (1, (1, 0)), (4, (4, 3)), (900, (500, 10))])
def test_neighbour_scores_shapes(count: int, shape: tuple[int, int]) -> None:
    assert figures.neighbour_scores(clustered(count)).shape == shape


@pytest.mark.parametrize("scores", [np.empty(0), np.ones(1), np.ones((500, 10)), np.linspace(-1, 1, 999)])
def test_histogram(scores: np.ndarray) -> None:
    png = figures.score_histogram(scores.astype(np.float32))
    assert colours(png) and len(png) < 60_000


def image_file(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "png")
    return out.getvalue()


@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_sheet_of_the_worst_thumbnails_stays_small(count: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (count, 200, 150, 3), np.uint8)
    sheet = figures.thumbnail_sheet([image_file(image) for image in noise], [f"noise {i}" for i in range(count)])
    assert colours(sheet) and len(sheet) < 60_000


def test_sheet_shows_its_thumbnails() -> None:
    plain = [np.full((64, 64, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 30, 200))]
    found = colours(figures.thumbnail_sheet([image_file(image) for image in plain], ["red", "blue"]))
    assert near("#c81e1e", found) and near("#1e1ec8", found)


def test_sheet_takes_grey_images_and_refuses_unequal_lengths() -> None:
    grey = image_file(np.zeros((10, 20), np.uint8))
    assert colours(figures.thumbnail_sheet([grey], ["a caption that is much too long to fit"]))
    with pytest.raises(ValueError, match="1 thumbnails and 0 captions"):
        figures.thumbnail_sheet([grey], [])


def test_data_uri() -> None:
    png = image_file(np.zeros((2, 2), np.uint8))
    head, _, body = figures.data_uri(png).partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(body) == png
