"""The curves of a training, from the lines of its log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import streamlit as st

Points = list[tuple[float, float]]
"""(epoch, value) each."""

MAX_POINTS = 400
"""Of a curve: more cannot be seen, and the page is drawn anew every few seconds."""

_NOT_DRAWN = frozenset({"step", "epoch", "seconds", "images_per_second", "gradient_norm"})
_TITLES = {
    "loss": "Loss",
    "reconstruction": "Reconstruction loss",
    "contrastive": "Contrastive loss",
    "accuracy": "Accuracy on photos held out",
    "rate": "Learning rate",
}
_CHART_OF = {"val_loss": "loss"}
_CURVE_NAMES = {"loss": "training", "val_loss": "held out"}
_COLORS = ("#3d9484", "#c8752f", "#6f7fb8")  # distinct on light and on dark backgrounds
_FORMATS = {"accuracy": "%", "rate": ".1e"}


def draw(lines: Sequence[Mapping[str, float]]) -> None:
    """Draw a chart for each measure, two side by side where there is room."""
    places: list[Any] = []
    for name, curves in charts(lines):
        if not places:
            places = list(st.columns(2, gap="medium"))
        with places.pop(0):
            _heading(chart_title(name), list(curves))
            spec = vega_lite_spec(curves, _FORMATS.get(name, ""))
            st.vega_lite_chart(spec=spec, alt=f"{chart_title(name)} by epoch", key=f"vs_curve_{name}")


def _heading(title: str, names: Sequence[str]) -> None:
    """The chart's title, and a legend where it has several curves."""
    named = names if len(names) > 1 else ()
    legend = "".join(
        f'<span class="vs-curve"><i style="background:{color}"></i>{escape(name)}</span>'
        for name, color in zip(named, _COLORS, strict=False)
    )
    st.html(f'<p class="vs-lead">{escape(title)}{legend}</p>')


def charts(lines: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, dict[str, Points]]]:
    """The charts to draw: each one's name and its curves by name; the learning rate comes last.

    A measure with a single value is left out: it is no curve yet.
    """
    found: dict[str, dict[str, Points]] = {}
    for name in dict.fromkeys(name for line in lines for name in line):
        points = [(line["epoch"], line[name]) for line in lines if name in line and "epoch" in line]
        if len(points) > 1 and name not in _NOT_DRAWN:
            curve = _CURVE_NAMES.get(name, name)
            found.setdefault(_CHART_OF.get(name, name), {})[curve] = downsample(points)
    yield from sorted(found.items(), key=lambda item: item[0] == "rate")


def chart_title(name: str) -> str:
    """The title of the chart of a measure; `name` is that of the log's field."""
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def downsample(points: Points, most: int = MAX_POINTS) -> Points:
    """Evenly chosen points, with the last one among them.

    Args:
        points: All points.
        most: How many to keep at most.
    """
    step = max(1, -(-len(points) // most))
    return points[::-1][::step][::-1]


def vega_lite_spec(curves: Mapping[str, Points], number_format: str) -> dict[str, Any]:
    """A Vega-Lite chart of curves over epochs.

    Args:
        curves: The points of each curve, by its name.
        number_format: Of the values on the axis, in D3's notation; "" is Vega's default.
    """
    values = [
        {"epoch": epoch, "value": value, "curve": name}
        for name, points in curves.items()
        for epoch, value in points
    ]
    axis = {"format": number_format} if number_format else {}
    encoding = {
        "color": {
            "field": "curve",
            "type": "nominal",
            "title": None,
            "scale": {"domain": list(curves), "range": list(_COLORS)},
            "legend": None,  # the heading has one; in the chart it would take the curves' room
        },
        "x": {"field": "epoch", "type": "quantitative", "title": "epochs"},
        "y": {
            "field": "value",
            "type": "quantitative",
            "title": None,
            "scale": {"zero": False},
            "axis": axis,
        },
    }
    return {
        "data": {"values": values},
        "mark": {"type": "line", "tooltip": True},
        "encoding": encoding,
        "height": 220,
        # No menu: it would offer to open the chart on another site.
        "usermeta": {"embedOptions": {"actions": False}},
    }
