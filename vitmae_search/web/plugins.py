"""The Plugins page: what can make fingerprints of photos, and the models they know."""

from __future__ import annotations

from html import escape

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import ModelListing, PluginListing
from vitmae_search.settings import settings
from vitmae_search.web import notices
from vitmae_search.web.detail import file_size
from vitmae_search.web.state import library

_CAPABILITIES = {
    "embed": "search",
    "reconstruct": "reconstructions",
    "patch_tokens": "search by region",
}


def page() -> None:
    """The plugins, working or not, then the models."""
    notices.hint(
        "A plugin turns a photo into a fingerprint: a row of numbers that is close to another photo's where "
        "the two look alike. Put your own into the folder below, or install a package that brings one."
    )
    notices.facts([("Your plugins", display_path(settings().plugins))])
    for listing in library().plugins():
        _plugin(listing)
    st.subheader("Models", anchor=False)
    models = library().models()
    if not models:
        notices.hint("No plugin names a model.")
        return
    for model in models:
        _model(model)


def _plugin(listing: PluginListing) -> None:
    with st.container(border=True):
        state = "vs-problem" if listing.error else "vs-good"
        word = "does not load" if listing.error else "ready"
        st.html(
            f'<div class="vs-card"><h3>{escape(listing.title or listing.name)}</h3>'
            f'<span class="vs-badge {state}">{word}</span></div>'
            f'<p class="vs-hint"><code>{escape(listing.name)}</code>'
            f" · {escape(display_path(listing.origin))}</p>"
        )
        if listing.error:
            notices.notice(listing.error, "problem")
            return
        notices.facts([("For", ", ".join(_CAPABILITIES.get(name, name) for name in listing.capabilities))])
        if listing.options:
            with st.expander("Options and their defaults"):
                notices.table(("Option", "Default"), [(k, str(v)) for k, v in listing.options.items()])


def _model(model: ModelListing) -> None:
    sizes = (
        f"{model.image_size} × {model.image_size} pixels" if model.image_size else "",
        f"{model.dimension} numbers a photo" if model.dimension else "",
        _parameters(model.parameters),
        file_size(model.bytes) if model.bytes else "",
    )
    detail = " · ".join(size for size in sizes if size)
    with st.container(border=True):
        notices.card(model.name, detail, badge=model.source)
        if model.note:
            notices.hint(notices.sentence(model.note))


def _parameters(count: int | None) -> str:
    return f"{count / 1e6:.1f} M parameters" if count else ""


if __name__ == "__main__":
    st.title("Plugins", anchor=False)
    with notices.errors_as_notices():
        page()
