"""The app's door: `streamlit run app.py`, or `vitmae-search app`.

Streamlit finds `app` by reading this file, so the call stays written out.
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
