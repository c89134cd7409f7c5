"""The script that Streamlit runs for each visitor and each change: the list of pages and their frame."""

from pathlib import Path

import streamlit as st

from vitmae_search.web.server import lifespan

ASSETS = Path(__file__).resolve().parent / "assets"

PAGES = [
    st.Page("pages/search.py", title="Search", icon=":material/image_search:", default=True),
    st.Page(
        "pages/reconstructions.py",
        title="Reconstructions",
        icon=":material/grid_view:",
        url_path="reconstructions",
    ),
    st.Page("pages/library.py", title="Library", icon=":material/photo_library:", url_path="library"),
    st.Page("pages/training.py", title="Training", icon=":material/model_training:", url_path="training"),
    st.Page("pages/plugins.py", title="Plugins", icon=":material/extension:", url_path="plugins"),
]

st.set_page_config(page_title="vitmae-search", page_icon=ASSETS / "icon.png", layout="wide")
st.logo(ASSETS / "icon.png", size="medium")
st.html(ASSETS / "page.css")
st.navigation(PAGES, position="top").run()
lifespan.page_shown()
