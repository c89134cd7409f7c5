"""The browser app: Streamlit pages over one shared `Library`, and the routes that serve photos.

`app.py` puts `server` together; `main.py` is the script that Streamlit runs for each visitor, with one
file a page beside it. `launch` starts it all as a child process. Importing this package loads nothing.
"""

__all__: list[str] = []
