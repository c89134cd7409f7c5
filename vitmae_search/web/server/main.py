"""The script that Streamlit runs for each visitor and each change: the list of pages and their frame.

It does not lie beside `pages/`: of a folder of that name beside its script, Streamlit makes pages of its own,
without this frame, until the script has run once.
"""

from pathlib import Path

import streamlit as st

from vitmae_search.library import one_version
from vitmae_search.web.components import frame, library_chooser
from vitmae_search.web.server import lifespan
from vitmae_search.web.server.access_guard import COOKIE_PREFIX

_WEB = Path(__file__).resolve().parents[1]
ASSETS, _PAGES = _WEB / "assets", _WEB / "pages"

PAGES = [
    st.Page(_PAGES / "search.py", title="Search", icon=":material/image_search:", default=True),
    st.Page(_PAGES / "browse.py", title="Browse", icon=":material/photo_album:", url_path="browse"),
    st.Page(_PAGES / "map.py", title="Map", icon=":material/scatter_plot:", url_path="map"),
    st.Page(
        _PAGES / "reconstructions.py",
        title="Reconstructions",
        icon=":material/grid_view:",
        url_path="reconstructions",
    ),
    st.Page(_PAGES / "inside.py", title="Inside", icon=":material/visibility:", url_path="inside"),
    st.Page(
        _PAGES / "match.py", title="Match", icon=":material/compare:", url_path="match", visibility="hidden"
    ),
    st.Page(_PAGES / "albums.py", title="Albums", icon=":material/favorite:", url_path="albums"),
    st.Page(
        _PAGES / "duplicates.py", title="Duplicates", icon=":material/filter_none:", url_path="duplicates"
    ),
    st.Page(_PAGES / "library.py", title="Library", icon=":material/photo_library:", url_path="library"),
    st.Page(_PAGES / "training.py", title="Training", icon=":material/model_training:", url_path="training"),
    st.Page(_PAGES / "plugins.py", title="Plugins", icon=":material/extension:", url_path="plugins"),
]

st.set_page_config(page_title="vitmae-search", page_icon=ASSETS / "icon.png", layout="wide")
st.logo(ASSETS / "icon.png", size="medium")
st.html(ASSETS / "page.css")
# The frame is drawn before the page and lies after it, so that the page does not move when its style arrives.
shown = st.container()
frame.draw()
page = st.navigation(PAGES, position="top")
with shown, one_version():
    if any(name.startswith(COOKIE_PREFIX) for name in st.context.cookies):
        st.html('<p class="vs-sign-out"><a href="./sign-out" target="_self">Sign out</a></p>')
    library_chooser.draw()
    page.run()
lifespan.page_shown()
