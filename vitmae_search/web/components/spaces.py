"""The embedding spaces on the Library page, with buttons to use or drop one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import streamlit as st

from vitmae_search.errors import VitmaeSearchError
from vitmae_search.records import Space
from vitmae_search.web.components import database_wait, index_lag, job_status, plain_text
from vitmae_search.web.server.session import library

INTRO = (
    "A space holds the fingerprints that one model made. Those of different models cannot be compared, "
    "so each model has a space of its own, and searches use the current one."
)
DERIVED = (
    " A space may be made of another one's fingerprints, its features: no photo is read for it, and it "
    "follows them."
)


def draw(spaces: Sequence[Space], *, busy: bool) -> None:
    """Show each space of features, and below it those that are derived from it; one is current.

    Args:
        spaces: The library's spaces.
        busy: Whether a job is running, so that no other can be started.
    """
    st.subheader("Spaces", anchor=False)
    plain_text.hint(INTRO + (DERIVED if any(space.parent_id for space in spaces) else ""))
    parents = {space.parent_id for space in spaces}
    grouped = grouped_by_features(spaces)
    lags = [library().index_lag(space.space_id) for space in grouped]
    for space, lag in zip(grouped, lags, strict=True):
        with st.container(
            border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
        ):
            covered = library().coverage(space.space_id)
            plain_text.card(
                title(space),
                " ".join(
                    [
                        f"{detail(space)}. Searched with {lag.index}.",
                        *([f"{covered.covered}."] if covered else []),
                    ]
                ),
                badge="current" if space.current else None,
            )
            with st.container(horizontal=True, width="content"):
                if covered is not None and space.parent_id is None:
                    _fill_button(space, disabled=busy)
                if not space.current:
                    _buttons(space, has_derived=space.space_id in parents)
    index_lag.draw(spaces, lags)
    if any(lag.index.revision is None for lag in lags):
        database_wait.draw(vectors=True)
    _another_model(disabled=busy)


def _another_model(*, disabled: bool) -> None:
    """Choose a model, whose space is filled while searches go on with the current one."""
    models = _models()
    with st.expander("Another model"):
        plain_text.hint(
            "The photos are read again with it, into a space of its own. Searches go on as they are until "
            "you press Use there."
        )
        chosen = st.selectbox(
            "Model", list(models), index=None, key="vs_fill_model", placeholder="Choose one"
        )
        sent = st.button("Index with it", key="vs_fill", disabled=disabled or chosen is None)
        if sent and chosen is not None:
            _fill(*models[chosen])


def _models() -> dict[str, tuple[str, dict[str, object]]]:
    """Plugin and options of each model on this machine, by what it is shown as."""
    found: dict[str, tuple[str, dict[str, object]]] = {
        f"{model.plugin} · {model.name}": (model.plugin, {"model": model.name})
        for model in library().models()
        if model.source != "hub"
    }
    listed = [one for one in library().plugins() if one.error is None and "model" not in one.options]
    return found | {one.name: (one.name, {}) for one in listed}


def _fill_button(space: Space, *, disabled: bool) -> None:
    if st.button(
        "Fill",
        key=f"vs_fill_{space.space_id}",
        disabled=disabled,
        help="Index what is missing in this space. Searches go on with the current one.",
    ):
        _fill(space.plugin, dict(space.options))


def _fill(plugin: str, options: Mapping[str, object]) -> None:
    """Start the job, and draw the page anew with its progress."""
    try:
        with st.spinner("Starting…"):
            job_status.watch_job(library().fill_space(plugin, options))
    except VitmaeSearchError as error:
        plain_text.queue_notice(plain_text.as_sentence(error), "problem")
    st.rerun(scope="app")


def grouped_by_features(spaces: Sequence[Space]) -> list[Space]:
    """Spaces of features, oldest first, each followed by those derived from it."""
    return sorted(spaces, key=lambda space: (space.features_id, space.parent_id is not None, space.space_id))


def title(space: Space) -> str:
    """A space's number, plugin, model and kind, as plain text."""
    made = "" if space.parent_id is None else f" · {space.kind}"
    return f"{space.space_id}. {space.plugin} · {space.model}{made}"


def detail(space: Space) -> str:
    """What a space holds and since when, as plain text."""
    what = "Features" if space.parent_id is None else f"Made of the features of space {space.parent_id}"
    size = f"{space.vectors:,} pictures, {space.dimension} numbers each"
    return f"{what}: {size}, {job_status.local_time(space.created_at)}"


def _buttons(space: Space, *, has_derived: bool) -> None:
    use = partial(library().use_space, space.space_id)
    with st.container(horizontal=True, width="content"):
        st.button(
            "Use",
            key=f"vs_use_{space.space_id}",
            help="Search in this space from now on.",
            on_click=_apply,
            args=(use, f"Searches now use space {space.space_id}."),
        )
        help_text = (
            "Drop what is made of it first." if has_derived else "Delete its fingerprints. Photos stay."
        )
        if st.button("Drop", key=f"vs_drop_{space.space_id}", help=help_text, disabled=has_derived):
            _confirm_drop(space)


@st.dialog("Drop this space?")
def _confirm_drop(space: Space) -> None:
    again = (
        "to search with this model again, they have to be indexed with it again."
        if space.parent_id is None
        else f"the features that it is made of stay, too, in space {space.parent_id}."
    )
    plain_text.hint(
        f"The {space.vectors:,} fingerprints of {title(space)} are deleted. The photos stay; {again}"
    )
    drop = partial(library().drop_space, space.space_id, even_current=False)
    message = f"Space {space.space_id} is dropped."
    if st.button("Drop it", type="primary", key="vs_drop_yes", on_click=_apply, args=(drop, message)):
        st.rerun()


def _apply(action: Callable[[], None], message: str) -> None:
    """A button's callback: change the catalogue, and queue `message` or the error for the page's top."""
    try:
        action()
    except VitmaeSearchError as error:
        plain_text.queue_notice(plain_text.as_sentence(error), "problem")
    else:
        plain_text.queue_notice(message, "good")
