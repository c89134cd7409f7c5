"""The command `vitmae-search status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json, tags_line
from vitmae_search.cli.spaces import derivation_text, space_json
from vitmae_search.errors import display_path
from vitmae_search.records import Failure, IndexLag, LibraryStatus
from vitmae_search.settings import catalog_address


@click.command("status")
@click.option(
    "--failures", "list_failures", is_flag=True, help="List every file without a vector, with its reason."
)
@library_option
@json_option
def command(list_failures: bool, library: Path | None, as_json: bool) -> None:
    """Say what the library holds: photos, failures, folders, embedding spaces and tags."""
    is_absent = library is not None and catalog_address() is None and not library.is_dir()
    with open_library(library) as opened:
        if is_absent:
            click.echo(f"there is no folder {display_path(opened.folder)}, so no library is in it", err=True)
        status = opened.status()
        tags = opened.tag_counts()
        lags = {space.space_id: opened.index_lag(space.space_id) for space in status.spaces}
        failures = opened.failures() if list_failures else []
    if as_json:
        listed = {"failures": [{"path": f.path, "reason": f.reason} for f in failures]}
        print_json(status_json(status, lags) | {"tags": tags} | (listed if list_failures else {}))
    else:
        _print(status, lags, tags, failures)


def status_json(status: LibraryStatus, lags: Mapping[int, IndexLag]) -> dict[str, object]:
    """The keys of `status --json`, without the tags and the failures.

    Args:
        status: What the library holds.
        lags: What each space is searched with, and how far that is, by the space's id.
    """
    from vitmae_search.library.json_forms import index_lag_json

    return {
        "library": status.library,
        "database": status.database,
        "photos": status.photos,
        "contents": status.contents,
        "missing": status.missing,
        "failed": status.failed,
        "roots": [
            {"path": root.path, "photos": root.photos, "offline": root.offline} for root in status.roots
        ],
        "spaces": [
            space_json(space) | {"index": asdict(lag.index), "lag": index_lag_json(lag)}
            for space in status.spaces
            for lag in [lags[space.space_id]]
        ],
    }


def _print(
    status: LibraryStatus,
    lags: Mapping[int, IndexLag],
    tags: Mapping[str, int],
    failures: Sequence[Failure],
) -> None:
    click.echo(f"library  {display_path(status.library)}")
    if status.database is not None:
        click.echo(f"database {display_path(status.database)}")
    click.echo(
        f"photos   {status.photos} ({status.contents} distinct), "
        f"{status.missing} missing, {status.failed} failed"
    )
    for root in status.roots:
        click.echo(
            f"folder   {display_path(root.path)}: {root.photos} photos{' (offline)' if root.offline else ''}"
        )
    for space in status.spaces:
        current, origin = " (current)" if space.current else "", derivation_text(space, status.spaces)
        click.echo(
            f"space    {space.space_id}: {space.plugin} {space.model}, {origin}, "
            f"{space.vectors} vectors{current}"
        )
        lag = lags[space.space_id]
        click.echo(f"index    {space.space_id}: {lag.index}")
        if space.current and lag.advice is not None:
            since = "" if lag.since is None else f" since {lag.since.astimezone():%Y-%m-%d %H:%M}"
            click.echo(f"behind   {space.space_id}: {lag.behind}{since}; {lag.advice}")
    if tags:
        click.echo(f"tags     {tags_line(tags)}")
    for failure in failures:
        click.echo(f"failed   {display_path(failure.path)}: {failure.reason}")
    if not status.spaces:
        click.echo("nothing is indexed yet; begin with `vitmae-search index FOLDER`")
