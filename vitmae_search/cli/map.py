"""The command `vitmae-search map`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click

from vitmae_search.cli.common import PathOnDisk, json_option, library_option, open_library, print_json
from vitmae_search.cli.filters import filter_options, read_filter
from vitmae_search.cli.progress import show_progress
from vitmae_search.cli.stop_signal import StopOnSignal
from vitmae_search.errors import StorageError, display_path
from vitmae_search.library import Library
from vitmae_search.records import MapMethod, MapReport, PhotoMap

SHOWN_CLUSTERS = 10


@click.command("map")
@filter_options
@click.option(
    "--method",
    type=click.Choice(get_args(MapMethod)),
    default="pca",
    show_default=True,
    help="pca: along the axes in which photos differ most, at once. tsne: neighbours beside each other, in "
    "minutes.",
)
@click.option("--again", is_flag=True, help="Lay the map out anew, with all photos there are.")
@click.option("--space", type=int, metavar="ID", help="The map of this space instead of the current one.")
@click.option(
    "--csv",
    "table",
    type=PathOnDisk(path_type=Path),
    metavar="FILE",
    help="Write the points to FILE, too.",
)
@click.option("--run-key", hidden=True)
@library_option
@json_option
def command(
    method: MapMethod,
    again: bool,
    space: int | None,
    table: Path | None,
    run_key: str | None,
    library: Path | None,
    as_json: bool,
    **filters: Any,
) -> int:
    """Lay out the library's photos on a map: those that look alike lie near each other.

    The map is kept: photos that are indexed later are placed on it without moving the others. Coordinates
    run from 0 to 1, y upwards. Ctrl-C keeps the map that was there.

    \b
    vitmae-search map --csv map.csv
    vitmae-search map --method tsne
    """
    with open_library(library) as opened:
        where = read_filter(opened, filters)
        if again or not opened.has_map(method, space=space):
            report = _make(opened, method, space, run_key)
            if report.interrupted:
                click.echo("interrupted; the map is as it was", err=True)
                return 130
        shown = opened.map(where, method=method, space=space)
    if table is not None:
        _write(table, shown)
    if as_json and run_key is None:
        print_json(map_json(shown))
    elif not as_json:
        _print(shown)
    return 0


def _make(library: Library, method: MapMethod, space: int | None, run_key: str | None) -> MapReport:
    with show_progress() as progress, StopOnSignal("keeping the map that was there") as stop:
        return library.make_map(
            method, space=space, on_progress=progress, cancelled=stop.requested, run_key=run_key
        )


def map_json(shown: PhotoMap) -> dict[str, object]:
    """The keys of `map --json`."""
    return {
        "method": shown.method,
        "space": shown.space.space_id,
        "photos": len(shown),
        "placed": shown.placed,
        "clusters": [asdict(cluster) for cluster in shown.clusters],
        "points": [
            {"photo_id": photo_id, "path": path, "x": x, "y": y, "cluster": cluster}
            for photo_id, path, x, y, cluster in _rows(shown)
        ],
    }


def _rows(shown: PhotoMap) -> Iterator[tuple[int, str, float, float, int]]:
    coordinates = shown.coordinates.round(6).tolist()
    rows = zip(shown.photo_ids.tolist(), shown.paths, coordinates, shown.cluster_of.tolist(), strict=True)
    return ((photo_id, path, x, y, cluster) for photo_id, path, (x, y), cluster in rows)


def _print(shown: PhotoMap) -> None:
    for cluster in shown.clusters[:SHOWN_CLUSTERS]:
        x, y = cluster.center
        click.echo(f"{cluster.size:8,} around {x:.2f} {y:.2f}, like {display_path(cluster.path)}")
    if len(shown.clusters) > SHOWN_CLUSTERS:
        click.echo(f"         and {len(shown.clusters) - SHOWN_CLUSTERS} smaller clusters")
    placed = f", {shown.placed:,} of them placed after it was made" if shown.placed else ""
    click.echo(f"{len(shown):,} photos on the {shown.method} map{placed}")


def _write(table: Path, shown: PhotoMap) -> None:
    try:
        with table.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["photo_id", "path", "x", "y", "cluster"])
            writer.writerows(_rows(shown))
    except OSError as error:
        raise StorageError(f"{display_path(table)} cannot be written: {error.strerror}.") from error
