"""The command `vitmae-search searches`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitmae_search.cli.common import inherited, json_option, library_option, open_library, print_json
from vitmae_search.cli.filters import filter_options, read_filter
from vitmae_search.cli.pictures import Asked, Examples, read_asked, read_examples
from vitmae_search.cli.search import print_result, read_min_score
from vitmae_search.errors import display_path
from vitmae_search.records import MinScore, SavedSearch, Words

if TYPE_CHECKING:
    from vitmae_search.library import Library


@click.group("searches", invoke_without_command=True)
@library_option
@json_option
@click.pass_context
def command(ctx: click.Context, library: Path | None, as_json: bool) -> None:
    """List the saved searches; save, run or delete one.

    A saved search is photos of the library that hits should be like, words, and filters; each may be left
    out.
    """
    if ctx.invoked_subcommand is None:
        _show(library, as_json)


@command.command("save")
@click.argument("name")
@click.argument("images", nargs=-1, metavar="[IMAGE|WORDS]...", callback=read_asked, type=click.Path())
@click.option("--less", multiple=True, metavar="IMAGE", type=click.Path(), callback=read_examples)
@filter_options
@click.option("--min-score", metavar="same|alike|SCORE", callback=read_min_score)
@library_option
@json_option
@click.pass_context
def save(
    ctx: click.Context,
    /,
    name: str,
    images: Asked,
    less: Examples,
    min_score: MinScore,
    library: Path | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Save a search under NAME, in place of another one of this name.

    Each IMAGE is a photo of the library: its path, or id:N. 2:IMAGE counts twice. WORDS and the options are
    those of `search`.
    """
    library, as_json = inherited(ctx, library, as_json)
    if less and not images:
        raise click.UsageError("--less goes with an IMAGE or WORDS")
    words = tuple((asked.text, weight) for asked, weight in images if isinstance(asked, Words))
    more = tuple((asked, weight) for asked, weight in images if not isinstance(asked, Words))
    with open_library(library) as opened:
        where = read_filter(opened, filters)
        wanted, unwanted = _ids(opened, more), _ids(opened, less)
        opened.save_search(SavedSearch(name, wanted, unwanted, where, min_score, words))
    _show(library, as_json)


@command.command("run")
@click.argument("name")
@click.option("-k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many hits.")
@library_option
@json_option
@click.pass_context
def run(ctx: click.Context, name: str, k: int, library: Path | None, as_json: bool) -> None:
    """Search for what was saved under NAME; without images and words list what passes its filters."""
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        saved = opened.saved_search(name)
        asked: dict[str, Any] = {"where": saved.where, "min_score": saved.min_score}
        found = opened.search_examples(saved.wanted, saved.less, k=k, **asked) if saved.wanted else None
        photos = [] if found else opened.photos(saved.where, limit=k)
    if as_json and found:
        from vitmae_search.library.json_forms import result_json

        print_json(result_json(found))
    elif as_json:
        print_json({"photos": [{"photo_id": photo.photo_id, "path": photo.path} for photo in photos]})
    elif found:
        print_result(found, filtered=True)
    else:
        for photo in photos:
            click.echo(display_path(photo.path))


@command.command("delete")
@click.argument("name")
@library_option
@json_option
@click.pass_context
def delete(ctx: click.Context, name: str, library: Path | None, as_json: bool) -> None:
    """Delete the search that was saved under NAME."""
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        opened.delete_search(name)
    _show(library, as_json)


def _ids(library: Library, examples: Examples) -> tuple[tuple[int, float], ...]:
    ids = library.photo_ids([picture for picture, _ in examples])
    return tuple((photo_id, weight) for photo_id, (_, weight) in zip(ids, examples, strict=True))


def _show(library: Path | None, as_json: bool) -> None:
    with open_library(library) as opened:
        saved = opened.saved_searches()
    if as_json:
        print_json({"searches": [asdict(search) for search in saved]})
        return
    if not saved:
        click.echo("there are no saved searches; `vitmae-search searches save NAME IMAGE...` makes one")
    for search in saved:
        click.echo(display_path(search.name))
