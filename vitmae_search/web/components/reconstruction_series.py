"""What many reconstructions of a picture say together, as figures on the page."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape

import numpy as np
import streamlit as st
from PIL import Image

from vitmae_search.inspection import figures, series
from vitmae_search.records import Reconstruction
from vitmae_search.web.components import plain_text
from vitmae_search.web.components.mask_parameters import MaskParameters
from vitmae_search.web.components.reconstruction_cache import PreparedPicture, painted_mask, sweep
from vitmae_search.web.components.series_progress import series_progress
from vitmae_search.web.components.session_cache import cached
from vitmae_search.web.components.tables import Row, csv_table, patch_rows

ONE, SWEEP, SEEDS, MATTERS = "One pattern", "Ever more hidden", "Where it is unsure", "What matters"
AGAIN = "Again and again"
VIEWS = (ONE, SWEEP, SEEDS, MATTERS, AGAIN)
SENTENCES = {
    SWEEP: "The same photo with ever more squares hidden: how little does the model need?",
    SEEDS: "Sixteen times other squares are hidden. Bright: the guess depends on what the model saw.",
    MATTERS: "Purple squares help the guess: without one of them it becomes worse. Brown ones mislead it.",
    AGAIN: "What the model made of the photo is given to it again, each time with other squares hidden.",
}
PAINTED = {
    SWEEP: " The squares that you painted go first.",
    SEEDS: " The squares that you painted are always hidden, and each time half of the others.",
    MATTERS: " It is the guess of the squares that you painted.",
    AGAIN: " The squares that you painted are hidden first.",
}
KEPT_BYTES = 16 << 20
"""What one visitor's pictures may take."""
Drawing = tuple[bytes, str, str, str]
"""A file's bytes, its format, its alternative text, and its name. Tables are for downloads alone."""
TABLES = {"json": "application/json", "csv": "text/csv"}


def draw(view: str, picture: PreparedPicture, made: Reconstruction, asked: MaskParameters) -> None:
    """Show one of the views of several reconstructions.

    Args:
        view: One of `VIEWS` but `ONE`.
        picture: The picture.
        made: Its reconstruction with the page's mask.
        asked: Which patches the page hides.
    """
    plain_text.hint(SENTENCES[view] + (PAINTED[view] if asked.painted is not None else ""))

    def compute() -> list[Drawing]:
        with st.spinner("Looking…"), series_progress(_count(view, made)) as on_made:
            return _MAKERS[view](replace(picture, on_made=on_made), made, asked)

    def size(drawings: list[Drawing]) -> int:
        return sum(len(data) for data, *_ in drawings)

    key = (
        *picture.key,
        view,
        made.mask.tobytes(),
        asked.painted is None,
        asked.pattern,
        asked.ratio,
        asked.seed,
    )
    drawings = cached("vs_series", key, compute, size, KEPT_BYTES)
    for data, kind, alt, _ in drawings:
        if kind not in TABLES:
            source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
            st.html(f'<img class="vs-figure" src="{source}" alt="{escape(alt)}">')
    with st.container(horizontal=True):
        for data, kind, _, name in drawings:
            _download(data, kind, name)


def _count(view: str, made: Reconstruction) -> int:
    """How many reconstructions a view takes."""
    if view == MATTERS:
        return 1 + int((~made.mask).sum())
    return {SWEEP: len(series.RATIOS), SEEDS: series.SEEDS, AGAIN: series.STEPS}[view]


