"""The map of a library: where photos lie, in which clusters, how they are grouped, and what an area holds."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog
from vitmae_search.catalog.points import Points
from vitmae_search.errors import LibraryError
from vitmae_search.indexing.job import ProgressReporter
from vitmae_search.library.jobs import recorded_in_background
from vitmae_search.records import (
    JobProgress,
    MapCluster,
    MapGrouping,
    MapGroups,
    MapMethod,
    MapReport,
    PhotoMap,
    SearchFilter,
    Space,
)
from vitmae_search.vectors.layout import Layout, LayoutCancelled
from vitmae_search.vectors.map_cache import MapCache

MOST_GROUPS = 7
"""Folders or tags that get a colour of their own: so many colours are told apart by everyone."""
MOST_DATES = 12
_MONTHS_UNTIL = 12  # months: photos of a longer time are grouped by years


def photo_map(
    catalog: Catalog, maps: MapCache, space: Space, method: MapMethod, where: SearchFilter
) -> PhotoMap | None:
    """The map of a space; see `Library.map`.

    Args:
        catalog: Has the photos.
        maps: Has the layouts.
        space: The space.
        method: How the map is laid out.
        where: Which photos are shown.

    Returns:
        The map, None where it was not made yet and takes minutes.
    """
    layout = maps.open(catalog.vector_source(space.space_id), method)
    if layout is None:
        return None
    points = catalog.points(space.space_id, where)
    rows, found = _rows_of(layout, points)
    photo_ids = points.photo_ids[found]
    paths = tuple(points.paths[place] for place in found.tolist())
    coordinates = _unit(layout)[rows]
    cluster_of, clusters = _clusters(layout, rows, coordinates, photo_ids, paths)
    return PhotoMap(
        method,
        space,
        photo_ids,
        points.content_ids[found],
        coordinates,
        cluster_of,
        points.moments[found],
        paths,
        clusters,
        int((~layout.fitted[rows]).sum()),
    )


def make_map(
    catalog: Catalog,
    maps: MapCache,
    space: Space,
    method: MapMethod,
    *,
    on_progress: Callable[[JobProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    run_key: str | None = None,
) -> MapReport:
    """Lay out the photos of a space anew; see `Library.make_map`.

    Args:
        catalog: Has the vectors.
        maps: Where the layout is kept.
        space: The space.
        method: How.
        on_progress: Called at each step.
        cancelled: Asked again and again.
        run_key: The key of its row among the jobs; None records nothing.
    """
    started = time.perf_counter()

    def run(write: Callable[[JobProgress], None], stop: Callable[[], bool]) -> MapReport:
        def show(progress: JobProgress) -> None:
            write(progress)
            if on_progress is not None:
                on_progress(progress)

        reporter = ProgressReporter(show)
        points, interrupted = 0, False
        try:
            layout = maps.make(
                catalog.vector_source(space.space_id),
                method,
                on_step=lambda done, total: reporter.report("mapping", done, total),
                cancelled=stop,
            )
            points = len(layout.ids)
        except LayoutCancelled:
            interrupted = True
        return MapReport(method, space.space_id, points, time.perf_counter() - started, interrupted)

    arguments = {"method": method, "space": space.space_id}
    return recorded_in_background(
        catalog.folder, run_key, "map", arguments, run, cancelled, catalog=catalog.address
    )


def _rows_of(layout: Layout, points: Points) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of the layout that have a point, and these points."""
    _, rows, found = np.intersect1d(layout.ids, points.embedding_ids, return_indices=True)
    return rows, found


def _unit(layout: Layout) -> NDArray[np.float32]:
    """The coordinates of a layout, moved and scaled so that its box lies in 0 to 1; its shape stays."""
    low, high = layout.box
    scale = max(float((high - low).max()), 1e-9)
    unit: NDArray[np.float32] = ((layout.coordinates - (low + high) / 2) / scale + 0.5).astype(np.float32)
    return unit


