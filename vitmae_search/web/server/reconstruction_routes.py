"""The routes of reconstructions. Their addresses have the parameters of the page's.

- `/reconstruction/guess` is what the page draws while one paints (`components.reconstruction_panels`).
- `/reconstruction/{panel}.png` is a panel to keep, and `sheet.png` all of them.
- `/reconstruction/sweep.gif` is an animation with ever more hidden.
- `/reconstruction/numbers.json` and `numbers.csv` are the mask, the errors and the loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vitmae_search.inspection import series
from vitmae_search.inspection.masks import mask_text
from vitmae_search.library.json_forms import reconstruction_json
from vitmae_search.library.previews import PANELS, reconstruction_png
from vitmae_search.web.components import model_choice, reconstruction_panels
from vitmae_search.web.components.mask_parameters import MaskParameters, read_mask_parameters
from vitmae_search.web.components.query_picker import QueryState, read_picture
from vitmae_search.web.components.reconstruction_cache import (
    PreparedPicture,
    prepared_picture,
    reconstruct,
    sweep,
)
from vitmae_search.web.components.tables import csv_table, patch_rows
from vitmae_search.web.server.routes import INERT_HEADERS, NotThere, list_endpoint

PREFIX = "/reconstruction"
_NO_UPLOAD = "This picture was not kept: the app was started anew, or others came. Choose it again."
_NO_PHOTO = "This photo is not in the library any more. Choose another one."


def reconstruction_routes(base_path: str = "") -> Iterator[Route]:
    """The routes of reconstructions, below `base_path`."""
    yield Route(f"{base_path}{PREFIX}/guess", list_endpoint(_guess), methods=["GET"])
    yield Route(f"{base_path}{PREFIX}/sweep.gif", list_endpoint(_sweep), methods=["GET"])
    yield Route(f"{base_path}{PREFIX}/numbers.json", list_endpoint(_json), methods=["GET"])
    yield Route(f"{base_path}{PREFIX}/numbers.csv", list_endpoint(_csv), methods=["GET"])
    yield Route(f"{base_path}{PREFIX}/{{panel}}.png", list_endpoint(_panel), methods=["GET"])


def _guess(request: Request) -> Response:
    picture, asked = _asked(request.query_params)
    data = reconstruction_panels.encode(reconstruct(picture, asked), soften=_softened(request))
    return _answer(data, "application/octet-stream")


def _panel(request: Request) -> Response:
    panel = request.path_params["panel"]
    if panel not in PANELS:
        raise NotThere
    picture, asked = _asked(request.query_params)
    data = reconstruction_png(reconstruct(picture, asked), panel, soften=_softened(request))
    return _answer(data, "image/png", f"reconstruction-{asked.name}-{panel}.png")


def _sweep(request: Request) -> Response:
    picture, asked = _asked(request.query_params)
    data = series.animation_gif(sweep(picture, asked))
    return _answer(data, "image/gif", f"reconstruction-{asked.name}-sweep.gif")


def _json(request: Request) -> Response:
    picture, asked = _asked(request.query_params)
    made = reconstruct(picture, asked)
    numbers = {"mask_text": mask_text(made.mask), **reconstruction_json(made)}
    return _answer(json.dumps(numbers).encode(), "application/json", f"reconstruction-{asked.name}.json")


def _csv(request: Request) -> Response:
    picture, asked = _asked(request.query_params)
    made = reconstruct(picture, asked)
    data = csv_table(patch_rows({"hidden": made.mask.astype(int), "error": made.error}))
    return _answer(data, "text/csv", f"reconstruction-{asked.name}.csv")


def _softened(request: Request) -> bool:
    return request.query_params.get("soften") != "0"


def _asked(parameters: Mapping[str, str]) -> tuple[PreparedPicture, MaskParameters]:
    """The picture and the mask that an address names."""
    query, model = _query(parameters), model_choice.named_model(parameters)
    if model is None and parameters.get(model_choice.PARAMETER):
        raise NotThere("This model is not on this machine any more. Choose another one.")
    return prepared_picture(query.key, query.picture, model), read_mask_parameters(parameters)


def _query(parameters: Mapping[str, str]) -> QueryState:
    found = read_picture(parameters)
    if found is None:
        raise NotThere(_NO_UPLOAD if "upload" in parameters else _NO_PHOTO)
    return found


def _answer(data: bytes, media_type: str, name: str | None = None) -> Response:
    headers = {**INERT_HEADERS, "Cache-Control": "no-store"}
    if name is not None:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(data, media_type=media_type, headers=headers)
