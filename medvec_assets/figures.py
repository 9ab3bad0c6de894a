"""Pictures for run metadata: PNG bytes from arrays, small enough to stand in Dagster's event log.

Belongs here: drawing. Pure: the same input gives the same picture. Does not belong here: what a run measured (stages),
metadata (factory), reading or writing files.

matplotlib is imported inside functions and used without pyplot, which keeps global state and is not safe in threads.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medvec_assets.query.maps import MAX_POINTS, SEED, principal_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LABELS = 10
MAX_THUMBNAILS = 12
_BINS, _BAR_GAP = 40, 0.08  # of a histogram; the gap is a share of a bar's width

_INK, _MUTED, _GRID = "#1f2933", "#6b7684", "#e4e8ec"
_OTHER = "#b8c0c8"
# Colours that the common colour blindnesses tell apart (after Paul Tol); the second five are triangles as well.
_STYLES = (
    ("#4477AA", "o"),
    ("#EE6677", "o"),
    ("#228833", "o"),
    ("#CCBB44", "o"),
    ("#66CCEE", "o"),
    ("#AA3377", "^"),
    ("#332288", "^"),
    ("#CC8844", "^"),
    ("#009988", "^"),
    ("#5A3A22", "^"),
)
_BLUE, _RED = _STYLES[0][0], _STYLES[1][0]
_MAX_BYTES = 60_000  # pictures stand in the rows of an event log
_QUALITIES = ((110, 255), (88, 64), (60, 16))  # (dots per inch, colours), the first that fits _MAX_BYTES is taken


def vector_map(vectors: NDArray[np.float32], labels: Sequence[str], title: str = "") -> bytes:
    """PNG of `vectors` [n, d] on their first two principal axes, coloured by `labels` (n of them).

    At most MAX_POINTS rows are drawn, chosen by a fixed seed; the MAX_LABELS most frequent labels get a colour, the
    rest is grey. n may be 0. Raises ValueError if there are not as many labels as vectors.
    """
    if len(vectors) != len(labels):
        raise ValueError(f"{len(vectors)} vectors and {len(labels)} labels")
    rows = _sample(len(vectors), MAX_POINTS)
    points, shares = principal_axes(np.asarray(vectors, dtype=np.float32)[rows])
    names = [labels[row] or "(none)" for row in rows]
    figure, axes = _canvas(width=7.2, height=4.4)
    axes.set_xlabel(f"first principal axis ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second ({shares[1]:.0%})")
    axes.set_xticks([])
    axes.set_yticks([])
    drawn = f"{len(rows):,} of {len(vectors):,}" if len(rows) < len(vectors) else f"{len(vectors):,}"
    _title(axes, title or "Map of the vectors", f"{drawn} vectors, one point each")
    if names:
        _scatter(axes, points, names)
    else:
        _nothing(axes)
    return _png(figure)


def score_histogram(scores: NDArray[np.float32], title: str = "") -> bytes:
    """PNG histogram of cosine `scores` (any shape; may be empty) with the median and the 5th and 95th percentile."""
    values = np.asarray(scores, dtype=np.float64).ravel()
    figure, axes = _canvas(width=7.2, height=3.2)
    if not values.size:
        _title(axes, title or "Scores of the nearest neighbours", "no vectors")
        axes.set_xticks([])
        axes.set_yticks([])
        _nothing(axes)
        return _png(figure)
    low, high = float(values.min()), float(values.max())
    margin = max(0.02, 0.04 * (high - low))
    _bars(axes, values, low - margin, high + margin)
    p5, median, p95 = np.percentile(values, (5, 50, 95))
    axes.axvspan(p5, p95, color=_BLUE, alpha=0.09, linewidth=0)
    axes.axvline(median, color=_RED, linewidth=1.6)
    axes.set_xlim(low - margin, high + margin)
    axes.set_xlabel("cosine score")
    axes.set_ylabel("neighbours")
    axes.yaxis.grid(True, color=_GRID)
    subtitle = f"{values.size:,} scores, median {median:.3f} (red), 90 % between {p5:.3f} and {p95:.3f} (shaded)"
    _title(axes, title or "Scores of the nearest neighbours", subtitle)
    return _png(figure)


def neighbour_scores(vectors: NDArray[np.float32], sample: int = 500, k: int = 10) -> NDArray[np.float32]:
    """Exact cosine scores, best first, of the `k` nearest other vectors of `sample` rows: float32 [rows, k].

    `vectors` [n, d] of unit norm. Rows are chosen by a fixed seed; with n - 1 < k there are n - 1 columns. A row is
    left out of its own neighbours, its exact duplicates are not.
    """
    count = len(vectors)
    rows, k = _sample(count, sample), min(k, count - 1)
    if k < 1:
        return np.empty((len(rows), 0), dtype=np.float32)
    scores = np.asarray(vectors, dtype=np.float32)[rows] @ np.asarray(vectors, dtype=np.float32).T
    scores[np.arange(len(rows)), rows] = -np.inf
    nearest = np.partition(scores, count - k, axis=1)[:, count - k :]
    found: NDArray[np.float32] = -np.sort(-nearest, axis=1)
    return found


def thumbnail_sheet(thumbnails: Sequence[bytes], captions: Sequence[str], columns: int = 6) -> bytes:
    """PNG of at most MAX_THUMBNAILS `thumbnails` (image files) in a grid, each with its caption below.

    Raises ValueError if there are not as many captions as thumbnails, OSError if one is no image.
    """
    from PIL import Image

    if len(thumbnails) != len(captions):
        raise ValueError(f"{len(thumbnails)} thumbnails and {len(captions)} captions")
    shown = min(len(thumbnails), MAX_THUMBNAILS)
    columns = max(1, min(columns, shown))
    lines = max(1, -(-shown // columns))
    figure = _figure(width=max(1.25 * columns, 2.5), height=1.5 * lines + 0.1)
    if not shown:
        _nothing(figure.add_subplot())
    for place in range(shown):
        axes = figure.add_subplot(lines, columns, place + 1)
        with Image.open(io.BytesIO(thumbnails[place])) as image:
            axes.imshow(np.asarray(image.convert("RGB").resize((128, 128))))
        axes.set_xlabel(_short(captions[place], 18), fontsize=7.5, color=_INK, labelpad=3)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    return _png(figure)


def data_uri(png: bytes) -> str:
    """`png` as a data: URI, for an image in Markdown."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _bars(axes: Axes, values: NDArray[np.float64], low: float, high: float) -> None:
    """A histogram as one collection: axes.hist makes an artist of each bar, which takes longer than all the rest."""
    from matplotlib.collections import PolyCollection

    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    gap = _BAR_GAP * (edges[1] - edges[0]) / 2
    left, right, floor = edges[:-1] + gap, edges[1:] - gap, np.zeros(_BINS)
    corners = np.stack([left, floor, left, counts, right, counts, right, floor], axis=1).reshape(_BINS, 4, 2)
    axes.add_collection(PolyCollection(list(corners), facecolors=_BLUE, alpha=0.9, linewidths=0))
    axes.set_ylim(0, 1.05 * counts.max())


