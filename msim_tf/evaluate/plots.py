"""The two figures: a Kiviat diagram of the single dimensions (paper, Figure 2) and the matrix of subspaces and labels.

Figures are made without pyplot, so nothing global is touched and a training callback may draw from any thread. Colours
are Okabe and Ito's, told apart with every common colour vision; series differ in their markers too, and the matrix
carries its numbers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from msim_tf.errors import InputError
from msim_tf.evaluate.disentanglement import Disentanglement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1f24", "#5d6571", "#d5d9df"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_MARKERS = ("o", "s", "^", "D")
# Blue above chance, orange below, the page between.
_COOL, _PAPER, _WARM = "#2b7bba", "#f7f7f5", "#e08214"
CHANCE = 0.5


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = grid(1, 1, width=width, height=height)
    return figure, figure.axes[0]


def _settled(figure: Figure) -> Figure:
    """Lays the figure out once and for all, so that drawing it again gives the same bytes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def kiviat(series: Mapping[str, Mapping[str, float]], *, title: str = "") -> Figure:
    """A Kiviat (radar) diagram.

    Args:
        series: system -> dimension -> score in [0, 1]; one to four systems over the same three or more dimensions.
        title: above the diagram; none when empty.

    Raises:
        InputError: if there are more systems than colours, too few dimensions, or they differ.
    """
    if not 1 <= len(series) <= len(SERIES):
        raise InputError(f"{len(series)} systems in one Kiviat diagram, expected 1 to {len(SERIES)}")
    names = tuple(next(iter(series.values())))
    if len(names) < 3 or any(tuple(scores) != names for scores in series.values()):
        raise InputError(
            f"a Kiviat diagram needs the same three or more dimensions for every system, found {list(names)}"
        )
    # [systems, dimensions] scores, and an axis of whole tenths that shows them all, from 0.4 to 0.8 at least.
    values = np.array([[scores[name] for name in names] for scores in series.values()], np.float64)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InputError("scores of a Kiviat diagram must lie in [0, 1]")
    low = min(0.4, np.floor(values.min() * 10) / 10)
    high = max(0.8, np.ceil(values.max() * 10) / 10)

    # Spokes and rings first, then one polygon per system: its score on each spoke, scaled from [low, high] to [0, 1].
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(names)) / len(names)  # the first up, then clockwise
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    figure, axes = _figure(5.2, 4.8)
    _web(axes, corners, low, high)
    _spoke_labels(axes, corners, names, values)
    for row, name in enumerate(series):
        _polygon(axes, corners * ((values[row] - low) / (high - low))[:, None], row, name, filled=len(series) == 1)
    if len(series) > 1:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            ncols=3 if len(series) == 3 else 2,
            frameon=False,
            labelcolor=INK,
            fontsize=10,
        )
    if title:
        axes.set_title(title, color=INK, fontsize=12, pad=14)
    axes.text(0, -1.34, "dashed: 0.5, chance", color=MUTED, fontsize=8.5, ha="center", va="center")
    axes.set(xlim=(-1.55, 1.55), ylim=(-1.4, 1.28), aspect="equal")
    axes.set_axis_off()
    return _settled(figure)


def _web(axes: Axes, corners: np.ndarray, low: float, high: float) -> None:
    """Rings at whole tenths, that of chance dashed, and the spokes."""
    closed = np.concatenate([corners, corners[:1]])
    for level in np.arange(round(low * 10), round(high * 10) + 1) / 10:
        radius = (level - low) / (high - low)
        chance = abs(level - CHANCE) < 1e-9
        axes.plot(
            *(closed * radius).T, color=MUTED if chance else GRID, lw=1.1 if chance else 0.8, ls="--" if chance else "-"
        )
        if radius < 0.99:
            axes.text(-0.025, radius, f"{level:.1f}", color=MUTED, fontsize=7.5, ha="right", va="center")
    for corner in corners:
        axes.plot([0, corner[0]], [0, corner[1]], color=GRID, lw=0.8, zorder=1)