def _seeds(picture: PreparedPicture, made: Reconstruction, asked: MaskParameters) -> list[Drawing]:
    seeds = range(asked.seed, asked.seed + series.SEEDS)
    mask = painted_mask(picture, asked)
    many = series.in_pattern(picture.reconstruct, asked.pattern, picture.grid)
    ratio = asked.ratio if mask is None else series.MORE_HIDDEN
    found = series.seed_statistics(many, ratio, seeds, mask)
    mean = float(found.deviation.mean())
    alt = f"The mean of {series.SEEDS} guesses, and their deviation: {mean:.1f} of 255 levels in the mean"
    rows, columns = picture.grid
    patches = found.deviation.reshape(rows, len(found.deviation) // rows, columns, -1).mean(axis=(1, 3))
    figure = figures.figure_png(figures.seeds_figure(found))
    return [
        (figure, "png", alt, "unsure"),
        *_patch_tables({"deviation": patches, "hidden": found.hidden}, "unsure"),
    ]


def _importance(picture: PreparedPicture, made: Reconstruction, _: MaskParameters) -> list[Drawing]:
    importance = series.patch_importance(picture.reconstruct, made.mask)
    row, column = np.unravel_index(np.nanargmax(importance), importance.shape)
    alt = (
        f"How much each visible square matters: most the one in row {row + 1}, column {column + 1}, "
        f"without which the error rises by {np.nanmax(importance):.4f}"
    )
    figure = figures.figure_png(figures.importance_figure(made, importance))
    return [(figure, "png", alt, "matters"), *_patch_tables({"importance": importance}, "matters")]


def _sweep(picture: PreparedPicture, _: Reconstruction, asked: MaskParameters) -> list[Drawing]:
    made = sweep(picture, asked)
    losses = [each.loss for each in made if each.loss is not None]
    first, last = made[0].mask_ratio, made[-1].mask_ratio
    loss = f"the loss goes from {losses[0]:.3f} to {losses[-1]:.3f}"
    alt = f"An animation from {first:.0%} to {last:.0%} hidden; {loss}"
    curve = figures.figure_png(figures.sweep_figure(made))
    rows = [
        {"mask_ratio": each.mask_ratio, "loss": each.loss, "level_error": each.level_error} for each in made
    ]
    pictures = (_animation(made, alt, "sweep"), (curve, "png", f"The loss as a curve. {alt}", "loss"))
    return [*pictures, *_tables(rows, "sweep")]


def _again(picture: PreparedPicture, _: Reconstruction, asked: MaskParameters) -> list[Drawing]:
    many: Callable[..., Reconstruction] = picture.reconstruct_image
    if painted_mask(picture, asked) is None:
        many = series.images_in_pattern(many, asked.pattern, picture.grid)
    made = series.iterate(
        many,
        Image.fromarray(picture.original),
        series.STEPS,
        ratio=asked.ratio,
        seed=asked.seed,
        mask=painted_mask(picture, asked),
    )
    off = [float(np.abs(each.pasted.astype(int) - made[0].original).mean()) for each in made]
    alt = (
        f"The picture after 1 to {len(made)} times: off by {off[0]:.1f} of 255 levels, then by {off[-1]:.1f}"
    )
    rows = [{"times": number, "level_error": error} for number, error in enumerate(off, 1)]
    figure = figures.figure_png(figures.iterations_figure(made))
    return [
        (figure, "png", alt, "again"),
        _animation(made, f"An animation. {alt}", "again"),
        *_tables(rows, "again"),
    ]


_MAKERS = {SWEEP: _sweep, SEEDS: _seeds, MATTERS: _importance, AGAIN: _again}


def _animation(made: Sequence[Reconstruction], alt: str, name: str) -> Drawing:
    return series.animation_gif(made), "gif", alt, name


def _patch_tables(values: dict[str, np.ndarray], name: str) -> list[Drawing]:
    return _tables(patch_rows(values), name)


def _tables(rows: Sequence[Row], name: str) -> list[Drawing]:
    return [(json.dumps(rows).encode(), "json", "", name), (csv_table(rows), "csv", "", name)]


def _download(data: bytes, kind: str, name: str) -> None:
    st.download_button(
        f"{kind.upper()}" if kind in TABLES else f"Download as {kind.upper()}",
        data,
        file_name=f"reconstruction-{name}.{kind}",
        mime=TABLES.get(kind, f"image/{kind}"),
        icon=":material/download:",
        key=f"vs_download_{name}_{kind}",
        on_click="ignore",
    )
