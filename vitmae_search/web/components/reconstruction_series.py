"""What many reconstructions of a picture say together, as figures on the page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from vitmae_search.inspection import figures, series
from vitmae_search.records import Reconstruction
from vitmae_search.web.components import plain_text
from vitmae_search.web.components.session_cache import cached

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ONE, SWEEP, SEEDS, MATTERS = "One pattern", "Ever more hidden", "Where it is unsure", "What matters"
VIEWS = (ONE, SWEEP, SEEDS, MATTERS)
SENTENCES = {
    SWEEP: "The same photo with ever more squares hidden: how little does the model need?",
    SEEDS: "Sixteen times other squares are hidden. Bright: the guess depends on what the model saw.",
    MATTERS: "Purple squares help the guess: without one of them it becomes worse. Brown ones mislead it.",
}
KEPT_BYTES = 16 << 20
"""What one visitor's pictures may take."""
Drawing = tuple[bytes, str, str, str]
"""A picture's bytes, its format, its alternative text, and its name."""


def draw(
    view: str,
    reconstruct: Callable[..., Reconstruction],
    made: Reconstruction,
    seed: int,
    *,
    key: tuple[str, ...],
) -> None:
    """Show one of the views of several reconstructions.

    Args:
        view: One of `VIEWS` but `ONE`.
        reconstruct: Of the picture, as `series` calls it.
        made: The reconstruction that the page's mask and seed give.
        seed: The page's.
        key: What else decides the view: the picture, the model, the pattern.
    """
    plain_text.hint(SENTENCES[view])

    def compute() -> list[Drawing]:
        with st.spinner("Looking…"):
            if view == SWEEP:
                return _sweep(series.ratio_sweep(reconstruct, seed=seed))
            return [_seeds(reconstruct, made, seed) if view == SEEDS else _importance(reconstruct, made)]

    def size(drawings: list[Drawing]) -> int:
        return sum(len(data) for data, *_ in drawings)

    for drawing in cached("vs_series", (*key, view, made.mask.tobytes(), seed), compute, size, KEPT_BYTES):
        _show(*drawing)


def _seeds(reconstruct: Callable[..., Reconstruction], made: Reconstruction, seed: int) -> Drawing:
    found = series.seed_statistics(reconstruct, made.mask_ratio, range(seed, seed + series.SEEDS))
    mean = float(found.deviation.mean())
    alt = f"The mean of {series.SEEDS} guesses, and their deviation: {mean:.1f} of 255 levels in the mean"
    return _png(figures.seeds_figure(found)), "png", alt, "unsure"


def _importance(reconstruct: Callable[..., Reconstruction], made: Reconstruction) -> Drawing:
    importance = series.patch_importance(reconstruct, made.mask)
    row, column = np.unravel_index(np.nanargmax(importance), importance.shape)
    alt = (
        f"How much each visible square matters: most the one in row {row + 1}, column {column + 1}, "
        f"without which the error rises by {np.nanmax(importance):.4f}"
    )
    return _png(figures.importance_figure(made, importance)), "png", alt, "matters"


def _sweep(made: list[Reconstruction]) -> list[Drawing]:
    stream = BytesIO()
    series.save_animation(series.animation(made), stream)
    losses = [each.loss for each in made if each.loss is not None]
    first, last = made[0].mask_ratio, made[-1].mask_ratio
    loss = f"the loss goes from {losses[0]:.3f} to {losses[-1]:.3f}"
    alt = f"An animation from {first:.0%} to {last:.0%} hidden; {loss}"
    curve = _png(figures.sweep_figure(made))
    return [(stream.getvalue(), "gif", alt, "sweep"), (curve, "png", f"The loss as a curve. {alt}", "loss")]


def _png(figure: Figure) -> bytes:
    stream = BytesIO()
    figures.write_png(figure, stream)
    return stream.getvalue()


def _show(data: bytes, kind: str, alt: str, name: str) -> None:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    st.html(f'<img class="vs-figure" src="{source}" alt="{escape(alt)}">')
    st.download_button(
        f"Download as {kind.upper()}",
        data,
        file_name=f"reconstruction-{name}.{kind}",
        mime=f"image/{kind}",
        icon=":material/download:",
        key=f"vs_download_{name}",
        on_click="ignore",
    )
