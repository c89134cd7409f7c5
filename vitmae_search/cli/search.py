"""The command `vitmae-search search`."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from datetime import datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitmae_search.cli.common import (
    device_options,
    json_option,
    library_option,
    open_library,
    print_json,
    projection_option,
    tags_line,
)
from vitmae_search.cli.pictures import Examples, read_examples
from vitmae_search.errors import display_path
from vitmae_search.records import Hit, MinScore, SearchFilter, SearchResult, WholePhoto

if TYPE_CHECKING:
    from vitmae_search.library import Library

DATE_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


def _min_score(ctx: click.Context, parameter: click.Parameter, value: str | None) -> MinScore:
    """A callback of click: a word stays, a number becomes one."""
    words: dict[str | None, MinScore] = {None: None, "same": "same", "alike": "alike"}
    if value in words:
        return words[value]
    try:
        return float(value or "")
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither same, alike nor a number", ctx, parameter) from None


@click.command("search")
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", callback=read_examples, type=click.Path()
)
@click.option(
    "--less",
    multiple=True,
    metavar="IMAGE",
    type=click.Path(),
    callback=read_examples,
    help="Less like this one. May be repeated.",
)
@click.option("-k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many hits.")
@click.option("--space", type=int, metavar="ID", help="Search this space instead of the current one.")
@projection_option
@click.option("--under", type=click.Path(), metavar="FOLDER", help="Only photos in this folder.")
@click.option(
    "--after", type=click.DateTime(DATE_FORMATS), metavar="DATE", help="Taken on this day or later."
)
@click.option(
    "--before", type=click.DateTime(DATE_FORMATS), metavar="DATE", help="Taken on this day or earlier."
)
@click.option("--camera", metavar="TEXT", help="Taken with a camera whose name holds this text.")
@click.option("--tag", metavar="TEXT", help="Only photos that `classify` gave this tag.")
@click.option(
    "--min-confidence", type=click.FloatRange(0, 1), help="With --tag: only where it was at least this sure."
)
@click.option(
    "--min-score",
    metavar="same|alike|SCORE",
    callback=_min_score,
    help="Only hits with at least this score. `same`: those that are the same photo in 99 of 100 cases; "
    "`alike`: those that chance does not explain.",
)
@click.option(
    "--no-variants",
    is_flag=True,
    help="Compare IMAGE as it is: not without its borders, not turned, not as a part.",
)
@click.option("--no-stacks", is_flag=True, help="List near-identical photos one by one.")
@device_options
@library_option
@json_option
def command(
    images: Examples,
    less: Examples,
    k: int,
    space: int | None,
    projection: str,
    under: str | None,
    after: datetime | None,
    before: datetime | None,
    camera: str | None,
    tag: str | None,
    min_confidence: float | None,
    min_score: MinScore,
    no_variants: bool,
    no_stacks: bool,
    device: str | None,
    precision: str,
    library: Path | None,
    as_json: bool,
) -> None:
    """Find the photos that look like IMAGE, best first.

    An IMAGE is a file, or id:N for a photo of the library, which is then not among the hits. Several are
    searched for together, and those of --less count against; 2:IMAGE counts twice.

    The score is a cosine: 1 is the same picture. A photo that the library knows is found by its stored
    vector, without loading the model. Any other picture is also tried without its uniform borders, such as
    the bars of a screenshot, and turned by 90, 180 and 270°; and it is looked for as a part of the best hits.

    Photos that are near-identical to a hit, such as further frames of a burst or smaller files, are counted
    beside it, and --json lists them; this needs a space that is calibrated, as the default model's is.
    """
    if min_confidence is not None and not tag:
        raise click.UsageError("--min-confidence goes with --tag")
    where = SearchFilter(
        under=None if under is None else os.path.abspath(os.path.expanduser(under)),
        after=after,
        before=_end_of_day(before),
        camera=camera,
        min_confidence=min_confidence or 0.0,
    )
    if space is not None and projection != "auto":
        raise click.UsageError("--space and --projection both choose a space; give one of them")
    with open_library(library, device=device, precision=precision, projection=projection) as opened:
        if tag:
            where = replace(where, tag=_known_tag(opened, tag))
        if where.under is not None:
            _check_folder(opened, where.under)
        asked: dict[str, Any] = {"k": k, "min_score": min_score, "stacks": not no_stacks}
        asked |= {"space": space, "where": where, "variants": not no_variants}
        alone = images[0][0] if len(images) == 1 and not less else None
        if isinstance(alone, str):
            result = opened.search(alone, **asked)
            whole = None if no_variants else opened.find_whole(alone, space=space, where=where)
        else:
            result, whole = opened.search_examples(images, less, **asked), None
    if as_json:
        print_json({**result_json(result), "part_of": None if whole is None else _whole_json(whole)})
    else:
        if whole is not None:
            click.echo(f"part of {display_path(whole.hit.photo.path)}")
        _print(result, filtered=not where.empty or min_score is not None)


def _known_tag(library: Library, text: str) -> str:
    """The library's tag that equals `text`, whatever its case; else `text`, with a message on stderr."""
    tags = library.tag_counts()
    if text in tags:
        return text
    alike = [tag for tag in tags if tag.casefold() == text.casefold()]
    if not alike:
        there = f"there are: {tags_line(tags)}" if tags else "no photo has one; see `vitmae-search classify`"
        click.echo(f"no photo has the tag {display_path(text)!r}; {there}", err=True)
    return alike[0] if alike else text


