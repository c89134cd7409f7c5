"""Plots of a run, drawn with Pillow only: curves, and a sheet of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vitmae_search.photos import reconstruction_sheet

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 20, 28, 48
_INK, _GRID = (40, 40, 40), (225, 225, 225)
_COLORS = ((31, 98, 173), (200, 82, 0), (46, 125, 50), (123, 44, 139))


def draw_curves(series: Mapping[str, Sequence[tuple[float, float]]], path: Path, title: str) -> None:
    """Draw several series of points in one plot.

    Args:
        series: (epoch, value) points by name, at most four series. No points give empty axes.
        path: PNG file to write.
        title: Written above the plot.
    """
    _curves(series, title).save(path, format="PNG", optimize=True)


def draw_panels(series: Mapping[str, Sequence[tuple[float, float]]], path: Path, title: str) -> None:
    """Draw each series in a plot of its own, one below the other.

    Args:
        series: (epoch, value) points by name.
        path: PNG file to write.
        title: Written above each plot, with the series' name.
    """
    panels = [_curves({"": points}, f"{title}{name and ': ' + name}") for name, points in series.items()]
    sheet = Image.new("RGB", (_WIDTH, _HEIGHT * len(panels)), "white")
    for i, panel in enumerate(panels):
        sheet.paste(panel, (0, i * _HEIGHT))
    sheet.save(path, format="PNG", optimize=True)


def _curves(series: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Image.Image:
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    all_points = [point for points in series.values() for point in points]
    epochs = [x for x, _ in all_points] or [0.0, 1.0]
    values = [y for _, y in all_points] or [0.0, 1.0]
    x_ticks = _ticks(0.0, max(epochs))
    y_ticks = _ticks(min(values), max(values))

    def position(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    for tick in x_ticks:
        _grid_line(draw, position(tick, y_ticks[0])[0], None, f"{tick:g}")
    for tick in y_ticks:
        _grid_line(draw, None, position(x_ticks[0], tick)[1], f"{tick:g}")
    draw.text((_WIDTH / 2, _HEIGHT - 8), "epochs", fill=_INK, font=font, anchor="ms")
    draw.text((_LEFT, 8), title, fill=_INK, font=font)
    right = float(_WIDTH - _RIGHT)
    for (name, points), color in zip(series.items(), _COLORS, strict=False):
        if len(points) > 1:
            draw.line([position(x, y) for x, y in points], fill=color, width=2)
        draw.text((right, 8), name, fill=color, font=font, anchor="ra")
        right -= font.getlength(name) + 16
    return image


def _grid_line(draw: ImageDraw.ImageDraw, x: float | None, y: float | None, text: str) -> None:
    """A vertical line at `x` with its number below, or a horizontal one at `y` with it at the left."""
    font = ImageFont.load_default(14)
    if x is not None:
        draw.line([(x, _TOP), (x, _HEIGHT - _BOTTOM)], fill=_GRID)
        draw.text((x, _HEIGHT - _BOTTOM + 6), text, fill=_INK, font=font, anchor="ma")
    if y is not None:
        draw.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], fill=_GRID)
        draw.text((_LEFT - 8, y), text, fill=_INK, font=font, anchor="rm")


def draw_sheet(rows: Sequence[Sequence[NDArray[np.uint8]]], path: Path, *, zoom: int = 1) -> None:
    """Save images of one size as a PNG, a row of the sheet for each inner sequence.

    Args:
        rows: (H, W, 3) uint8 images.
        path: The file.
        zoom: How often each pixel is repeated, in both directions.
    """
    large = [[reconstruction_sheet.zoom(image, zoom) for image in row] for row in rows]
    sheet = reconstruction_sheet.compose_sheet(large, gap=4 * zoom, margin=4 * zoom)
    sheet.save(path, format="PNG", optimize=True)


def _ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Evenly spaced round numbers that enclose `low` and `high`."""
    span = max(high - low, 1e-9 + abs(high) * 1e-6)
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(m * power for m in (1, 2, 5, 10, 20) if span / (m * power) <= wanted)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
