"""The browser app: `streamlit run app.py`, or `vitmae-search app`.

Streamlit looks for `app = st.App(...)` in this file's source, so the call must be written out here.
"""

import streamlit as st

from vitmae_search.web.server import app as server

app = st.App(
    server.MAIN_SCRIPT,
    routes=server.routes(),
    middleware=server.middleware(),
    lifespan=server.lifespan,
    on_script_error=server.on_script_error,
)
