"""The command `vitmae-search export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vitmae_search.cli.common import (
    PathOnDisk,
    device_options,
    json_option,
    library_option,
    open_library,
    print_json,
)
from vitmae_search.cli.filters import filter_options, read_filter
from vitmae_search.cli.pictures import Examples, read_examples
from vitmae_search.errors import display_path


@click.command("export")
@click.argument("output", type=PathOnDisk(path_type=Path))
@click.option(
    "--like",
    "images",
    multiple=True,
    metavar="IMAGE",
    type=click.Path(),
    callback=read_examples,
    help="Export the hits of a search for it, with their scores. May be repeated.",
)
@click.option("--less", multiple=True, metavar="IMAGE", type=click.Path(), callback=read_examples)
@click.option("-k", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many hits.")
@filter_options
@click.option("--space", type=int, metavar="ID", help="This space instead of the current one.")
@click.option("--links", is_flag=True, help="OUTPUT is a new folder, which gets links to the photos.")
@click.option("--places", is_flag=True, help="Write where photos were taken, too.")
@click.option("--no-vectors", is_flag=True, help="Leave the vectors out.")
@device_options
@library_option
@json_option
def command(
    output: Path,
    images: Examples,
    less: Examples,
    k: int,
    space: int | None,
    links: bool,
    places: bool,
    no_vectors: bool,
    device: str | None,
    precision: str,
    library: Path | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Write the photos that pass the filters to OUTPUT, with their vectors, for other programs.

    The end of OUTPUT chooses the format: .parquet, .npz (NumPy), .csv or .json. One row is a photo on disk.
    With --like it is the hits of a search, best first. --links makes a folder of symbolic links in place of
    a file; no photo is copied or touched. Where photos were taken is left out unless --places asks for it.
    """
    if less and not images:
        raise click.UsageError("--less goes with --like")
    with open_library(library, device=device, precision=precision) as opened:
        where = read_filter(opened, filters)
        hits = (
            opened.search_examples(images, less, k=k, where=where, space=space, stacks=False).hits
            if images
            else None
        )
        if links:
            photos = opened.photos(where) if hits is None else [hit.photo for hit in hits]
            rows = opened.export_links(output, photos)
        else:
            rows = opened.export(
                output, where=where, space=space, hits=hits, vectors=not no_vectors, places=places
            )
    if as_json:
        print_json({"output": str(output), "photos": rows})
    else:
        click.echo(f"wrote {rows} photos to {display_path(output)}")
