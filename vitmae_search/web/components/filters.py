"""The filters of a page: widgets for what is typed, beside the chips of `filter_bar`.

They are kept in the page's address (`filter_parameters`), and the widgets show what the address has.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import streamlit as st

from vitmae_search.filter_values import EARLIEST
from vitmae_search.web.components import page_address, tags
from vitmae_search.web.components.filter_parameters import (
    LATEST,
    PARAMETERS,
    Alike,
    Filters,
    alike_choices,
    read_alike,
    read_filters,
)

STACKS = "stacks"
"""The parameter that is "off" where near-identical photos are shown one by one."""

_ALIKE: dict[Alike, str] = {"": "All photos", "alike": "Those that are alike", "same": "The same photo"}


def of_address() -> Filters:
    """The filters that the page's address has."""
    return read_filters(st.query_params.to_dict())


def draw(filters: Filters) -> None:
    """The widgets that change the filters.

    Args:
        filters: What the address has.
    """
    where = filters.where
    _text("In this folder", "under", "a path, or a folder inside an indexed one")
    _text("Camera", "camera", "part of its name")
    _text("Lens", "lens", "part of its name")
    _text("Size of the file in MB", "size", "from-to, such as 1-5 or 20-")
    _day("Taken from", "after", where.after)
    _day("Taken until", "before", where.before)
    tags.draw_tag_filter("tag", "page")
    choices = alike_choices()
    if len(choices) > 1:
        page_address.show_in("vs_alike", read_alike(st.query_params.to_dict()))
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


def clear() -> None:
    """Remove all filters from the address."""
    page_address.update_address(**dict.fromkeys((*PARAMETERS, "page")))


def are_stacked() -> bool:
    """Whether near-identical photos are shown as one."""
    return read_stacks(st.query_params.to_dict())


def read_stacks(parameters: Mapping[str, str]) -> bool:
    """Whether an address asks for near-identical photos as one."""
    return parameters.get(STACKS) != "off"


def _store_stacks() -> None:
    page_address.update_address(**{STACKS: None if st.session_state["vs_stacks"] else "off", "page": None})


def _text(label: str, name: str, placeholder: str) -> None:
    key = f"vs_{name}"
    page_address.show_in(key, st.query_params.get(name, "").strip())
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
