"""The command `vitmae-search search`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitmae_search.cli.common import (
    device_options,
    json_option,
    library_option,
    model_option,
    open_library,
    photo_text,
    print_json,
    projection_option,
    read_part,
)
from vitmae_search.cli.filters import filter_options, read_filter
from vitmae_search.cli.pictures import Asked, read_asked
from vitmae_search.errors import NoText, display_path
from vitmae_search.records import Box, MinScore, SearchResult, WholePhoto, Words

if TYPE_CHECKING:
    from vitmae_search.library import Library

_WEB = re.compile("https?://", re.IGNORECASE)

_Fetched = tuple[tuple[str | int | bytes | Words, float], ...]


def read_min_score(ctx: click.Context, parameter: click.Parameter, value: str | None) -> MinScore:
    """A callback of click: a word stays, a number becomes one.

    Args:
        ctx: click's context.
        parameter: The option.
        value: What was given.
    """
    words: dict[str | None, MinScore] = {None: None, "same": "same", "alike": "alike"}
    if value in words:
        return words[value]
    try:
        return float(value or "")
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither same, alike nor a number", ctx, parameter) from None


@click.command("search")
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE|WORDS...", callback=read_asked, type=click.Path()
)
@click.option(
    "--less",
    multiple=True,
    metavar="IMAGE|WORDS",
    type=click.Path(),
    callback=read_asked,
    help="Less like this one. May be repeated.",
)
@click.option("-k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many hits.")
@click.option("--space", type=int, metavar="ID", help="Search this space instead of the current one.")
@model_option
@click.option(
    "--beside",
    metavar="ID|MODEL",
    help="Search this space as well, and list its hits after those of the other one. Each has its own scores "
    "for --min-score same|alike.",
)
@projection_option
@filter_options
@click.option(
    "--min-score",
    metavar="same|alike|SCORE",
    callback=read_min_score,
    help="Only hits with at least this score. `same`: those that are the same photo in 99 of 100 cases; "
    "`alike`: those that chance does not explain.",
)
@click.option(
    "--no-variants",
    is_flag=True,
    help="Compare IMAGE as it is: not without its borders, not turned, not as a part.",
)
@click.option(
    "--part",
    metavar="X,Y,W,H",
    callback=read_part,
    help="Search by a part of IMAGE: left, top, width and height, as shares of its sides (0 to 1), or in "
    "pixels where one is above 1.",
)
@click.option("--no-stacks", is_flag=True, help="List near-identical photos one by one.")
@device_options
@library_option
@json_option
def command(
    images: Asked,
    less: Asked,
    k: int,
    space: int | None,
    model: str | None,
    beside: str | None,
    projection: str,
    min_score: MinScore,
    no_variants: bool,
    part: tuple[float, ...] | None,
    no_stacks: bool,
    device: str | None,
    precision: str,
    library: Path | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Find the photos that look like IMAGE, or that WORDS describe, best first.

    An IMAGE is a file, or id:N for a photo of the library, which is then not among the hits; or the address
    of a picture on the web, where VITMAE_SEARCH_WEB_PICTURES is on. Several are searched for together, and
    those of --less count against; 2:IMAGE counts twice.

    WORDS in quotes, such as "a red bicycle", need photos that were indexed with a model that learned from
    texts, such as --model hub:openai/clip-vit-base-patch32. What is no file, and is not written like a
    file's name or path, is taken as words; text:WORDS always is. Words are compared with the model's
    features, so their scores are lower than those of pictures.

    The score is a cosine: 1 is the same picture. A photo that the library knows is found by its stored
    vector, without loading the model. Any other picture is also tried without its uniform borders, such as
    the bars of a screenshot, and turned by 90, 180 and 270°; and it is looked for as a part of the best hits.

    With --part photos are looked through for this part of IMAGE, patch by patch: the score then says how much
    better patches agree than elsewhere, and the place follows each hit, in the form that --part takes.

    Photos that are near-identical to a hit, such as further frames of a burst or smaller files, are counted
    beside it, and --json lists them; this needs a space that is calibrated, as the default model's is.
    """
    given = {"space": space, "model": model, "part": part, "beside": beside, "min_score": min_score}
    _check_usage(len(images) == 1 and not less, projection != "auto", given)
    chosen: dict[str, Any] = {"device": device, "precision": precision, "projection": projection}
    other = whole = None
    with open_library(library, model=model, **chosen) as opened:
        where = read_filter(opened, filters)
        asked: dict[str, Any] = {"k": k, "min_score": min_score, "stacks": not no_stacks}
        asked |= {"where": where, "variants": not no_variants}
        more, unwanted = _fetched(opened, images), _fetched(opened, less)

        def find(searched: int | None) -> SearchResult:
            if part is not None:
                return _search_part(opened, more[0][0], part, {"k": k, "space": searched, "where": where})
            return _search(opened, more, unwanted, {**asked, "space": searched})

        result = find(space)
        if beside is not None:
            other = find(opened.space_named(beside).space_id)
        elif part is None and not no_variants and not result.known:
            whole = _whole(opened, more, unwanted, {"space": space, "where": where})
    if other is not None:
        _print_both(result, other, as_json, filtered=not where.empty)
    elif as_json:
        from vitmae_search.library.json_forms import result_json

        print_json({**result_json(result), "part_of": None if whole is None else _whole_json(whole)})
    else:
        if whole is not None:
            click.echo(f"part of {display_path(whole.hit.photo.path)}")
        print_result(result, filtered=not where.empty or min_score is not None)


