"""Which model a page looks with: the library's, or any that is on this machine. It is kept in the address.

The address names a file or folder of this disk, never a model on the hub, so that no link can make this
machine fetch anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from vitmae_search.errors import display_path
from vitmae_search.records import ModelListing
from vitmae_search.web.components import plain_text
from vitmae_search.web.server.session import library

PARAMETER = "model"
OWN = ""
"""The library's model."""
_KEY = "vs_model"


def chosen_model(parameter: str = PARAMETER) -> str | None:
    """The model that the page's address names, a path; None is the library's, and that of a mere request.

    Args:
        parameter: The address's parameter.
    """
    if get_script_run_ctx(suppress_warning=True) is None:
        return None
    return named_model(st.query_params.to_dict(), parameter)


def named_model(parameters: Mapping[str, str], parameter: str = PARAMETER) -> str | None:
    """The model that an address names, a path; None is the library's.

    Args:
        parameters: Of the address.
        parameter: The one that names it.
    """
    named = parameters.get(parameter, OWN)
    return named if named and os.path.isabs(named) and os.path.exists(named) else None


def last_written(model: str) -> str:
    """When the newest file of a model was written: a training writes its own anew.

    Args:
        model: A folder or file.
    """
    files = [model] if os.path.isfile(model) else [file.path for file in os.scandir(model) if file.is_file()]
    return str(max((os.stat(file).st_mtime_ns for file in files), default=0))


def draw(*, decoder: bool = False) -> str | None:
    """A box to choose the model, or to type the path of its folder or weights.

    Args:
        decoder: Offer only those that can reconstruct.

    Returns:
        As `chosen_model`.
    """
    named = st.query_params.get(PARAMETER, OWN)
    model = chosen_model()
    if named and model is None:
        text = f"{display_path(named)} is no folder or file on this machine. This is the library's model."
        plain_text.notice(text, "problem")
    titles = {OWN: "The library's model"}
    for listing in library().models():
        if listing.path is not None and not (decoder and listing.decoder is False):
            titles[listing.path] = _title(listing)
    if model is not None and model not in titles:
        titles[model] = display_path(model)
    st.session_state[_KEY] = model or OWN
    st.selectbox(
        "Model",
        list(titles),
        format_func=lambda one: titles.get(one, display_path(one)),
        key=_KEY,
        accept_new_options=True,
        on_change=_store,
        args=({title: path for path, title in titles.items()},),
        width=280,
        help="One of this machine's: bundled, trained here, or downloaded before. Of another one, type the "
        "path of its folder or weights.",
    )
    return model


def _title(listing: ModelListing) -> str:
    if listing.source != "trained":
        return listing.name
    parent, name = os.path.split(listing.path or "")
    return display_path(f"{name} · {parent}")


def _store(paths: dict[str, str]) -> None:
    value = str(st.session_state[_KEY] or OWN)
    path = paths.get(value, value)  # the browser sends a title back
    if path == OWN:
        st.query_params.pop(PARAMETER, None)
    else:
        st.query_params[PARAMETER] = os.path.normpath(os.path.expanduser(path.strip()))
