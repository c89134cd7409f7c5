"""The Reconstructions page: hide squares of a picture, and see what the model makes of the rest."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from vitmae_search.records import Reconstruction
from vitmae_search.web.components import inspections, model_choice, plain_text, query_picker, studio
from vitmae_search.web.components import reconstruction_series as series
from vitmae_search.web.components.mask_parameters import read_mask_parameters
from vitmae_search.web.components.photo_address import library_parameter
from vitmae_search.web.components.reconstruction_cache import prepared_picture, reconstruct
from vitmae_search.web.server.session import library

INTRO = (
    "The model learned by looking at pictures with most of their patches hidden and guessing the rest. "
    "What it guesses well is what it understands, and that is what the search compares."
)
SAME_MASK = " The squares that you painted stay hidden in the next picture."


def page() -> None:
    """Choose a picture, or see its reconstruction."""
    query = query_picker.current_query()
    if query is None:
        plain_text.hint(INTRO + (SAME_MASK if "mask" in st.query_params else ""))
        query_picker.pick_query("See what the model makes of this picture")
        if not library().count_photos():
            plain_text.empty_library()
        return
    asked = read_mask_parameters(st.query_params.to_dict())
    summary = query_picker.query_header(query, "What the model sees in")
    view = _controls()
    shown, below = st.container(), st.container()
    with below:
        model, second = _models(view)
    with st.spinner("Looking…"), query_picker.name_upload_in_errors(query):
        picture = prepared_picture(query.key, query.picture, model)
        made = reconstruct(picture, asked)
        models = [_shown(query, model, made)]
        if second is not None:
            other = prepared_picture(query.key, query.picture, second)
            models.append(_shown(query, second, reconstruct(other, replace(asked, painted=made.mask))))
    with summary:
        plain_text.hint(_detail(made))
    with shown:
        studio.draw(models, picture=query.key, key="vs_studio", live=view == series.ONE)
        if view != series.ONE:
            with query_picker.name_upload_in_errors(query):
                series.draw(view, picture, made, asked)
    with below:
        _links()


def _shown(query: query_picker.QueryState, model: str | None, made: Reconstruction) -> studio.ShownModel:
    picture = query_picker.parameters()
    picture.pop(model_choice.PARAMETER, None)
    named = {} if model is None else {model_choice.PARAMETER: model}
    of_library = library_parameter()  # the address of an upload does not name it
    return studio.ShownModel(model_choice.model_title(model), made, {**picture, **of_library, **named})


def _controls() -> str:
    """The view that is shown."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="vs_studio_controls"):
        view = inspections.choice("view", "View", series.VIEWS, series.ONE)
        st.button(
            "Another picture",
            icon=":material/arrow_back:",
            on_click=query_picker.clear_query,
            key="vs_new",
            help="What is hidden stays hidden in the next picture.",
        )
    return view


def _models(view: str) -> tuple[str | None, str | None]:
    """The model, if it is not the library's, and one that is shown beside it."""
    with st.container(horizontal=True):
        model = model_choice.draw(decoder=True)
        if view != series.ONE:
            return model, None
        return model, model_choice.draw(
            model_choice.SECOND, label="Another one beside it", own="None", decoder=True
        )


def _links() -> None:
    st.page_link(
        "../pages/inside.py",
        label="Look inside the model",
        icon=":material/visibility:",
        query_params=query_picker.parameters(),
    )


def _detail(made: Reconstruction) -> str:
    height, width = made.original.shape[:2]
    rows, columns = made.mask.shape
    return f"This model looks at {width} × {height} pixels, in {columns} × {rows} patches."


if __name__ == "__main__":
    st.title("Reconstructions", anchor=False)
    with plain_text.errors_as_notices():
        page()
