"""Further pictures of a query: photos that hits should be more like, or less like.

They are kept in the page's address, each with its weight where that is not 1: `?more=12_15x2&less=9`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal

import streamlit as st

from vitmae_search.records import Photo
from vitmae_search.web.components import page_address
from vitmae_search.web.components.photo_address import library_parameter, thumb_url
from vitmae_search.web.components.photo_tile import photo_name
from vitmae_search.web.server.session import library

Kind = Literal["more", "less"]

PARAMETERS: tuple[Kind, Kind] = ("more", "less")
MOST = 20
"""Pictures of a kind; an address has no room for many more."""
WEIGHTS = (0.5, 1.0, 2.0, 4.0)

_ITEM = re.compile(r"(\d{1,18})(?:x(\d{1,4}(?:\.\d{1,4})?))?")
_WORDS = {"more": "Also like", "less": "Less like"}


@dataclass(frozen=True, slots=True)
class PhotoExample:
    """A photo of the library and its weight in the query."""

    photo: Photo
    weight: float = 1.0


def of_address(kind: Kind) -> list[PhotoExample]:
    """The pictures that the page's address has; those that the library does not have are left out."""
    return read_examples(st.query_params.to_dict(), kind)


def read_examples(parameters: Mapping[str, str], kind: Kind) -> list[PhotoExample]:
    """The pictures that an address has; those that the library does not have are left out.

    Args:
        parameters: The address's parameters.
        kind: What hits should be to them.
    """
    found = (_ITEM.fullmatch(item) for item in parameters.get(kind, "").split("_"))
    weights = {int(item[1]): float(item[2] or 1) for item in found if item and float(item[2] or 1)}
    photos = {photo_id: library().photo(photo_id) for photo_id in list(weights)[:MOST]}
    return [PhotoExample(photo, weights[number]) for number, photo in photos.items() if photo is not None]


def weighted(kind: Kind) -> list[tuple[int, float]]:
    """The pictures that the page's address has, as `Library.search_examples` takes them."""
    return [(one.photo.photo_id, one.weight) for one in of_address(kind)]


def add(kind: Kind, photo_ids: Iterable[int]) -> None:
    """Add photos to the query; one that was among the others changes sides.

    Args:
        kind: What hits should be to them.
        photo_ids: The photos.
    """
    new = dict.fromkeys(photo_ids)
    both = {side: [one for one in of_address(side) if one.photo.photo_id not in new] for side in PARAMETERS}
    photos = [photo for photo in map(library().photo, new) if photo is not None]
    both[kind] += [PhotoExample(photo) for photo in photos]
    _store(both["more"][-MOST:], both["less"][-MOST:])


def draw() -> None:
    """The pictures with their weights, and a button that takes each one out; nothing where there are none."""
    for kind in PARAMETERS:
        examples = of_address(kind)
        if not examples:
            continue
        with st.container(horizontal=True, vertical_alignment="center", key=f"vs_examples_{kind}"):
            st.html(f'<span class="vs-hint">{_WORDS[kind]}</span>', width="content")
            for one in examples:
                _draw_one(kind, one)


def _draw_one(kind: Kind, one: PhotoExample) -> None:
    name, photo_id = photo_name(one.photo), one.photo.photo_id
    source, title = escape(thumb_url(one.photo), quote=True), escape(name, quote=True)
    st.html(f'<img class="vs-example" src="{source}" alt="{title}" title="{title}">', width="content")
    key = f"vs_weight_{kind}_{photo_id}"
    page_address.show_in(key, one.weight)
    st.selectbox(
        "How much it counts",
        sorted({*WEIGHTS, one.weight}),
        format_func=lambda weight: f"× {weight:g}",
        key=key,
        on_change=_reweigh,
        args=(kind, photo_id, key),
        label_visibility="collapsed",
        width=88,
    )
    st.button(
        "Take out",
        icon=":material/close:",
        key=f"vs_example_out_{kind}_{photo_id}",
        on_click=_remove,
        args=(kind, photo_id),
        type="tertiary",
    )


def _reweigh(kind: Kind, photo_id: int, key: str) -> None:
    weight = st.session_state[key]
    _replace(kind, photo_id, [weight])


def _remove(kind: Kind, photo_id: int) -> None:
    _replace(kind, photo_id, [])


def _replace(kind: Kind, photo_id: int, weights: list[float]) -> None:
    """Give an example another weight, or take it out."""
    both = {side: of_address(side) for side in PARAMETERS}
    both[kind] = [
        PhotoExample(one.photo, weight)
        for one in both[kind]
        for weight in (weights if one.photo.photo_id == photo_id else [one.weight])
    ]
    _store(both["more"], both["less"])


def text_of(weighted: Iterable[tuple[int, float]]) -> str:
    """Photos with their weights, as the address has them."""
    return "_".join(
        f"{photo_id}" if weight == 1 else f"{photo_id}x{weight:g}" for photo_id, weight in weighted
    )


def _store(more: Iterable[PhotoExample], less: Iterable[PhotoExample]) -> None:
    texts = {
        kind: text_of((one.photo.photo_id, one.weight) for one in side)
        for kind, side in zip(PARAMETERS, (more, less), strict=True)
    }
    changes = {kind: text or None for kind, text in texts.items()}
    page_address.update_address(**changes, page=None, **library_parameter())
