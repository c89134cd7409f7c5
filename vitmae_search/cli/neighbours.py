"""The command `vitmae-search neighbours`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vitmae_search.cli.common import (
    device_options,
    figure_option,
    json_option,
    library_option,
    open_library,
    print_json,
)
from vitmae_search.errors import display_path

if TYPE_CHECKING:
    from vitmae_search.inspection.space import NeighbourChange, Neighbourhood, SpaceStatistics
    from vitmae_search.library.space_inspection import SpaceChoice


class SpaceName(click.ParamType["SpaceChoice"]):
    """The id of a space, "features" or "whitened"."""

    name = "space"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> SpaceChoice:
        """Read it.

        Args:
            value: The text.
            param: click's.
            ctx: click's.
        """
        if value == "features":
            return "features"
        if value == "whitened":
            return "whitened"
        text = str(value)
        if not text.isdecimal():
            self.fail(f"{text!r} is neither the id of a space nor features or whitened", param, ctx)
        return int(text)


@click.command("neighbours")
@click.argument("image", type=click.Path(), required=False)
@click.option("-k", type=click.IntRange(1, 200), default=10, show_default=True, help="How many neighbours.")
@click.option(
    "--space",
    type=SpaceName(),
    metavar="SPACE",
    help="A space's id; features: those of the current space; whitened: these, whitened as by "
    "`adapt --method whitening`.  [default: the current space]",
)
@click.option(
    "--before",
    type=SpaceName(),
    metavar="SPACE",
    help="Say what changed for IMAGE from this space, such as features, to the other one.",
)
@figure_option("neighbours.png")
@device_options
@library_option
@json_option
def command(
    image: str | None,
    k: int,
    space: SpaceChoice,
    before: SpaceChoice,
    output: str,
    device: str | None,
    precision: str,
    library: Path | None,
    as_json: bool,
) -> None:
    """Show how IMAGE lies among its neighbours; without IMAGE, how all photos of the library do.

    Of IMAGE: its neighbours' distances beside what is usual, how often it is a neighbour itself, and of which
    photos. Of the library: hubs, and in how many directions photos differ. Of more than 10,000 photos the
    neighbours of 5,000 drawn at random are looked for, among all.
    """
    from vitmae_search.inspection.figures import save_figure
    from vitmae_search.library.json_forms import (
        neighbour_change_json,
        neighbourhood_json,
        space_statistics_json,
    )

    if before is not None and image is None:
        raise click.UsageError("--before says what changed for an IMAGE; name one.")
    with open_library(library, device=device, precision=precision) as opened:
        if image is None:
            whole = opened.space_statistics(space, k=k)
            numbers, said, drawn = space_statistics_json(whole), _space_text(whole), whole.figure()
        elif before is None:
            one = opened.neighbourhood(image, space=space, k=k)
            numbers, said, drawn = neighbourhood_json(one), _photo_text(one), one.figure()
        else:
            change = opened.compare_neighbours(image, before, space, k=k, views=True)
            numbers, said, drawn = neighbour_change_json(change), _change_text(change), change.figure()
    save_figure(drawn, output)
    if as_json:
        print_json({**numbers, "output": os.path.abspath(output)})
        return
    click.echo(f"{said}\n{display_path(output)}")


def _space_text(found: SpaceStatistics) -> str:
    hub = found.hubs[0] if found.hubs else None
    largest = (
        f"; most for {hub.occurrences:.0f} photos: {display_path(hub.photo.path)}" if hub is not None else ""
    )
    return (
        f"{found.title}: {found.photos:,} photos, {found.effective_dimension:.1f} of {found.dimension} "
        f"dimensions in effect, skewness of hubs {found.skewness:.2f}{largest}"
    )


def _photo_text(found: Neighbourhood) -> str:
    lines = [
        f"{each.distance:.4f}  (usual {usual[2]:.4f})  {display_path(each.photo.path)}"
        for each, usual in zip(found.neighbours, found.usual, strict=False)
    ]
    lines.append(
        f"among the {found.k} nearest of {found.occurrences} photos; usual are "
        f"{found.usual_occurrences[1]:.0f} to {found.usual_occurrences[3]:.0f}"
    )
    return "\n".join(lines)


def _change_text(found: NeighbourChange) -> str:
    lines = [f"{found.shared} of {found.after.k} neighbours stay"]
    for rank, each in enumerate(found.after.neighbours, 1):
        before = "-" if each.other_rank is None else str(each.other_rank)
        lines.append(f"{before:>5} -> {rank}  {display_path(each.photo.path)}")
    if found.views:
        before_count, after_count = found.found_by_copies
        lines.append(
            f"changed copies that find it among the first {found.after.k}: {before_count} of "
            f"{len(found.views)} before, {after_count} after"
        )
    if found.without_views:
        lines.append(f"without changed copies: {found.without_views}")
    return "\n".join(lines)
