"""The command `vitmae-search unusual`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json
from vitmae_search.cli.filters import filter_options, read_filter
from vitmae_search.cli.search import print_result


@click.command("unusual")
@click.option("-k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many.")
@click.option(
    "--neighbours",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="How many of the most similar photos count.",
)
@click.option(
    "--by",
    type=click.Choice(["neighbours", "reconstruction"]),
    default="neighbours",
    show_default=True,
    help="reconstruction: the photos that the model guesses worst from a quarter of their patches. Each is "
    "reconstructed, which takes a while.",
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="With --by reconstruction: look at N photos, drawn at random.  [default: all]",
)
@filter_options
@click.option("--space", type=int, metavar="ID", help="Compare in this space instead of the current one.")
@library_option
@json_option
def command(
    k: int,
    neighbours: int,
    by: str,
    sample: int | None,
    space: int | None,
    library: Path | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """List the photos that are least like any other one, the most unusual first.

    The score is the mean with the photos that are most like it. All photos are compared with each other, as
    for `duplicates`. With --by reconstruction the score is the loss, and the worst come first.
    """
    if sample is not None and by != "reconstruction":
        raise click.UsageError("--sample is for --by reconstruction.")
    with open_library(library) as opened:
        where = read_filter(opened, filters)
        if by == "reconstruction":
            found = opened.badly_reconstructed(where, k=k, sample=sample)
        else:
            found = opened.unusual(where, k=k, neighbours=neighbours, space=space)
    if as_json:
        from vitmae_search.library.json_forms import result_json

        print_json(result_json(found))
    else:
        print_result(found, filtered=not where.empty)
