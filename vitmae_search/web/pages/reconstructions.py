"""The Reconstructions page: hide most of a picture, and see what the model makes of the rest."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from vitmae_search.inspection.masks import PATTERNS, pattern_mask
from vitmae_search.inspection.series import in_pattern
from vitmae_search.library.previews import sheet_png
from vitmae_search.records import Reconstruction
from vitmae_search.web.components import (
    inspections,
    model_choice,
    plain_text,
    query_picker,
    reconstruction_panels,
)
from vitmae_search.web.components import reconstruction_series as series
from vitmae_search.web.components.session_cache import cached
from vitmae_search.web.server.session import library

INTRO = (
    "The model learned by looking at pictures with most of their patches hidden and guessing the rest. "
    "What it guesses well is what it understands, and that is what the search compares."
)
LARGEST_SEED = 2**31 - 1
KEPT_RECONSTRUCTIONS = 8  # of one visitor, so that a rerun of the page does not compute them again
PAINTED_NAME = "painted"


def page() -> None:
    """Choose a picture, or see its reconstruction."""
    query = query_picker.current_query()
    if query is None:
        plain_text.hint(INTRO)
        query_picker.pick_query("See what the model makes of this picture")
        if not library().count_photos():
            plain_text.empty_library()
        return
    summary = query_picker.query_header(query, "What the model sees in")
    model = model_choice.draw(decoder=True)
    view = inspections.choice("view", "View", series.VIEWS, series.ONE)
    ratio, seed, pattern, soften = _controls()
    made = _reconstruct(query, ratio, seed)
    if pattern != PATTERNS[0]:
        made = _reconstruct(query, ratio, seed, pattern_mask(pattern, made.mask.shape, ratio, seed))
    if view != series.ONE:
        with summary:
            plain_text.hint(_detail(made))
        reconstruct = partial(library().reconstruct, query.picture, model=model)
        many = in_pattern(reconstruct, pattern, made.mask.shape)
        with query_picker.name_upload_in_errors(query):
            series.draw(view, many, made, seed, key=(query.key, *inspections.model_key(), pattern))
        return
    fresh = st.session_state.get("vs_fresh", 0)
    canvas = f"vs_panels {query.key} {ratio} {seed} {pattern} {fresh}"
    painted = _painted(canvas)
    if painted is not None:
        made = _reconstruct(query, ratio, seed, reconstruction_panels.painted_mask(painted, *made.mask.shape))
    with summary:
        plain_text.hint(_detail(made))
    name = f"{round(ratio * 100)}-{seed}" + ("" if pattern == PATTERNS[0] else f"-{pattern}")
    _show(made, soften, canvas, PAINTED_NAME if painted is not None else name)


def _painted(canvas: str) -> object:
    """The patches that the visitor painted on this canvas; None while it shows the seed's pattern."""
    state = st.session_state.get(canvas)
    return None if state is None else state.get("hidden")


def _controls() -> tuple[float, int, str, bool]:
    """The mask ratio, the seed, the pattern, and whether to soften seams."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="vs_controls"):
        st.button(
            "Another picture", icon=":material/arrow_back:", on_click=query_picker.clear_query, key="vs_new"
        )
        percent = st.slider(
            "Mask ratio",
            0,
            95,
            75,
            5,
            format="%d%%",
            key="vs_ratio",
            width=260,
            help="The share of patches, the small squares, that the model does not get to see.",
        )
        seed = st.number_input(
            "Seed",
            0,
            LARGEST_SEED,
            key="vs_seed",
            width=140,
            help="Which patches are hidden. The same seed always hides the same ones.",
        )
        st.button("Shuffle", icon=":material/shuffle:", on_click=_next_seed, key="vs_shuffle")
        pattern = inspections.choice("pattern", "Pattern", PATTERNS, PATTERNS[0])
        soften = st.toggle(
            "Soften seams",
            value=True,
            key="vs_soften",
            help="In the large picture, smooth the steps between neighbouring guesses, which the model makes "
            "one by one. Squares of the photo and the small pictures stay as they are.",
        )
    return percent / 100, int(seed), pattern, soften


def _next_seed() -> None:
    st.session_state["vs_seed"] = (int(st.session_state.get("vs_seed", 0)) + 1) % LARGEST_SEED


def _fresh_canvas() -> None:
    st.session_state["vs_fresh"] = st.session_state.get("vs_fresh", 0) + 1


def _reconstruct(
    query: query_picker.QueryState, ratio: float, seed: int, mask: NDArray[np.bool_] | None = None
) -> Reconstruction:
    """The reconstruction, from the session where it has it."""
    key = (query.key, *inspections.model_key(), ratio, seed, None if mask is None else mask.tobytes())
    model = model_choice.chosen_model()

    def compute() -> Reconstruction:
        with st.spinner("Looking…"), query_picker.name_upload_in_errors(query):
            return library().reconstruct(query.picture, mask_ratio=ratio, seed=seed, mask=mask, model=model)

    return cached("vs_reconstructions", key, compute, lambda _: 1, KEPT_RECONSTRUCTIONS)


def _detail(made: Reconstruction) -> str:
    height, width = made.original.shape[:2]
    rows, columns = made.mask.shape
    return f"This model looks at {width} × {height} pixels, in {columns} × {rows} patches."


def _show(made: Reconstruction, soften: bool, canvas: str, name: str) -> None:
    reconstruction_panels.draw(made, soften=soften, key=canvas)
    st.html(reconstruction_panels.legend(made))
    plain_text.facts(_facts(made))
    with st.container(horizontal=True):
        st.page_link(
            "../pages/inside.py",
            label="Look inside the model",
            icon=":material/visibility:",
            query_params=query_picker.parameters(),
        )
        st.download_button(
            "Download as PNG",
            sheet_png(made, soften=soften),
            file_name=f"reconstruction-{name}.png",
            mime="image/png",
            icon=":material/download:",
            key="vs_download",
        )
        if name == PAINTED_NAME:
            icon = ":material/undo:"
            st.button("Back to the pattern", icon=icon, on_click=_fresh_canvas, key="vs_undo")


def _facts(made: Reconstruction) -> list[tuple[str, str]]:
    hidden = int(made.mask.sum())
    loss = "nothing was hidden" if made.loss is None else f"{made.loss:.4f}"
    rows = [
        (
            "Loss",
            f"{loss}. The mean squared error over the hidden patches, in the units that the model was "
            "trained in; 0 would be a perfect guess.",
        ),
        ("Masked", f"{hidden} of {made.mask.size} patches"),
    ]
    if made.statistics == "visible":
        rows.append(
            (
                "Contrast",
                "This model guesses each patch up to its brightness and contrast; both are borrowed from "
                "visible patches nearby, not from the answer.",
            )
        )
    return rows


if __name__ == "__main__":
    st.title("Reconstructions", anchor=False)
    with plain_text.errors_as_notices():
        page()
