"""An evaluation as a plot: neighbours, recall by kind of change, and the near-duplicates' curves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vitmae_search.evaluation.bootstrap import Figure
from vitmae_search.evaluation.report import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#1f62ad", "#c85200", "#2e7d32", "#7b2c8b", "#b8860b", "#00838f", "#ad1457", "#616161", "#4e342e")
_MARKS = "osD^vPX*h"

_Styles = Mapping[str, Mapping[str, Any]]
"""Color and marker of each method."""


def save_plot(found: Evaluation, path: str | os.PathLike[str]) -> None:
    """Draw what was measured, with its intervals, as a PNG file.

    Args:
        found: The evaluation.
        path: The file; one that is there is replaced.

    Raises:
        OSError: It cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    panels = [panel for name, panel in _PANELS if any(getattr(method, name) for method in found.methods)]
    drawing = Drawing(figsize=(2 + 5 * len(panels), 6), layout="constrained")
    FigureCanvasAgg(drawing)
    styles = {
        method.name: {"color": _COLORS[i % len(_COLORS)], "marker": _MARKS[i % len(_MARKS)]}
        for i, method in enumerate(found.methods)
    }
    lines: dict[str, Any] = {}
    widths = [8 if panel is _recall else 5 for panel in panels]
    row = drawing.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axes, panel in zip(row, panels, strict=True):
        panel(axes, found, styles)
        axes.grid(color="#e4e4e4")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        handles, names = axes.get_legend_handles_labels()
        lines = dict(zip(names, handles, strict=True)) | lines
    drawing.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=3, frameon=False)
    drawing.suptitle(found.summary, fontsize="medium", wrap=True)
    drawing.savefig(os.fspath(path), format="png", dpi=110)


def _neighbours(axes: Axes, found: Evaluation, styles: _Styles) -> None:
    axes.set_title("neighbours of the same class, %")
    _points(axes, {method.name: method.neighbours for method in found.methods}, styles)


def _recall(axes: Axes, found: Evaluation, styles: _Styles) -> None:
    axes.set_title(f"a changed photo finds its original among {found.instances}: recall@1, %")
    recall = {
        method.name: {kind: figures["recall@1"] for kind, figures in method.instances.items()}
        for method in found.methods
    }
    _points(axes, recall, styles)


def _points(axes: Axes, values: Mapping[str, Mapping[str, Figure]], styles: _Styles) -> None:
    """A column for each measure, and in it a point with its interval for each method."""
    rows = {name: figures for name, figures in values.items() if figures}
    measures = list(next(iter(rows.values())))
    for i, (name, figures) in enumerate(rows.items()):
        shift = 0.7 * ((i + 0.5) / len(rows) - 0.5)
        points = 100 * np.array([[f.value, f.value - f.low, f.high - f.value] for f in figures.values()]).T
        axes.errorbar(
            np.arange(len(measures)) + shift,
            points[0],
            yerr=np.maximum(points[1:], 0),  # rounding may put a mean just outside of its interval
            label=name,
            linestyle="none",
            markersize=5,
            **styles[name],
        )
    axes.set_xticks(range(len(measures)), measures, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.5, len(measures) - 0.5)
    for column in range(0, len(measures), 2):
        axes.axvspan(column - 0.5, column + 0.5, color="#f4f4f4", zorder=0)


def _duplicates(axes: Axes, found: Evaluation, styles: _Styles) -> None:
    axes.set_title(f"near-duplicates among {found.instances} photos")
    for method in found.methods:
        if method.duplicates is not None:
            curve = method.duplicates
            color = styles[method.name]["color"]
            axes.plot(100 * curve.recall, 100 * curve.precision, color=color, label=method.name)
    axes.set(xlabel="recall, %", ylabel="precision, %", xlim=(0, 101), ylim=(0, 101))


_PANELS = (("neighbours", _neighbours), ("instances", _recall), ("duplicates", _duplicates))
"""The fields of `MethodScores` and the functions that draw them, where they were measured."""