def _clusters(
    layout: Layout,
    rows: NDArray[np.int64],
    coordinates: NDArray[np.float32],
    photo_ids: NDArray[np.int64],
    paths: Sequence[str],
) -> tuple[NDArray[np.int16], tuple[MapCluster, ...]]:
    """The clusters of those that are shown, the largest first, and which one each is in."""
    clusters, scores = layout.clusters[rows], layout.scores[rows]
    numbers, counts = np.unique(clusters, return_counts=True)
    found: list[MapCluster] = []
    places = np.zeros(int(numbers.max(initial=0)) + 1, np.int16)
    for place, number in enumerate(numbers[np.argsort(-counts, kind="stable")].tolist()):
        members = np.flatnonzero(clusters == number)
        middle = members[scores[members].argmax()]
        center = np.median(coordinates[members], axis=0)
        radius = np.quantile(np.linalg.norm(coordinates[members] - center, axis=1), 0.8)
        x, y = center.tolist()
        found.append(MapCluster(int(photo_ids[middle]), paths[middle], len(members), (x, y), float(radius)))
        places[number] = place
    return places[clusters], tuple(found)


# Groups -----------------------------------------------------------------------------------------------------


def map_groups(catalog: Catalog, shown: PhotoMap, by: MapGrouping) -> MapGroups:
    """Group the photos of a map, to colour them; see `Library.map_groups`.

    Args:
        catalog: Has the tags.
        shown: The map.
        by: By what.
    """
    if by == "cluster":
        names = tuple(os.path.basename(cluster.path) for cluster in shown.clusters)
        return MapGroups(names, shown.cluster_of, False)
    if by == "date":
        return _by_date(shown.moments)
    if by == "folder":
        return _largest(_folders(shown.paths))
    tags = catalog.surest_tags()
    return _largest([tags.get(number) for number in shown.content_ids.tolist()])


def _largest(values: Sequence[str | None]) -> MapGroups:
    """A group for each of the most frequent values."""
    counts = Counter(value for value in values if value is not None)
    names = tuple(sorted(counts, key=lambda name: (-counts[name], name))[:MOST_GROUPS])
    places: dict[str | None, int] = {name: place for place, name in enumerate(names)}
    return MapGroups(names, np.array([places.get(value, -1) for value in values], np.int16), False)


def _folders(paths: Sequence[str]) -> list[str | None]:
    """For each file the folder that tells it from others: the first one below what all have in common."""
    folders = [os.path.dirname(path) for path in paths]
    distinct = set(folders)
    if len(distinct) < 2:
        return [os.path.basename(folder) or folder for folder in folders]
    common = os.path.commonpath(distinct).rstrip(os.sep)
    names: dict[str, str | None] = {}
    for folder in distinct:
        inside = folder[len(common) :].strip(os.sep).split(os.sep)[0]
        names[folder] = inside or os.path.basename(common) or common
    return [names[folder] for folder in folders]


def _by_date(moments: NDArray[np.float64]) -> MapGroups:
    """Months, years, or spans of years, so that there are few."""
    if not len(moments):
        return MapGroups((), np.empty(0, np.int16), True)
    days = moments.astype("datetime64[s]")
    months = days.astype("datetime64[M]").astype(np.int64)
    if np.ptp(months) < _MONTHS_UNTIL:
        values = months - months.min()
        first = months.min()
        names = [str(np.datetime64(int(first + n), "M")) for n in range(int(values.max()) + 1)]
        return MapGroups(tuple(names), values.astype(np.int16), True)
    years = days.astype("datetime64[Y]").astype(np.int64) + 1970
    width = -(-int(np.ptp(years) + 1) // MOST_DATES)
    values = (years - years.min()) // width
    starts = [int(years.min()) + n * width for n in range(int(values.max()) + 1)]
    names = [str(year) if width == 1 else f"{year}–{year + width - 1}" for year in starts]
    return MapGroups(tuple(names), values.astype(np.int16), True)


# Areas ------------------------------------------------------------------------------------------------------


def inside(shown: PhotoMap, corners: Sequence[tuple[float, float]]) -> NDArray[np.int64]:
    """The ids of the photos inside a polygon on a map; see `Library.map_area`.

    Args:
        shown: The map.
        corners: The polygon's corners; the last one is joined with the first.

    Raises:
        LibraryError: There are fewer than three corners.
    """
    if len(corners) < 3:
        raise LibraryError("an area of the map has at least three corners")
    x, y = shown.coordinates.T.astype(np.float64)
    odd = np.zeros(len(x), np.bool_)
    for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        # A ray to the right crosses the outline an odd number of times from inside.
        crosses = (y1 > y) != (y2 > y)
        if y1 != y2:
            odd ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    found: NDArray[np.int64] = shown.photo_ids[odd]
    return found


def moment_text(moment: float) -> str:
    """A moment of a map as an ISO date and time."""
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
