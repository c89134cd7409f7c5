"""The command `vitmae-search check`."""

from __future__ import annotations

from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json


@click.command("check")
@click.option(
    "--repair",
    is_flag=True,
    help="Mend what can be mended: rebuild index files, derive vectors again, drop bad ones.",
)
@library_option
@json_option
def command(repair: bool, library: Path | None, as_json: bool) -> int:
    """Look for damage in the catalogue, the projections and the index files.

    Exits with 1 if a problem is left. Index files are caches: --repair rebuilds them from the catalogue,
    without the photos or the model. It restores a projection that came with the model.
    """
    with open_library(library) as opened:
        report = opened.check(repair=repair)
    if as_json:
        print_json(
            {
                "ok": report.ok,
                "checked": list(report.checked),
                "problems": list(report.problems),
                "repaired": list(report.repaired),
            }
        )
    else:
        for line in report.checked:
            click.echo(f"checked   {line}")
        for line in report.problems:
            click.echo(f"problem   {line}")
        for line in report.repaired:
            click.echo(f"repaired  {line}")
        click.echo(
            "all is well"
            if report.ok
            else "problems are left; do what they say, run with --repair, or put back a backup"
        )
    return 0 if report.ok else 1
