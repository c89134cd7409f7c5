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
from vitmae_search.library.embedders import DEFAULT_PLUGIN
from vitmae_search.records import ModelListing
from vitmae_search.web.components import plain_text
from vitmae_search.web.server.session import library

PARAMETER = "model"
OWN = ""
"""The library's model."""
SECOND = "second"
"""The parameter of a model that is shown beside the first."""
_WEIGHTS_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth"}
_CONFIG_NAMES = {"config.json", "preprocessor_config.json"}


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
    """When the newest of a model's own files was written: a training writes its own anew.

    Its log and pictures do not count. Of what cannot be read nothing is known; whoever loads the model says
    why.

    Args:
        model: A folder or file.
    """
    try:
        files = [model] if os.path.isfile(model) else _model_files(model)
    except OSError:
        return ""
    return str(max(map(_written, files), default=0))


def _model_files(folder: str) -> list[str]:
    with os.scandir(folder) as found:
        return [file.path for file in found if _is_model_file(file.name)]


def _is_model_file(name: str) -> bool:
    return name in _CONFIG_NAMES or os.path.splitext(name)[1] in _WEIGHTS_SUFFIXES


def _written(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:  # it was replaced meanwhile
        return 0


def draw(
    parameter: str = PARAMETER,
    *,
    label: str = "Model",
    own: str = "The library's model",
    decoder: bool = False,
) -> str | None:
    """A box to choose the model, or to type the path of its folder or weights.

    Args:
        parameter: The address's parameter that names it.
        label: Plain text.
        own: What it says where the address names none.
        decoder: Offer only those that can reconstruct.

    Returns:
        As `chosen_model`.
    """
    named, key = st.query_params.get(parameter, OWN), f"vs_{parameter}"
    model = chosen_model(parameter)
    if named and model is None:
        text = f"{display_path(named)} is no folder or file on this machine. {label}: {own}."
        plain_text.notice(text, "problem")
    titles = {OWN: own}
    for listing in library().models():
        usable = listing.plugin == DEFAULT_PLUGIN and not (decoder and listing.decoder is False)
        if listing.path is not None and usable:
            titles[listing.path] = _title(listing)
    if model is not None and model not in titles:
        titles[model] = display_path(model)
    st.session_state[key] = model or OWN
    st.selectbox(
        label,
        list(titles),
        format_func=lambda one: titles.get(one, display_path(one)),
        key=key,
        accept_new_options=True,
        on_change=_store,
        args=(parameter, key, {title: path for path, title in titles.items()}),
        width=280,
        help="One of this machine's: bundled, trained here, or downloaded before. Of another one, type the "
        "path of its folder or weights.",
    )
    return model


def model_title(model: str | None) -> str:
    """A model's name, as plain text.

    Args:
        model: As `chosen_model` gives it.
    """
    return "the library's model" if model is None else display_path(os.path.basename(model))


def _title(listing: ModelListing) -> str:
    if listing.source != "trained":
        return listing.name
    parent, name = os.path.split(listing.path or "")
    return display_path(f"{name} · {parent}")


def _store(parameter: str, key: str, paths: dict[str, str]) -> None:
    value = str(st.session_state[key] or OWN)
    path = paths.get(value, value)  # the browser sends a title back
    if path == OWN:
        st.query_params.pop(parameter, None)
    else:
        st.query_params[parameter] = os.path.normpath(os.path.expanduser(path.strip()))
