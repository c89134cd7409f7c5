"""What the model sees in the pictures of a visit, kept in the session, and the controls of a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import streamlit as st

from vitmae_search.records import Box, Inspection, MatchExplanation, RegionExplanation
from vitmae_search.web.components import query_picker
from vitmae_search.web.components.model_choice import chosen_model, last_written
from vitmae_search.web.components.session_cache import cached
from vitmae_search.web.server.session import library

KEPT_BYTES = 96 << 20
"""What one visitor's inspections may take: some 50 pictures of the bundled model, or two of a ViT-B/16."""


def inspect(query: query_picker.QueryState) -> Inspection:
    """The picture's inspection, from the session where it has it.

    Args:
        query: The picture.
    """

    def compute() -> Inspection:
        with st.spinner("Looking…"), query_picker.name_upload_in_errors(query):
            return library().inspect(query.picture, model=chosen_model())

    return cached("vs_inspections", (query.key, *model_key()), compute, _bytes, KEPT_BYTES)


def explain(
    query: query_picker.QueryState, hit: query_picker.QueryState, space: int | None, layer: int | None
) -> MatchExplanation:
    """Why two pictures match, from the session where it has it.

    Args:
        query: The picture that was searched for.
        hit: The photo that was found.
        space: As for `Library.explain`.
        layer: As for `Library.explain`.
    """

    def compute() -> MatchExplanation:
        with st.spinner("Looking…"), query_picker.name_upload_in_errors(query):
            model = chosen_model()
            return library().explain(query.picture, hit.picture, space=space, layer=layer, model=model)

    def size(found: MatchExplanation) -> int:
        return _bytes(found.query) + _bytes(found.hit)

    key = (query.key, hit.key, *model_key(), space, layer)
    return cached("vs_explanations", key, compute, size, KEPT_BYTES)


def explain_region(
    query: query_picker.QueryState, box: Box, hit: query_picker.QueryState, space: int | None
) -> RegionExplanation:
    """Why a photo was found for a part of a picture, from the session where it has it.

    Args:
        query: The picture.
        box: The part.
        hit: The photo that was found.
        space: As for `Library.explain_region`.
    """
    assert hit.photo is not None
    photo_id = hit.photo.photo_id

    def compute() -> RegionExplanation:
        with st.spinner("Looking…"), query_picker.name_upload_in_errors(query):
            return library().explain_region(query.picture, box, photo_id, space=space)

    def size(found: RegionExplanation) -> int:
        return found.similarity.nbytes + found.query.picture.nbytes + found.hit.picture.nbytes

    key = (query.key, astuple(box), hit.key, str(library().folder), space)
    return cached("vs_region_explanations", key, compute, size, KEPT_BYTES)


def model_key() -> tuple[str, str]:
    """What decides an inspection or reconstruction besides the picture.

    It is the library and its current space, or another model and when its files were written.
    """
    return key_of_model(chosen_model())


def key_of_model(model: str | None) -> tuple[str, str]:
    """What decides an inspection or reconstruction besides the picture, for a model.

    Args:
        model: As `chosen_model` gives it; None is the library's.
    """
    if model is not None:
        return model, last_written(model)
    current = next((space for space in library().spaces() if space.current), None)
    return str(library().folder), "" if current is None else current.fingerprint


def _bytes(made: Inspection) -> int:
    return made.tokens.nbytes + made.attention.nbytes + (0 if made.shares is None else made.shares.nbytes)


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
