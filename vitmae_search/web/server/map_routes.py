"""The routes of the map.

- `/map/points` is the map that an address asks for (`components.map_points`).
- `/map/photos?ids=1,2,3` is JSON: names and thumbnails of photos, as grids have them.
- `/map/area.csv?area=...` is the photos of an area with their coordinates, to keep.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vitmae_search.records import SearchFilter
from vitmae_search.web.components import map_area, map_points
from vitmae_search.web.components.filter_parameters import read_filters
from vitmae_search.web.components.photo_tile import photo_tiles
from vitmae_search.web.server.routes import (
    INERT_HEADERS,
    NotThere,
    json_response,
    list_endpoint,
    number_of,
)
from vitmae_search.web.server.session import library

MOST_PHOTOS = 120
"""How many photos may be asked for at once."""


def map_routes(base_path: str = "") -> Iterator[Route]:
    """The routes of the map, below `base_path`."""
    yield Route(base_path + "/map/points", list_endpoint(_points), methods=["GET"])
    yield Route(base_path + "/map/photos", list_endpoint(_photos), methods=["GET"])
    yield Route(base_path + "/map/area.csv", list_endpoint(_area), methods=["GET"])


def _points(request: Request) -> Response:
    parameters = dict(request.query_params)
    asked = read_filters({name: value for name, value in parameters.items() if name != "area"})
    if asked.problem:
        raise NotThere
    method = map_points.method_of(parameters.get("map", ""))
    by = map_points.grouping_of(parameters.get("color", ""))
    data = map_points.encode(method, by, asked.where)
    headers = {**INERT_HEADERS, "Cache-Control": "no-store"}
    return Response(data, media_type="application/octet-stream", headers=headers)


def _photos(request: Request) -> Response:
    asked = [number_of(text) for text in request.query_params.get("ids", "").split(",")[:MOST_PHOTOS]]
    ids = [number for number in asked if number is not None]
    found = {photo.photo_id: photo for photo in library().photos(SearchFilter(photo_ids=frozenset(ids)))}
    return json_response({"photos": photo_tiles(found[number] for number in ids if number in found)})


def _area(request: Request) -> Response:
    parameters = dict(request.query_params)
    area = map_area.read(parameters.get("area", ""))
    asked = read_filters(parameters)
    if area is None or asked.problem:
        raise NotThere
    shown = library().map(asked.where, method=area[0])
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["photo_id", "path", "x", "y"])
    points = zip(shown.photo_ids.tolist(), shown.paths, shown.coordinates.tolist(), strict=True)
    writer.writerows((photo_id, path, round(x, 6), round(y, 6)) for photo_id, path, (x, y) in points)
    headers = {
        **INERT_HEADERS,
        "Cache-Control": "no-store",
        "Content-Disposition": 'attachment; filename="area.csv"',
    }
    return Response(
        stream.getvalue().encode("utf-8", "surrogateescape"), media_type="text/csv", headers=headers
    )
