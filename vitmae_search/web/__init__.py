"""The browser app: Streamlit pages over one shared `Library`, and the routes that serve photos.

`app.py` in the top folder builds the server from `server.app`. For each visitor, Streamlit runs
`server/main.py`, the frame that lists the pages. `pages/` has one file a page, `components/` the parts that
they are made of, `assets/` their style sheets and scripts, and `server/` what is round them: routes,
middleware, the open `Library`, and the launcher of `vitmae-search app`.

Importing this package loads nothing. It uses `library` and below it nothing but settings, records and errors.
"""

__all__: list[str] = []
