"""The points of the map as the page gets them: one binary answer, drawn by `map.js`.

::

    length, uint32 LE | header, JSON, padded with spaces to a multiple of 4
    N photo ids, uint32 LE | N times x and y, uint16 LE | N groups, uint8

x and y run from -0.5 (0) to 1.5 (65535), since photos that were placed later may lie beside the others. A
group is a place in the header's legend, 255 for photos of none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import cast, get_args

import numpy as np

from vitmae_search.errors import display_path
from vitmae_search.records import MapCluster, MapGrouping, MapGroups, MapMethod, PhotoMap, SearchFilter
from vitmae_search.web.components.photo_tile import photo_tiles
from vitmae_search.web.server.session import library

COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Those of Okabe and Ito (2008), which people who see fewer colours tell apart, too."""

_ORDERED = ((71, 50, 126), (55, 94, 140), (32, 144, 140), (70, 191, 112), (170, 220, 50), (253, 231, 37))
"""The colours of Matplotlib's viridis, without its darkest end: from dark to light for everyone."""

NO_GROUP = 255


def grouping_of(text: str) -> MapGrouping:
    """What a map is coloured by: what an address says, else clusters."""
    return cast(MapGrouping, text) if text in get_args(MapGrouping) else "cluster"


def method_of(text: str) -> MapMethod:
    """How a map is laid out: what an address says, else PCA."""
    return cast(MapMethod, text) if text in get_args(MapMethod) else "pca"


def encode(method: MapMethod, by: MapGrouping, where: SearchFilter) -> bytes:
    """The map in the form above.

    Args:
        method: How it is laid out.
        by: What it is coloured by.
        where: Which photos are shown.
    """
    shown = library().map(where, method=method)
    groups = library().map_groups(shown, by)
    header = {
        "count": len(shown),
        "placed": shown.placed,
        "legend": _legend(shown, groups, by),
        "clusters": _clusters(shown.clusters),
        "by": by,
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    parts = (
        np.uint32(len(text)).astype("<u4"),
        np.frombuffer(text, np.uint8),
        shown.photo_ids.astype("<u4"),
        np.clip((shown.coordinates + 0.5) * 32767.5, 0, 65535).round().astype("<u2"),
        np.where(groups.group_of < 0, NO_GROUP, groups.group_of).astype(np.uint8),
    )
    return b"".join(part.tobytes() for part in parts)


def _legend(shown: PhotoMap, groups: MapGroups, by: MapGrouping) -> list[dict[str, object]]:
    counts = np.bincount(groups.group_of[groups.group_of >= 0], minlength=len(groups.names)).tolist()
    if groups.ordered:
        colors = ordered_colors(len(groups.names))
    elif by == "cluster":
        colors = cluster_colors(shown.clusters)
    else:
        colors = list(COLORS[: len(groups.names)])
    rows = zip(groups.names, colors, counts, strict=True)
    return [{"name": display_path(name), "color": color, "count": count} for name, color, count in rows]


def ordered_colors(count: int) -> list[str]:
    """Colours from dark to light."""
    places = np.linspace(0, len(_ORDERED) - 1, count) if count > 1 else [2.0]
    channels = [np.interp(places, range(len(_ORDERED)), channel) for channel in zip(*_ORDERED, strict=True)]
    return [f"#{round(r):02x}{round(g):02x}{round(b):02x}" for r, g, b in zip(*channels, strict=True)]


def cluster_colors(clusters: Sequence[MapCluster]) -> list[str]:
    """A colour for each cluster: of those there are, the one whose other clusters are farthest away."""
    used: dict[str, list[tuple[float, float]]] = {color: [] for color in COLORS}
    colors = []
    for cluster in clusters:
        x, y = cluster.center
        nearest = {
            color: min((np.hypot(x - a, y - b) for a, b in centers), default=np.inf)
            for color, centers in used.items()
        }
        color = max(nearest, key=lambda one: float(nearest[one]))
        used[color].append(cluster.center)
        colors.append(color)
    return colors


def _clusters(clusters: Sequence[MapCluster]) -> list[dict[str, object]]:
    middles = frozenset(cluster.photo_id for cluster in clusters)
    tiles = {tile["id"]: tile for tile in photo_tiles(library().photos(SearchFilter(photo_ids=middles)))}
    return [
        {
            **tiles.get(cluster.photo_id, {"id": cluster.photo_id, "src": ""}),
            "name": display_path(os.path.basename(cluster.path)),
            "count": cluster.size,
            "x": cluster.center[0],
            "y": cluster.center[1],
            "radius": cluster.radius,
        }
        for cluster in clusters
    ]
