"""The Duplicates page: groups of photos that are nearly the same; and photos that are like no other."""

from __future__ import annotations

from functools import partial

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import DuplicateGroup, DuplicateReport
from vitmae_search.web.components import page_address, plain_text, query_picker, selection
from vitmae_search.web.components.grid import hit_grid, photo_grid
from vitmae_search.web.components.photo_address import photo_parameters
from vitmae_search.web.components.photo_facts import file_size
from vitmae_search.web.server.session import library

PAGE_SIZE = 10
WITHOUT_CALIBRATION = 0.98  # the least score where it was not measured which one means the same photo


UNUSUAL = 48  # how many unusual photos are shown
SURPRISING = 100  # photos that are reconstructed for the view of those that are guessed worst
VIEWS = {"": "Near-duplicates", "unusual": "Unusual photos", "surprising": "Guessed worst"}


def page() -> None:
    """Near-duplicates, or unusual photos."""
    plain_text.show_queued_notice()
    if not library().status().photos:
        plain_text.empty_library()
        return
    view = st.query_params.get("view", "")
    view = view if view in VIEWS else ""
    page_address.show_in("vs_view", view)
    st.segmented_control(
        "What to show",
        list(VIEWS),
        format_func=VIEWS.__getitem__,
        key="vs_view",
        on_change=page_address.store,
        args=("view", "vs_view", "page"),
        label_visibility="collapsed",
    )
    if view:
        _unusual(view)
    else:
        _duplicates()


def _unusual(view: str) -> None:
    if view == "surprising":
        plain_text.hint(
            f"The photos that the model guesses worst from a quarter of their squares, of {SURPRISING} drawn "
            "at random; `vitmae-search unusual --by reconstruction` looks at all. The number is the error."
        )
        with st.spinner("Guessing photos…"):
            found = library().badly_reconstructed(k=UNUSUAL, sample=SURPRISING)
    else:
        plain_text.hint("The photos that are least like any other one. The number is the mean score with 3.")
        with st.spinner("Comparing all photos…"):
            found = library().unusual(k=UNUSUAL)
    hit_grid(found, key="vs_unusual", label="Unusual photos", on_similar=_ask_for, line=False)
    if "vs_unusual_query" in st.session_state:
        st.switch_page("../pages/search.py", query_params=st.session_state.pop("vs_unusual_query"))


def _ask_for(photo_id: int) -> None:
    st.session_state["vs_unusual_query"] = photo_parameters(photo_id)


def _duplicates() -> None:
    """The groups, ten a page."""
    plain_text.hint(
        "Each group begins with the photo to keep: your choice, else the largest, without losses, sharpest. "
        "Nothing is deleted here."
    )
    above = st.container()
    ignored = st.query_params.get("ignored") == "on"
    with st.spinner("Comparing all photos…"):
        found = library().duplicates(min_score=_score(), ignored=ignored)
    with above:
        _controls(found, ignored)
    pages = max(1, -(-len(found.groups) // PAGE_SIZE))
    number = query_picker.page_number("page", pages)
    if not found.groups:
        plain_text.notice("No near-duplicates from this score on.")
    for group in found.groups[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]:
        _group(group)
    query_picker.page_buttons("page", number, number < pages, f"Page {number} of {pages:,}")


def _score() -> float:
    """The score of the address, else the calibrated one of the same photo."""
    try:
        asked = float(st.query_params.get("score", ""))
    except ValueError:
        asked = 0.0
    if 0 < asked <= 1:
        return asked
    calibration = next((space.calibration for space in library().spaces() if space.current), None)
    same = None if calibration is None else calibration.same
    return WITHOUT_CALIBRATION if same is None else same


def _controls(found: DuplicateReport, ignored: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="vs_duplicate_controls"):
        counts = {round(score, 4): count for score, count in found.preview.items()}
        page_address.show_in("vs_duplicate_score", round(found.score, 4))
        st.selectbox(
            "Least score",
            list(counts),
            format_func=lambda score: f"{score:.4f}: {counts.get(score, 0):,} sets",
            key="vs_duplicate_score",
            on_change=page_address.store,
            args=("score", "vs_duplicate_score", "page"),
            width=260,
        )
        st.button(
            "The score of the same photo",
            on_click=page_address.update_address,
            kwargs={"score": None},
            key="vs_same",
        )
        page_address.show_in("vs_ignored", ignored)
        st.toggle("Ignored ones, too", key="vs_ignored", on_change=_store_ignored)
        selection.undo_button()
    seconds = f"{found.seconds:.1f} s"
    plain_text.hint(f"{len(found.groups):,} groups among {found.compared:,} pictures, compared in {seconds}.")


def _store_ignored() -> None:
    page_address.update_address(ignored="on" if st.session_state["vs_ignored"] else None, page=None)


def _group(group: DuplicateGroup) -> None:
    ids = [shown.photo.photo_id for shown in group.photos]
    key = f"vs_group_{ids[0]}"
    chosen: set[int] = st.session_state.setdefault(f"{key}_ids", set())
    chosen &= set(ids)
    photo_grid(
        [shown.photo for shown in group.photos],
        key=key,
        label="A group of near-duplicates, the one to keep first",
        on_pick=lambda photo_id: chosen.symmetric_difference_update({photo_id}),
        start="",
        first=True,
        selected=chosen,
        notes={shown.photo.photo_id: _note(i, group) for i, shown in enumerate(group.photos)},
    )
    copies = [path for shown in group.photos for path in shown.copies]
    if copies:
        plain_text.hint(f"Copies: {', '.join(map(display_path, copies))}")
    others = [photo_id for photo_id in ids if photo_id not in chosen]
    with st.container(horizontal=True, key=f"{key}_actions"):
        st.button(
            "Keep the selected",
            key=f"{key}_keep",
            disabled=not chosen,
            on_click=plain_text.attempt,
            args=(lambda: library().keep(sorted(chosen)),),
        )
        st.button(
            "The selected is no duplicate",
            key=f"{key}_different",
            disabled=len(chosen) != 1 or not others,
            on_click=plain_text.attempt,
            args=(partial(library().not_duplicates, next(iter(chosen), 0), others),),
        )
        st.button(
            "Ignore this group",
            key=f"{key}_ignore",
            disabled=group.ignored or len(ids) < 2,
            on_click=plain_text.attempt,
            args=(partial(library().ignore_duplicates, ids),),
        )


def _note(i: int, group: DuplicateGroup) -> str:
    shown, meta = group.photos[i], group.photos[i].photo.metadata
    word = "keep" if i == 0 else f"{shown.score:.3f}"
    return f"{word} · {meta.width}×{meta.height} {meta.format} · {file_size(shown.photo.size)}"


if __name__ == "__main__":
    st.title("Duplicates", anchor=False)
    with plain_text.errors_as_notices():
        page()
