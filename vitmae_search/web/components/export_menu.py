"""A menu that writes the photos of a page into a file and downloads it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from vitmae_search.records import Hit, SearchFilter
from vitmae_search.web.server.session import library

_FORMATS = {
    "csv": "CSV, for spreadsheets",
    "json": "JSON",
    "parquet": "Parquet, for pandas",
    "npz": "NPZ, for NumPy",
}


def draw(where: SearchFilter, hits: Sequence[Hit] | None = None) -> None:
    """The menu.

    Args:
        where: Which photos.
        hits: These, with rank and score, in place of photos that pass `where`.
    """
    opened = library()  # the file is made outside of the page's script
    with st.popover("Export", icon=":material/download:"):
        kind = st.selectbox(
            "Format", list(_FORMATS), format_func=_FORMATS.__getitem__, key="vs_export_format"
        )
        vectors = st.checkbox("With their fingerprints (vectors)", key="vs_export_vectors")
        places = st.checkbox(
            "With the places where they were taken",
            key="vs_export_places",
            help="They may say where you live. Without this they are left out.",
        )

        def made() -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"photos.{kind}"
                opened.export(file, where=where, hits=hits, vectors=vectors, places=places)
                return file.read_bytes()

        st.download_button(
            "Download", made, f"photos.{kind}", key="vs_export", on_click="ignore", icon=":material/save:"
        )
