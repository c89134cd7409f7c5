"""The server round the pages: what `app.py` hands to Streamlit, and how `vitmae-search app` starts it.

`app` lists routes and middleware: `routes` serves photos and thumbnails by id, `host_guard` refuses requests
that are not for the app, `access_guard` asks for the password, `connections` and `frontend` make answers
faster. `lifespan` runs beside the server, `session` holds what all visitors share, and `launch` starts the
server as a child process.
"""