def _scatter(axes: Axes, points: NDArray[np.float32], names: Sequence[str]) -> None:
    """`points` [n, 2] coloured by their `names`, with a legend that counts them."""
    counts = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
    rank = {name: min(place, MAX_LABELS) for place, (name, _) in enumerate(counts)}
    ranks = np.array([rank[name] for name in names])
    styles = [(_short(name, 24), *style) for (name, _), style in zip(counts, _STYLES, strict=False)]
    styles.append((f"{len(counts) - MAX_LABELS} others", _OTHER, "o"))
    size = 9 if len(names) > 500 else 26
    for place in sorted(set(ranks.tolist()), reverse=True):  # the rarest below, but listed last
        label, colour, marker = styles[min(place, len(styles) - 1)]
        x, y = points[ranks == place].T
        axes.scatter(x, y, s=size, c=colour, marker=marker, alpha=0.75, linewidths=0, label=f"{label}  {len(x):,}")
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8, labelcolor=_INK, reverse=True
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(alpha=1, sizes=[26])


def _sample(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the row numbers below `count`, ascending, always the same ones."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(SEED).choice(count, most, replace=False))


def _figure(width: float, height: float) -> Figure:
    """A figure of `width` x `height` inches that belongs to no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _figure(width, height)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GRID)
    axes.tick_params(colors=_MUTED, labelsize=8, length=0)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=_MUTED, fontsize=8.5)
    axes.yaxis.label.set(color=_MUTED, fontsize=8.5)
    return figure, axes


def _title(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(_short(title, 80), loc="left", fontsize=11.5, color=_INK, weight="bold", pad=24)
    axes.annotate(
        subtitle,
        (0, 1),
        xytext=(0, 10),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        color=_MUTED,
        annotation_clip=False,
    )


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "nothing to show", ha="center", va="center", transform=axes.transAxes, color=_MUTED, fontsize=9)
    axes.set_axis_off()


def _short(text: str, most: int) -> str:
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    return shown.replace("$", r"\$")  # matplotlib would read what stands between two as mathematics


def _png(figure: Figure) -> bytes:
    """The figure as PNG with a palette, a third of the bytes of true colour; coarser where it would be too large."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    for dpi, colours in _QUALITIES:
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
        # MAXCOVERAGE keeps the rare colours; the default merges those of a label with few points
        palette = image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        out = io.BytesIO()
        palette.save(out, format="png", optimize=True)
        if out.tell() <= _MAX_BYTES:
            break
    return out.getvalue()