def _spoke_labels(axes: Axes, corners: np.ndarray, names: tuple[str, ...], values: np.ndarray) -> None:
    """Names of the dimensions outside the rings, with the score below where there is one system only."""
    for (x, y), name, column in zip(corners, names, values.T):
        side = "center" if abs(x) < 1e-9 else ("left" if x > 0 else "right")
        axes.text(1.09 * x, 1.12 * y + 0.03, name, color=INK, fontsize=11.5, ha=side, va="center")
        if len(values) == 1:
            axes.text(1.09 * x, 1.12 * y - 0.08, f"{column[0]:.3f}", color=MUTED, fontsize=9.5, ha=side, va="center")


def _polygon(axes: Axes, points: np.ndarray, row: int, name: str, *, filled: bool) -> None:
    """One system: [dimensions, 2] points, joined to a ring."""
    closed = np.concatenate([points, points[:1]])
    color = SERIES[row]
    axes.plot(*closed.T, color=color, lw=2, marker=_MARKERS[row], ms=5.5, label=name, zorder=3, solid_joinstyle="round")
    if filled:
        axes.fill(*points.T, color=color, alpha=0.14, lw=0, zorder=2)


def heat_map(matrix: Disentanglement, *, title: str = "") -> Figure:
    """The matrix of subspaces (rows) and label kinds (columns) with its numbers; the diagonal is outlined.

    Args:
        matrix: from ``disentanglement``.
        title: above the matrix; none when empty.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    rows, columns = matrix.accuracy.shape
    figure, axes = _figure(1.7 + 0.95 * columns, 1.5 + 0.68 * rows)
    colors = LinearSegmentedColormap.from_list("chance", [_WARM, _PAPER, _COOL]).with_extremes(bad="#e9ebee")
    image = axes.imshow(np.ma.masked_invalid(matrix.accuracy), cmap=colors, vmin=0, vmax=1, aspect="auto")
    # Each cell: its accuracy, the interval below, and a frame where the subspace meets its own label.
    for row, column in np.ndindex(rows, columns):
        value = matrix.accuracy[row, column]
        empty = np.isnan(value)
        color = "white" if not empty and value > 0.85 else INK
        axes.text(
            column, row - 0.08, "–" if empty else f"{value:.2f}", ha="center", va="center", color=color, fontsize=12
        )
        if not empty:
            bounds = f"{matrix.low[row, column]:.2f}–{matrix.high[row, column]:.2f}"
            axes.text(column, row + 0.27, bounds, ha="center", va="center", color=color, fontsize=7)
        if matrix.subspaces[row] == matrix.kinds[column]:
            axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, ec=INK, lw=1.6))

    # Names of labels and subspaces, no ticks and no frame around the whole, and what the colours mean.
    axes.set_xticks(range(columns), matrix.kinds, color=INK, fontsize=10.5)
    axes.set_yticks(range(rows), matrix.subspaces, color=INK, fontsize=10.5)
    axes.set_xlabel("predicts this label", color=MUTED)
    axes.set_ylabel("this subspace", color=MUTED)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar: Any = figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(["0", ".25", ".5 chance", ".75", "1"], color=MUTED, fontsize=8.5)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    if title:
        axes.set_title(title, color=INK, fontsize=12, pad=10)
    return _settled(figure)


def grid(rows: int, columns: int, *, width: float, height: float) -> Figure:
    """An empty figure of panels, row by row in ``figure.axes``.

    Args:
        rows: of panels.
        columns: of panels.
        width: of the figure, in inches.
        height: of the figure, in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns)
    return figure


def png(figure: Figure, *, dpi: int = 200) -> bytes:
    """The figure as PNG on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def svg(figure: Figure, *, text: bool = False, salt: str = "msim") -> bytes:
    """The figure as SVG, the same bytes for the same figure.

    Args:
        figure: any.
        text: keep letters as text in the reader's font (for pages of ours); otherwise as outlines, alike everywhere.
        salt: makes the ids of two figures on one page different.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none" if text else "path", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def rgba(figure: Figure, *, dpi: int = 100) -> np.ndarray:
    """The figure as [height, width, 4] uint8, as TensorBoard's image summary takes it (add a batch axis)."""
    figure.set_dpi(dpi)
    canvas: Any = figure.canvas
    canvas.draw()
    return np.array(canvas.buffer_rgba())
