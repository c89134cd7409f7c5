"""The reconstruction studio: a picture whose squares one hides, and what the model makes of the others.

`web/assets/studio.js` draws it, asks for guesses while one paints (`web/server/reconstruction_routes.py`),
and keeps the state in the page's address.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import streamlit as st

from vitmae_search.library.previews import HEAT_COLORS, panel_png
from vitmae_search.records import Reconstruction
from vitmae_search.web.components.assets import asset

_LONGEST_ADDRESS = 20_000
"""Characters; a mask has one for each four patches."""

_mount = st.components.v2.component(
    "vitmae_search_studio",
    html='<div class="studio"></div>',
    css=asset("studio.css"),
    js=asset("elements.js", "mask_editor.js", "studio.js"),
)


@dataclass(frozen=True, slots=True, eq=False)
class ShownModel:
    """A model whose guesses are shown.

    Attributes:
        name: Plain text.
        made: A reconstruction of the picture by it.
        parameters: What an address of a guess by it has besides the mask: the picture, and the model.
    """

    name: str
    made: Reconstruction
    parameters: dict[str, str]


def draw(models: Sequence[ShownModel], *, picture: str, key: str, live: bool = True) -> None:
    """Show the studio.

    Args:
        models: The one whose squares are painted, and another one beside it, or none.
        picture: Names the picture: while it is the same, what was painted can be undone.
        key: The component's key in the session.
        live: Show guesses while one paints. Otherwise only the mask is painted, and the page runs again.
    """
    data = {
        "models": [_model(each) for each in models],
        "mask": models[0].made.mask.ravel().astype(int).tolist(),
        "colors": HEAT_COLORS.astype(int).tolist(),
        "picture": picture,
        "live": live,
    }
    _draw(data, key, st.query_params.to_dict())


@st.fragment
def _draw(data: dict[str, object], key: str, drawn: dict[str, str]) -> None:
    """A fragment: while one paints, the page does not run again, unless it shows more of the mask."""

    def store() -> None:
        state = st.session_state.get(key)
        sent = None if state is None else state.get("state")
        if isinstance(sent, str) and len(sent) <= _LONGEST_ADDRESS:
            st.query_params.from_dict(dict(parse_qsl(sent, keep_blank_values=True)))

    with st.container(key="vs_studio_area"):
        _mount(key=key, data=data, on_state_change=store)
    if not data["live"] and st.query_params.to_dict() != drawn:
        st.rerun()


def _model(shown: ShownModel) -> dict[str, object]:
    made = shown.made
    (rows, columns), (height, width) = made.mask.shape, made.original.shape[:2]
    photo_height, photo_width = made.photo_shape or (height, width)
    source = base64.b64encode(panel_png(made.original)).decode("ascii")
    return {
        "name": shown.name,
        "rows": rows,
        "columns": columns,
        "width": width,
        "height": height,
        "aspect": round(min(max(photo_width / photo_height, 1 / 3), 3), 4),
        "statistics": made.statistics_text,
        "original": f"data:image/png;base64,{source}",
        "parameters": urlencode(shown.parameters),
    }