def _check_folder(library: Library, folder: str) -> None:
    """Say so on stderr if the library has no photo in a folder."""
    if library.photos(SearchFilter(under=folder), limit=1):
        return
    roots = [display_path(root.path) for root in library.status().roots]
    there = f"; indexed were {', '.join(roots)}" if roots else ""
    click.echo(f"the library has no photo in {display_path(folder)}{there}", err=True)


def _end_of_day(date: datetime | None) -> datetime | None:
    """`--before 2020-05-01` includes that day: a date without a time becomes its last moment."""
    if date is not None and (date.hour, date.minute, date.second) == (0, 0, 0):
        return datetime.combine(date, time.max)
    return date


def result_json(result: SearchResult) -> dict[str, object]:
    """The keys of `search --json`."""
    return {
        "hits": [{"rank": hit.rank, **_hit_json(hit), **_stacked_json(hit)} for hit in result.hits],
        "model": result.space.model,
        "space": result.space.space_id,
        "known": result.known,
        "variant": asdict(result.variant),
        "calibration": None if result.calibration is None else asdict(result.calibration),
        "coverage": None if result.coverage is None else asdict(result.coverage),
        "examples": result.examples,
        "seconds": round(result.seconds, 4),
    }


def _hit_json(hit: Hit) -> dict[str, object]:
    return {
        "score": hit.score,
        "photo_id": hit.photo.photo_id,
        "path": hit.photo.path,
        "copies": list(hit.copies),
    }


def _stacked_json(hit: Hit) -> dict[str, object]:
    return {"stacked": [_hit_json(other) for other in hit.stacked]} if hit.stacked else {}


def _whole_json(whole: WholePhoto) -> dict[str, object]:
    photo = whole.hit.photo
    return {
        "photo_id": photo.photo_id,
        "path": photo.path,
        "rank": whole.hit.rank,
        "score": whole.hit.score,
        "correlation": whole.correlation,
    }


def _print(result: SearchResult, *, filtered: bool) -> None:
    if not result.hits and not filtered:
        click.echo("no photo on disk has a vector in this space; `vitmae-search index FOLDER` makes them")
    elif not result.hits:
        click.echo("no photo matches; try without the filters")
    if result.hits and result.variant.text:
        click.echo(f"found with the picture {result.variant.text}")
    first = result.first_unlike
    for i, hit in enumerate(result.hits):
        if i == first:
            click.echo("      ------  from here on no longer alike")
        copies = "1 copy" if len(hit.copies) == 1 else f"{len(hit.copies)} copies"
        others = [copies] * bool(hit.copies) + [f"{len(hit.stacked)} near-identical"] * bool(hit.stacked)
        more = f"  (and {', '.join(others)})" if others else ""
        click.echo(f"{hit.rank:4d}  {hit.score:.4f}  {display_path(hit.photo.path)}{more}")
    if result.coverage is not None:
        click.echo(result.coverage.text)
