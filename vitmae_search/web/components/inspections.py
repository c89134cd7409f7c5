"""What the model sees in the pictures of a visit, kept in the session, and the controls of a view."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vitmae_search.records import Inspection
from vitmae_search.web.components import query_picker
from vitmae_search.web.server.session import library

KEPT = 12
"""Pictures of one visitor, so that a control does not compute them again."""


def inspect(query: query_picker.QueryState) -> Inspection:
    """The picture's inspection, from the session where it has it.

    Args:
        query: The picture.
    """
    kept: dict[str, Inspection] = st.session_state.setdefault("vs_inspections", {})
    if query.key not in kept:
        with st.spinner("Looking…"), query_picker.name_upload_in_errors(query):
            kept[query.key] = library().inspect(query.picture)
        while len(kept) > KEPT:
            kept.pop(next(iter(kept)))
    return kept[query.key]


def choice(name: str, label: str, options: Sequence[str], default: str) -> str:
    """Buttons of which one is chosen, which is kept in the page's address.

    Args:
        name: The address's parameter.
        label: Plain text.
        options: The buttons.
        default: Chosen where the address says nothing.
    """
    key = f"vs_choice_{name}"
    named = st.query_params.get(name, default)
    st.session_state[key] = named if named in options else default
    chosen = st.segmented_control(
        label, options, key=key, required=True, on_change=_store, args=(name, key, default)
    )
    return str(chosen)


def layer_slider(name: str, first: int, depth: int) -> int:
    """A slider for a layer, which is kept in the page's address; the last is the default.

    Args:
        name: The address's parameter.
        first: The lowest layer there is.
        depth: The model's last layer.
    """
    key = f"vs_layer_{name}_{first}"
    text = st.query_params.get(name, "")
    named = int(text) if text.isdecimal() and len(text) < 4 else depth
    st.session_state[key] = min(max(named, first), depth)
    args = (name, key, depth)
    return int(st.slider("Layer", first, depth, key=key, width=260, on_change=_store, args=args))


def keep_patch(kept: str) -> None:
    """Put the patch that a visitor tapped into the address, or take it out.

    Args:
        kept: As `patch_maps.draw` gives it.
    """
    if kept:
        st.query_params["patch"] = kept
    else:
        st.query_params.pop("patch", None)


def _store(name: str, key: str, default: object) -> None:
    value = st.session_state[key]
    if value == default:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(value)
