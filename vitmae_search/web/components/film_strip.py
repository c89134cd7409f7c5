"""A training run's film strip on the page: the same photos, as the model completes them while it learns."""

from __future__ import annotations

import base64
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError
from vitmae_search.inspection import figures
from vitmae_search.inspection.film_strip import film_figure, film_gif, loss_of_moment
from vitmae_search.library.previews import small_picture
from vitmae_search.records import FilmStrip
from vitmae_search.training_runs import read_film_strip
from vitmae_search.training_runs.film_strip import FILM_FOLDER, MOMENTS_FILE
from vitmae_search.web.components import plain_text
from vitmae_search.web.components.session_cache import cached

SENTENCE = (
    "The same photos, and what the model makes of the squares that it does not see, while it learns. The "
    "first column stays while you scroll."
)
KEPT_BYTES = 16 << 20
"""What the strips of one visitor may take."""


def show(run_folder: Path) -> None:
    """Show the strip of a run, where it has one.

    Args:
        run_folder: The run's folder.
    """
    try:
        written = (run_folder / FILM_FOLDER / MOMENTS_FILE).stat()
        key = (str(run_folder), written.st_mtime_ns, written.st_size)
        html = cached("vs_film_strips", key, lambda: _html(read_film_strip(run_folder)), len, KEPT_BYTES)
    except (OSError, TrainingError):
        return  # it is a run without a strip, or has just begun
    if not html:
        return
    plain_text.card("Film strip", SENTENCE)
    st.html(html)
    with st.container(horizontal=True):
        for kind, make in (("png", _png), ("gif", _gif)):
            st.download_button(
                f"Download as {kind.upper()}",
                partial(make, run_folder),
                file_name=f"{run_folder.name}-film.{kind}",
                mime=f"image/{kind}",
                icon=":material/download:",
                key=f"vs_film_{kind}",
                on_click="ignore",
            )


def _html(strip: FilmStrip) -> str:
    """The photos, what is seen of them, and a column for each moment; "" where there is none yet."""
    if not strip.moments:
        return ""
    names = ", ".join(name or "one that it learns from" for name in strip.names)
    columns = [
        ("The photos", "", f"The photos: {names}", strip.originals),
        ("Seen", "of them", "What the model sees of the photos; the rest is grey", strip.masked),
    ]
    for moment, pictures in zip(strip.moments, strip.completed, strict=True):
        epoch, loss = loss_of_moment(moment)
        each = ", ".join(f"{value:.3f}" for value in moment.losses)
        alt = f"The photos completed after {epoch} epochs: the loss is {loss}, of each photo {each}"
        columns.append((f"Epoch {epoch}", f"Loss {loss}", alt, pictures))
    body = "".join(_column(*column) for column in columns)
    return f'<div class="vs-film" tabindex="0" role="group" aria-label="Film strip">{body}</div>'


def _column(title: str, text: str, alt: str, pictures: NDArray[np.uint8]) -> str:
    media_type, data = small_picture(np.concatenate(pictures))
    source = f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<figure><img src="{source}" alt="{escape(alt)}">'
        f"<figcaption>{escape(title)}<br>{escape(text)}</figcaption></figure>"
    )


def _png(run_folder: Path) -> bytes:
    return figures.figure_png(film_figure(read_film_strip(run_folder)))


def _gif(run_folder: Path) -> bytes:
    return film_gif(read_film_strip(run_folder))
