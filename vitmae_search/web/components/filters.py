"""The filters of a search. They are kept in the page's address, and the page says which are on.

`?under=2023&camera=canon&after=2023-05-01&before=2023-06-30&tag=cat&tag_sure=50&alike=same`: a value that
cannot be read counts as none. The widgets show what the address has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Literal

import streamlit as st

from vitmae_search.errors import LibraryError, display_path
from vitmae_search.records import MinScore, SearchFilter
from vitmae_search.web.components import page_address, plain_text, tags
from vitmae_search.web.components.typed_folder import folder_with_photos
from vitmae_search.web.server.session import library

PARAMETERS = ("under", "camera", "after", "before", "tag", "tag_sure", "alike")
# Streamlit's own range is ten years around today; the first photograph is from 1826.
EARLIEST, LATEST = date(1826, 1, 1), date(2100, 1, 1)

STACKS = "stacks"
"""The parameter that is "off" where near-identical photos are shown one by one."""

Alike = Literal["", "same", "alike"]
_ALIKE: dict[Alike, str] = {"": "All photos", "alike": "Those that are alike", "same": "The same photo"}


@dataclass(frozen=True, slots=True)
class Filters:
    """What the page's address asks for.

    Attributes:
        where: Which photos may be hits.
        min_score: The least score of a hit.
        problem: A sentence, where the address asks for what cannot be followed; else empty.
    """

    where: SearchFilter
    min_score: MinScore
    problem: str


def of_address() -> Filters:
    """The filters that the page's address has."""
    after, before = _day_of("after"), _day_of("before")
    tag, min_confidence = tags.tag_of_address("tag")
    under, problem = _text_of("under"), ""
    if under:
        try:
            under = folder_with_photos(under)
        except LibraryError as error:
            problem = plain_text.as_sentence(error)
    where = SearchFilter(
        under=under or None,
        camera=_text_of("camera") or None,
        after=None if after is None else datetime.combine(after, time.min),
        before=None if before is None else datetime.combine(before, time.max),
        tag=tag,
        min_confidence=min_confidence,
    )
    return Filters(where, _alike() or None, problem)


def draw(filters: Filters) -> None:
    """The widgets that change the filters.

    Args:
        filters: What the address has.
    """
    where = filters.where
    _text("In this folder", "under", "a path, or a folder inside an indexed one")
    _text("Camera", "camera", "part of its name")
    _day("Taken from", "after", where.after)
    _day("Taken until", "before", where.before)
    tags.draw_tag_filter("tag", "page")
    choices = _alike_choices()
    if len(choices) > 1:
        page_address.show_in("vs_alike", _alike())
        st.selectbox(
            "How alike",
            choices,
            format_func=_ALIKE.__getitem__,
            key="vs_alike",
            on_change=page_address.store,
            args=("alike", "vs_alike", "page"),
        )
    if "same" in choices:
        page_address.show_in("vs_stacks", are_stacked())
        st.toggle(
            "Stack near-identical photos",
            key="vs_stacks",
            on_change=_store_stacks,
            help="Further frames of a burst, and smaller files of a photo, are one photo with a number.",
        )
    st.button("Clear filters", on_click=clear, key="vs_clear")


def are_stacked() -> bool:
    """Whether near-identical photos are shown as one."""
    return st.query_params.get(STACKS) != "off"


def _store_stacks() -> None:
    page_address.update_address(**{STACKS: None if st.session_state["vs_stacks"] else "off", "page": None})


def show_active(filters: Filters) -> None:
    """A line that says which filters are on, with a button that clears them; nothing where none is."""
    words = [*_in_words(filters)]
    if not words:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="vs_active_filters"):
        plain_text.hint(f"Filters are on. Only photos {', '.join(words)}.")
        st.button("Clear", icon=":material/close:", on_click=clear, key="vs_clear_active")


def clear() -> None:
    """Remove all filters from the address."""
    page_address.update_address(**dict.fromkeys((*PARAMETERS, "page")))


def _in_words(filters: Filters) -> Iterator[str]:
    where = filters.where
    if where.under is not None:
        yield f"in {display_path(where.under)}"
    if where.camera is not None:
        yield f"by a camera with “{display_path(where.camera)}” in its name"
    if where.after is not None:
        yield f"taken from {where.after.day} {where.after:%B %Y}"
    if where.before is not None:
        yield f"taken until {where.before.day} {where.before:%B %Y}"
    if where.tag is not None:
        yield f"tagged “{display_path(where.tag)}”"
        if where.min_confidence:
            yield f"at least {where.min_confidence:.0%} sure"
    if filters.min_score is not None:
        yield "that are the same" if filters.min_score == "same" else "that are alike"


def _alike() -> Alike:
    """Which hits the address asks for, by what their scores mean; empty for all."""
    asked = _text_of("alike")
    return next((choice for choice in _alike_choices() if choice == asked), "")


def _alike_choices() -> list[Alike]:
    """Which hits may be chosen by what their scores mean; only all, where that was not measured."""
    calibration = next((space.calibration for space in library().spaces() if space.current), None)
    choices: list[Alike] = [""]
    if calibration is not None and calibration.alike is not None:
        choices.append("alike")
    if calibration is not None and calibration.same is not None:
        choices.append("same")
    return choices


def _text_of(name: str) -> str:
    return st.query_params.get(name, "").strip()


def _day_of(name: str) -> date | None:
    try:
        day = date.fromisoformat(_text_of(name))
    except ValueError:
        return None
    return day if EARLIEST <= day <= LATEST else None


def _text(label: str, name: str, placeholder: str) -> None:
    key = f"vs_{name}"
    page_address.show_in(key, _text_of(name))
    st.text_input(
        label, key=key, placeholder=placeholder, on_change=page_address.store, args=(name, key, "page")
    )


def _day(label: str, name: str, moment: datetime | None) -> None:
    key = f"vs_{name}"
    page_address.show_in(key, None if moment is None else moment.date())
    st.date_input(
        label,
        value=None,
        min_value=EARLIEST,
        max_value=LATEST,
        key=key,
        on_change=page_address.store,
        args=(name, key, "page"),
    )
