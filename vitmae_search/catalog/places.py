"""Where photos were taken: conditions of a filter, and counts for a map.

Each function takes a connection that is in a transaction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, and_, false, or_, select

from vitmae_search.catalog.database import fetch_tuples
from vitmae_search.catalog.dialects import listed
from vitmae_search.catalog.schema import ContentRow, PhotoRow
from vitmae_search.records import GeoBox, GeoCircle, PlaceCount, SearchFilter

EARTH_RADIUS_KM = 6371.0088
"""The mean radius of the earth; as a sphere it is right to half a percent."""

_CELLS = ((0.001, 3), (0.01, 2), (0.1, 1), (1.0, 0), (5.0, 0))
"""Degrees to which places are rounded, with their digits after the point: the first that gives few enough."""


def asked(where: SearchFilter) -> bool:
    """Return whether a filter says anything of places."""
    return where.box is not None or where.near is not None or where.has_place is not None


def conditions(connection: Connection, where: SearchFilter) -> list[ColumnElement[bool]]:
    """Return what a filter says of places, for contents.

    Args:
        connection: A connection in a transaction.
        where: The filter.
    """
    found: list[ColumnElement[bool]] = []
    if where.has_place is not None:
        found.append(ContentRow.latitude.is_not(None) if where.has_place else ContentRow.latitude.is_(None))
    if where.box is not None:
        found.append(in_box(where.box))
    if where.near is not None:
        found.append(_in_circle(connection, where.near))
    return found


def in_box(box: GeoBox) -> ColumnElement[bool]:
    """Return the condition that a content was taken in a box."""
    east_of, west_of = ContentRow.longitude >= box.west, ContentRow.longitude <= box.east
    between = and_(east_of, west_of) if box.west <= box.east else or_(east_of, west_of)
    # The partial index is used only where the condition says that there is a place.
    return and_(ContentRow.latitude.is_not(None), ContentRow.latitude.between(box.south, box.north), between)


def around(circle: GeoCircle) -> GeoBox:
    """Return a box that holds a circle; all meridians, where a pole is in it."""
    angle = circle.km / EARTH_RADIUS_KM
    height = float(np.degrees(angle)) + 1e-6
    south, north = circle.latitude - height, circle.latitude + height
    if south <= -90 or north >= 90:
        return GeoBox(max(south, -90.0), -180.0, min(north, 90.0), 180.0)
    ratio = np.sin(angle) / np.cos(np.radians(circle.latitude))
    width = float(np.degrees(np.arcsin(min(1.0, ratio)))) + 1e-6
    return GeoBox(south, _wrapped(circle.longitude - width), north, _wrapped(circle.longitude + width))


def _wrapped(longitude: float) -> float:
    """The same meridian from -180 to 180."""
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180


def _in_circle(connection: Connection, circle: GeoCircle) -> ColumnElement[bool]:
    """Return the condition that a content was taken in a circle.

    SQLite may have no sine, so the contents in a box around it are measured here.
    """
    columns = select(ContentRow.content_id, ContentRow.latitude, ContentRow.longitude)
    rows = connection.execute(columns.where(in_box(around(circle)))).all()
    if not rows:
        return false()
    latitude, longitude = (np.radians(np.array([row[i] for row in rows], np.float64)) for i in (1, 2))
    latitude_0, longitude_0 = np.radians([circle.latitude, circle.longitude])
    # The haversine formula, which is exact for small distances too.
    chord = (
        np.sin((latitude - latitude_0) / 2) ** 2
        + np.cos(latitude) * np.cos(latitude_0) * np.sin((longitude - longitude_0) / 2) ** 2
    )
    km = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))
    near = [row.content_id for row, distance in zip(rows, km, strict=True) if distance <= circle.km]
    return ContentRow.content_id.in_(listed(near, integers=True))


def count_places(
    connection: Connection, photo_conditions: list[ColumnElement[bool]], view: GeoBox | None, most: int
) -> list[PlaceCount]:
    """Return how many photos on disk there are at each place; see `Catalog.count_places`.

    Args:
        connection: A connection in a transaction.
        photo_conditions: Those of `photos.filter_conditions`.
        view: Only places in this box.
        most: How many places there may be.
    """
    shown = [ContentRow.latitude.is_not(None)] if view is None else [in_box(view)]
    statement = select(ContentRow.latitude, ContentRow.longitude).select_from(PhotoRow)
    statement = statement.join(ContentRow, ContentRow.content_id == PhotoRow.content_id)
    statement = statement.where(PhotoRow.missing == false(), *photo_conditions, *shown)
    degrees = np.array(fetch_tuples(connection, statement), np.float64).reshape(-1, 2)
    (size, digits), *larger = _CELLS
    cells, numbers = _count_cells(degrees, size)
    while len(cells) > most and larger:
        (size, digits), *larger = larger
        cells, numbers = _count_cells(degrees, size)
    return [
        PlaceCount(round(latitude * size, digits), round(longitude * size, digits), number)
        for (latitude, longitude), number in zip(cells[:most].tolist(), numbers[:most].tolist(), strict=True)
    ]


def _count_cells(degrees: NDArray[np.float64], size: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The cells of a size that places are in, (N, 2) in units of it, and how many are in each.

    Args:
        degrees: (M, 2) latitudes and longitudes.
        size: Of a cell, in degrees.
    """
    parts = degrees / size
    parts = np.copysign(np.floor(np.abs(parts) + 0.5), parts) + 0.0  # halves away from zero, and no -0
    columns = 1 + 2 * np.rint(360 / size)
    cells, numbers = np.unique(parts[:, 0] * columns + parts[:, 1], return_counts=True)
    latitudes = np.rint(cells / columns) + 0.0
    return np.stack([latitudes, cells - latitudes * columns], axis=1), numbers
