"""The Plugins page: the plugins that embed photos, and the models that they know."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import ModelListing, PluginListing
from vitmae_search.settings import settings
from vitmae_search.web.components import plain_text
from vitmae_search.web.components.photo_facts import file_size
from vitmae_search.web.server.session import library

_CAPABILITIES = {
    "embed": "search",
    "reconstruct": "reconstructions",
    "classify": "tags",
}

_SOURCES = {"trained": "trained here", "cached": "in the hub's cache", "hub": "on the hub"}


def page() -> None:
    """The plugins, working or not, then the models."""
    plain_text.hint(
        "A plugin turns a photo into a fingerprint: a row of numbers that is close to another photo's where "
        "the two look alike. Put your own into the folder below, or install a package that brings one."
    )
    plain_text.facts([("Your plugins", display_path(settings().plugins))])
    for listing in library().plugins():
        _plugin(listing)
    st.subheader("Models", anchor=False)
    models = library().models()
    if not models:
        plain_text.hint("No plugin names a model.")
        return
    plain_text.hint(
        "To embed photos with one of these, index them with --model and its name; a folder or another name "
        "from the hub will do as well. The command “vitmae-search models --speed” measures how fast those on "
        "this machine are."
    )
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
            plain_text.notice(listing.error, "problem")
            return
        plain_text.facts([("For", ", ".join(_CAPABILITIES.get(name, name) for name in listing.capabilities))])
        if listing.options:
            with st.expander("Options and their defaults"):
                plain_text.table(("Option", "Default"), [(k, str(v)) for k, v in listing.options.items()])


def _model(model: ModelListing) -> None:
    with st.container(border=True):
        plain_text.card(model.name, " · ".join(_facts(model)), badge=_SOURCES.get(model.source, model.source))
        if model.note:
            plain_text.hint(plain_text.as_sentence(model.note))


def _facts(model: ModelListing) -> Iterator[str]:
    if model.image_size:
        yield f"{model.image_size} × {model.image_size} pixels"
    if model.dimension:
        yield f"{model.dimension} numbers a photo"
    if model.parameters:
        yield f"{model.parameters / 1e6:.1f} M parameters"
    if model.bytes:
        yield file_size(model.bytes)
    if model.decoder is not None:
        yield "with a decoder" if model.decoder else "no decoder, so no reconstructions"
    if model.projection:
        yield "with a projection of its own"
    if model.images_per_second:
        rate = model.images_per_second
        yield f"{rate:.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s"


if __name__ == "__main__":
    st.title("Plugins", anchor=False)
    with plain_text.errors_as_notices():
        page()