def _check_usage(alone: bool, projection: bool, given: Mapping[str, object]) -> None:
    """Refuse options that exclude each other.

    Args:
        alone: Whether the query is one picture.
        projection: Whether a projection is chosen.
        given: Other options; None where one is not given.
    """
    names = {name for name, value in given.items() if value is not None}
    if projection and "space" in names:
        raise click.UsageError("--space and --projection both choose a space; give one of them")
    if {"space", "model"} <= names:
        raise click.UsageError("--space and --model both choose a space; give one of them")
    if "part" in names and not alone:
        raise click.UsageError("--part takes one IMAGE, and no --less")
    if {"part", "min_score"} <= names:
        raise click.UsageError(
            "--min-score means nothing with --part: its scores compare photos with each other, patch by patch"
        )
    if "beside" in names and isinstance(given["min_score"], float):
        raise click.UsageError(
            "a number means another thing in each space; with --beside, --min-score is same or alike"
        )


def _search(library: Library, more: _Fetched, less: _Fetched, asked: dict[str, Any]) -> SearchResult:
    """Search for a file, several pictures, or words, which may be the name of a file that is not there."""
    alone = _file_alone(more, less)
    if alone is not None:
        return library.search(alone, **asked)
    try:
        return library.search_examples(more, less, **asked)
    except NoText as error:
        texts = [one.text for one, _ in (*more, *less) if isinstance(one, Words)]
        raise NoText(f"{display_path(texts[0])!r} is no file, and {error}") from error


def _search_part(
    library: Library, picture: str | int | bytes | Words, part: tuple[float, ...], asked: dict[str, Any]
) -> SearchResult:
    if isinstance(picture, Words):
        raise click.UsageError(f"--part is for a picture, and {display_path(picture.text)!r} is no file")
    return library.search_region(picture, part, on_progress=_show_progress, **asked)


def _whole(library: Library, more: _Fetched, less: _Fetched, asked: dict[str, Any]) -> WholePhoto | None:
    alone = _file_alone(more, less)
    return None if alone is None else library.find_whole(alone, **asked)


def _file_alone(more: _Fetched, less: _Fetched) -> str | bytes | None:
    """The file that the query consists of; None for any other query."""
    alone = more[0][0] if len(more) == 1 and not less else None
    return alone if isinstance(alone, str | bytes) else None


def _print_both(first: SearchResult, second: SearchResult, as_json: bool, *, filtered: bool) -> None:
    """Print what two spaces found; what both have is marked, or listed."""
    from vitmae_search.library.json_forms import result_json

    both = first.shared_with(second)
    if as_json:
        ids = {hit.photo.photo_id for hit in first.hits if hit.photo.content_id in both}
        print_json({**result_json(first), "beside": result_json(second), "in_both": sorted(ids)})
        return
    for result in (first, second):
        click.echo(f"space {result.space.space_id}, {result.space.model}, {result.space.kind}:")
        print_result(result, filtered=filtered, both=both)


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\rlooked through {done} of {total} photos", err=True, nl=done == total)


def _fetched(library: Library, examples: Asked) -> _Fetched:
    """The examples, with the files of those that are named by their addresses on the web."""
    return tuple(
        (library.fetch_picture(name) if isinstance(name, str) and _WEB.match(name) else name, weight)
        for name, weight in examples
    )


def _whole_json(whole: WholePhoto) -> dict[str, object]:
    photo = whole.hit.photo
    return {
        "photo_id": photo.photo_id,
        "path": photo.path,
        "rank": whole.hit.rank,
        "score": whole.hit.score,
        "correlation": whole.correlation,
    }


def box_text(box: Box) -> str:
    """A box as --part takes it."""
    return ",".join(f"{value:.3g}" for value in (box.left, box.top, box.width, box.height))


def print_result(result: SearchResult, *, filtered: bool, both: frozenset[int] = frozenset()) -> None:
    """Print the hits as lines.

    Args:
        result: What was found.
        filtered: Whether photos were left out on purpose.
        both: Contents that are marked, as another space found them, too.
    """
    if not result.hits and not filtered:
        click.echo("no photo on disk has a vector in this space; `vitmae-search index FOLDER` makes them")
    elif not result.hits:
        click.echo("no photo matches; try without the filters")
    if result.hits and result.variant.text:
        click.echo(f"found with the picture {result.variant.text}")
    if result.region is not None:
        click.echo(result.region.text)
    first = result.first_unlike
    for i, hit in enumerate(result.hits):
        if i == first:
            click.echo("      ------  from here on no longer alike")
        copies = "1 copy" if len(hit.copies) == 1 else f"{len(hit.copies)} copies"
        others = [copies] * bool(hit.copies) + [f"{len(hit.stacked)} near-identical"] * bool(hit.stacked)
        more = f"  (and {', '.join(others)})" if others else ""
        more += "" if hit.box is None else f"  at {box_text(hit.box)}"
        more += "  (in both)" if hit.photo.content_id in both else ""
        click.echo(f"{hit.rank:4d}  {hit.score:.4f}  {photo_text(hit.photo)}{more}")
    if result.coverage is not None:
        click.echo(result.coverage.text)
