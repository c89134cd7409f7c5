"""The curves of a training, drawn by Streamlit from its log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import streamlit as st

Points = list[tuple[float, float]]

POINTS = 400
"""A curve's points at most: more are not seen, and the page is drawn anew every few seconds."""

_NOT_DRAWN = frozenset({"step", "epoch", "seconds", "images_per_second", "gradient_norm"})
_TITLES = {
    "loss": "Loss",
    "reconstruction": "Reconstruction loss",
    "contrastive": "Contrastive loss",
    "accuracy": "Accuracy on photos held out",
    "rate": "Learning rate",
}
_SAME_CHART = {"val_loss": "loss"}
_CURVES = {"loss": "training", "val_loss": "held out"}
_COLOURS = ("#3d9484", "#c8752f", "#6f7fb8")  # to be told apart on light and on dark
_FORMATS = {"accuracy": "%", "rate": ".1e"}


def draw(lines: Sequence[Mapping[str, float]]) -> None:
    """A chart for each thing that was measured, two side by side where there is room."""
    places: list[Any] = []
    for name, curves in charts(lines):
        if not places:
            places = list(st.columns(2, gap="medium"))
        with places.pop(0):
            _heading(title_of(name), list(curves))
            spec = chart(curves, _FORMATS.get(name, ""))
            st.vega_lite_chart(spec=spec, alt=f"{title_of(name)} by epoch", key=f"vs_curve_{name}")


def _heading(title: str, names: Sequence[str]) -> None:
    """The chart's title and, where there are several curves, which is which."""
    named = names if len(names) > 1 else ()
    legend = "".join(
        f'<span class="vs-curve"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in zip(named, _COLOURS, strict=False)
    )
    st.html(f'<p class="vs-lead">{escape(title)}{legend}</p>')


def charts(lines: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, dict[str, Points]]]:
    """What to draw: a chart's name and its curves, (epoch, value) each; the learning rate last.

    What has been measured once is no curve yet.
    """
    found: dict[str, dict[str, Points]] = {}
    for name in dict.fromkeys(name for line in lines for name in line):
        points = [(line["epoch"], line[name]) for line in lines if name in line and "epoch" in line]
        if len(points) > 1 and name not in _NOT_DRAWN:
            curve = _CURVES.get(name, name)
            found.setdefault(_SAME_CHART.get(name, name), {})[curve] = thinned(points)
    yield from sorted(found.items(), key=lambda item: item[0] == "rate")


def title_of(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def thinned(points: Points, most: int = POINTS) -> Points:
    """At most `most` of the points, evenly, with the last one among them."""
    step = max(1, -(-len(points) // most))
    return points[::-1][::step][::-1]


def chart(curves: Mapping[str, Points], number_format: str) -> dict[str, Any]:
    """A Vega-Lite chart of curves over epochs."""
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
            "scale": {"domain": list(curves), "range": list(_COLOURS)},
            "legend": None,  # it would cover the curves, or squeeze them; the heading has one
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
        # Its menu would offer to open the chart on another site.
        "usermeta": {"embedOptions": {"actions": False}},
    }
