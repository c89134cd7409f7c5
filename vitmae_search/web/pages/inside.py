"""The Inside page: what each patch of a picture attends to, which look alike, and how photos lie."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from vitmae_search.errors import PhotoError
from vitmae_search.inspection import (
    attention_map,
    feature_colors,
    figures,
    layer_changes,
    mean_attention,
    patch_similarity,
    rollout,
)
from vitmae_search.records import Inspection
from vitmae_search.web.components import (
    inspections,
    model_choice,
    patch_maps,
    plain_text,
    query_picker,
    space_view,
    view_downloads,
)
from vitmae_search.web.server.session import library

INTRO = (
    "The model cuts a picture into squares, and compares each with all others, layer after layer. Here you "
    "see which squares it looks at, and which it takes for the same kind of thing."
)
ATTENTION, COLORS, ALIKE, NEIGHBOURS = "Attention", "Colors", "Alike", "Neighbours"
ALL = "All photos"
SENTENCES = {
    ATTENTION: "Point at a square: the bright ones are those that the model looks at to understand it.",
    COLORS: "Squares with like colors look alike to the model, in all of these photos.",
    ALIKE: "Point at a square: the bright ones are those that the model finds most alike.",
}
FORMULAS = {
    ATTENTION: "Softmax of query · key / √d, for each head of a layer; the mean of heads is their plain "
    "mean. The roll-out multiplies the layers' means, each mixed half and half with the identity for the "
    "residual connection (Abnar and Zuidema, arXiv 2005.00928). `vitmae_search/inspection/attention.py`",
    COLORS: "The patches' features after the layer, each of unit length; their first three principal "
    "components over all pictures shown are red, green and blue, from the 2nd to the 98th percentile. "
    "`vitmae_search/inspection/features.py`",
    ALIKE: "Cosines of the patches' features after the layer, once their mean is taken away. "
    "`vitmae_search/inspection/features.py`",
}
ROLLOUT, MEAN = "All layers", "Mean"
OTHERS = 4  # alike photos that get colors beside the picture


def page() -> None:
    """Choose a picture, look inside the model, or at how all photos lie."""
    query = query_picker.current_query()
    if query is None:
        if st.query_params.get("view") == ALL:
            _all_photos()
        else:
            _pick()
        return
    header = st.container()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button(
            "Another picture", icon=":material/arrow_back:", on_click=query_picker.clear_query, key="vs_new"
        )
        view = inspections.choice("view", "View", (ATTENTION, COLORS, ALIKE, NEIGHBOURS), ATTENTION)
        if view == NEIGHBOURS:
            _all_photos_button("All photos at once")
    if view == NEIGHBOURS:
        with header, query_picker.query_header(query, "Neighbours of"):
            plain_text.hint("How it lies among the photos of the library.")
        space_view.draw_photo(query)
        return
    with header:
        summary = query_picker.query_header(query, "How the model looks at")
    model_choice.draw()
    made = inspections.inspect(query)
    rows, columns = made.grid
    heads = made.attention.shape[1]
    with summary:
        plain_text.hint(f"{columns} × {rows} squares, {len(made.attention)} layers of {heads} heads.")
    if view == ATTENTION:
        _attention(query, made)
        return
    layer = inspections.layer_slider("layer", 0, len(made.attention))
    plain_text.hint(SENTENCES[view])
    if view == COLORS:
        _colors(query, made, layer)
    else:
        _alike(query, made, layer)
    _explain(view)


def _pick() -> None:
    plain_text.hint(INTRO)
    if library().count_photos():
        _all_photos_button("How all photos lie among each other")
    query_picker.pick_query("Look at this picture as the model does")
    if not library().count_photos():
        plain_text.empty_library()


def _all_photos() -> None:
    plain_text.heading("How all photos lie among each other")
    st.button("One picture", icon=":material/arrow_back:", on_click=query_picker.clear_query, key="vs_new")
    space_view.draw_space()


def _all_photos_button(label: str) -> None:
    st.button(label, icon=":material/scatter_plot:", on_click=_show_all, key="vs_all")


def _show_all() -> None:
    """A callback: all photos, in the space that is shown."""
    kept = {name: st.query_params[name] for name in ("space", "before", "k") if name in st.query_params}
    st.query_params.from_dict({"view": ALL, **kept})


def _attention(query: query_picker.QueryState, made: Inspection) -> None:
    heads = [str(head) for head in range(1, made.attention.shape[1] + 1)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        head = inspections.choice("head", "Head", (ROLLOUT, MEAN, *heads), ROLLOUT)
        layer = None if head == ROLLOUT else inspections.layer_slider("layer", 1, len(made.attention))
    if layer is None:
        flow = rollout(made)
    else:
        flow = mean_attention(made, layer, None if head == MEAN else int(head))
    plain_text.hint(SENTENCES[ATTENTION])
    _draw(
        query,
        made,
        flow[1:, 1:],
        attention_map(made, flow),
        "attention of the square",
        "of the whole picture",
    )
    _explain(ATTENTION)
    numbers = {"grid": list(made.grid), "head": head, "layer": layer}
    source = _kept_patch(made)
    view_downloads.draw(
        "attention",
        lambda: {
            **numbers,
            "whole": attention_map(made, flow).tolist(),
            "attention": flow[1:, 1:].tolist(),
        },
        lambda: figures.attention_figure(made, layer, source or "cls"),
    )


def _alike(query: query_picker.QueryState, made: Inspection, layer: int) -> None:
    _draw(query, made, patch_similarity(made, made, layer), None, "cosine", "", rows=False)
    plain_text.facts([("This layer changes", _changes(made, layer))])
    patch = _kept_patch(made) or (made.grid[0] // 2, made.grid[1] // 2)
    view_downloads.draw(
        "alike",
        lambda: {
            "grid": list(made.grid),
            "layer": layer,
            "cosines": patch_similarity(made, made, layer).tolist(),
            "changes": layer_changes(made).tolist(),
        },
        lambda: figures.similarity_figure(made, layer, patch),
    )


def _kept_patch(made: Inspection) -> tuple[int, int] | None:
    """Row and column of the square that the address names."""
    number = st.query_params.get("patch", "").removeprefix("0-")
    if not number.isdecimal() or len(number) > 6 or int(number) >= made.grid[0] * made.grid[1]:
        return None
    row, column = divmod(int(number), made.grid[1])
    return row, column


def _changes(made: Inspection, layer: int) -> str:
    if layer == 0:
        return "nothing yet: these are the squares with their places."
    share = float(layer_changes(made)[layer - 1])
    return f"{share:.3f}: 1 - the mean cosine of a square before and after it."


def _draw(
    query: query_picker.QueryState,
    made: Inspection,
    matrix: NDArray[np.float32],
    values: NDArray[np.float32] | None,
    unit: str,
    map_unit: str,
    *,
    rows: bool = True,
) -> None:
    side = patch_maps.PatchedPicture(
        made.picture,
        made.grid,
        "As the model sees it",
        f"{made.picture.shape[1]} × {made.picture.shape[0]} pixels.",
        f"{query.name} at the model's size, in {made.grid[0]} rows and {made.grid[1]} columns of squares",
        values,
    )
    patch_maps.draw(
        [side],
        matrix,
        key="vs_inside",
        unit=unit,
        kept=st.query_params.get("patch", ""),
        on_keep=inspections.keep_patch,
        map_unit=map_unit,
        row_scale=rows,
    )


def _colors(query: query_picker.QueryState, made: Inspection, layer: int) -> None:
    shown = [(query.name, made)]
    if library().count_photos():
        hits = library().search_examples([query.picture], k=OTHERS + 1).hits
        others = [query_picker.QueryState(photo=hit.photo) for hit in hits if hit.photo != query.photo]
        for other in others[:OTHERS]:
            with suppress(PhotoError):  # its file may be away
                shown.append((other.name, inspections.inspect(other)))
    colors = feature_colors([each for _, each in shown], layer)
    patch_maps.draw_colors(
        [(name, each.picture, found) for (name, each), found in zip(shown, colors, strict=True)]
    )
    view_downloads.draw(
        "colors",
        lambda: {
            "layer": layer,
            "pictures": [
                {"name": name, "colors": found.tolist()}
                for (name, _), found in zip(shown, colors, strict=True)
            ],
        },
        lambda: figures.features_figure([each for _, each in shown], [layer]),
    )


def _explain(view: str) -> None:
    with st.expander("How this is computed"):
        st.markdown(FORMULAS[view])


if __name__ == "__main__":
    st.title("Inside", anchor=False)
    with plain_text.errors_as_notices():
        page()
