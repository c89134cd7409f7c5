"""The command `vitmae-search index`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vitmae_search.address import is_address
from vitmae_search.cli.common import (
    json_option,
    library_option,
    open_library,
    print_json,
)
from vitmae_search.cli.embedding_options import embedding_options
from vitmae_search.errors import display_path
from vitmae_search.records import IndexReport

SHOWN_FAILURES = 10
SHOWN_SUFFIXES = 8


@click.command("index")
@click.argument("folders", nargs=-1, required=True, type=click.Path(), metavar="FOLDER...")
@library_option
@embedding_options
@click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Skip matching names or paths. Repeat for several."
)
@click.option("--retry-failed", is_flag=True, help="Try files again that failed before and have not changed.")
@click.option(
    "--rescan", is_flag=True, help="Read all files again, also those whose size and times have not changed."
)
@click.option(
    "--videos",
    is_flag=True,
    help="Index frames of videos, too; needs `pip install 'vitmae-search[video]'`. Later runs of a folder "
    "that has some do so by themselves.",
)
@click.option(
    "--watch", is_flag=True, help="Go on: index again whenever photos come, change or go, until Ctrl-C."
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Read and embed on a Ray cluster: HOST:PORT, auto for the one that this machine is in, or local to "
    "start one here; needs `pip install 'vitmae-search[ray]'`.",
)
@click.option("--run-key", hidden=True)
@json_option
def command(
    folders: tuple[str, ...],
    library: Path | None,
    exclude: tuple[str, ...],
    retry_failed: bool,
    rescan: bool,
    videos: bool,
    watch: bool,
    ray: str | None,
    run_key: str | None,
    as_json: bool,
    **opening: Any,
) -> int:
    """Index photo folders, or bring them up to date.

    Only new and changed photos are read. A moved photo keeps its vector, and a copy is embedded once. A
    file that cannot be used is reported with its reason and never stops the others. Ctrl-C keeps all
    that was finished; run the same command again to go on.

    \b
    vitmae-search index ~/Pictures
    vitmae-search index ~/Pictures --exclude 'Screenshots' --exclude '*.gif'
    vitmae-search index ~/Pictures --embedder color_layout
    vitmae-search index s3://bucket/folder
    """
    from vitmae_search.cli.progress import show_progress
    from vitmae_search.cli.stop_signal import StopOnSignal, exit_code

    if watch:
        if retry_failed or rescan:
            raise click.UsageError("--watch goes with neither --retry-failed nor --rescan")
        if ray is not None:
            raise click.UsageError("--watch does not go with --ray")
        return _watch(folders, library, exclude, videos, run_key, as_json, opening)
    with (
        open_library(library, **opening) as opened,
        show_progress() as on_progress,
        StopOnSignal("stopping after this batch") as stop,
    ):
        report = opened.index(
            folders,
            exclude=exclude,
            retry_failed=retry_failed,
            rescan=rescan,
            videos=videos,
            ray=ray,
            on_progress=on_progress,
            cancelled=stop.requested,
            run_key=run_key,
        )
        current = next((space.space_id for space in opened.spaces() if space.current), None)
    if as_json:
        print_json(report_json(report))
    else:
        print_report(report)
        if report.space not in (None, current):
            click.echo(
                f"searches use space {current}; `vitmae-search spaces use {report.space}` changes that"
            )
    return exit_code(report.interrupted)


def _watch(
    folders: tuple[str, ...],
    library: Path | None,
    exclude: tuple[str, ...],
    videos: bool,
    run_key: str | None,
    as_json: bool,
    opening: Mapping[str, Any],
) -> int:
    """Index until a signal comes, which is how this ends well."""
    from vitmae_search.cli.stop_signal import StopOnSignal, exit_code

    reports: list[IndexReport] = []

    def show(report: IndexReport) -> None:
        if not as_json:
            print_report(report)  # goes to stderr, as all that is said before the end
        reports[:] = [report]

    with (
        open_library(library, **opening) as opened,
        StopOnSignal("stopping after this batch") as stop,
    ):
        found = opened.watch(
            folders,
            on_report=show,
            cancelled=stop.requested,
            exclude=exclude,
            videos=videos,
            run_key=run_key,
        )
    if as_json:
        counts = {name: getattr(found, name) for name in ("runs", "added", "updated", "moved", "missing")}
        print_json({**counts, "last": report_json(reports[0]) if reports else None})
    return exit_code(found.interrupted)


def report_json(report: IndexReport) -> dict[str, object]:
    """The keys of `index --json`. `offline` counts roots; `offline_roots` names them."""
    return {
        "found": report.found,
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "unchanged": report.unchanged,
        "missing": report.missing,
        "failed": report.failed,
        "offline": len(report.offline),
        "offline_roots": list(report.offline),
        "failures": [{"path": failure.path, "reason": failure.reason} for failure in report.failures],
        "problems": [{"path": problem.path, "reason": problem.reason} for problem in report.problems],
        "seconds": round(report.seconds, 3),
        "photos_per_second": round(report.photos_per_second, 2),
        "model": report.model,
        "space": report.space,
        "interrupted": report.interrupted,
        "not_looked_at": dict(report.not_looked_at),
        "left_out": list(report.left_out),
    }


def not_looked_at(counts: Mapping[str, int]) -> str:
    """A sentence about the files that are no photos: "not looked at: 3 other files (2 .mp4, 1 .dng)".

    Args:
        counts: How many there are of each suffix; "" stands for none.
    """
    total = sum(counts.values())
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"{count} {display_path(suffix) or 'without a suffix'}" for suffix, count in most_first]
    if len(kinds) > SHOWN_SUFFIXES:
        kinds[SHOWN_SUFFIXES:] = ["..."]
    return f"not looked at: {total} other file{'s' * (total != 1)} ({', '.join(kinds)})"


def print_report(report: IndexReport) -> None:
    """The report for people, on stdout."""
    counts = ", ".join(
        f"{getattr(report, name)} {name}"
        for name in ("added", "updated", "moved", "unchanged", "missing", "failed")
        if getattr(report, name)
    )
    click.echo(f"{report.found} photos found: {counts or 'nothing to do'} ({report.seconds:.1f} s)")
    if report.not_looked_at:
        click.echo(not_looked_at(report.not_looked_at))
    if not report.found:
        from vitmae_search.library.previews import UPLOAD_SUFFIXES

        click.echo(f"photos are files that end in {', '.join(UPLOAD_SUFFIXES)}")
    if report.left_out:
        first = ", ".join(map(display_path, report.left_out[:SHOWN_SUFFIXES]))
        others = ", ..." if len(report.left_out) > SHOWN_SUFFIXES else ""
        click.echo(f"left out: folders that systems and other programs keep copies in ({first}{others})")
    for root in report.offline:
        away = (
            "cannot be reached, or is another bucket than before"
            if is_address(root)
            else "is away, or on another drive than before"
        )
        click.echo(
            f"offline: {display_path(root)} {away}; its photos are kept. "
            f"If they are gone for good: vitmae-search forget {shlex.quote(display_path(root))}"
        )
    for problem in report.problems:
        click.echo(f"could not look into {display_path(problem.path)}: {problem.reason}")
    for failure in report.failures[:SHOWN_FAILURES]:
        click.echo(f"failed: {display_path(failure.path)}: {failure.reason}")
    if len(report.failures) > SHOWN_FAILURES:
        more = len(report.failures) - SHOWN_FAILURES
        click.echo(f"... and {more} more; `vitmae-search status --failures` lists them all")
