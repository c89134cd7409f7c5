"""The command `vitmae-search jobs`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from vitmae_search.cli.common import inherited, json_option, library_option, open_library, print_json
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.records import JobRecord


@click.group("jobs", invoke_without_command=True)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many of the newest."
)
@library_option
@json_option
@click.pass_context
def command(ctx: click.Context, limit: int, library: Path | None, as_json: bool) -> None:
    """List the library's long jobs, of all machines, the newest first; or cancel one.

    \b
    vitmae-search jobs
    vitmae-search jobs cancel 3f2a
    """
    if ctx.invoked_subcommand is None:
        with open_library(library) as opened:
            found = opened.jobs(limit)
        if as_json:
            print_json({"jobs": [job_json(job) for job in found]})
        else:
            _print(found)


@command.command("cancel")
@click.argument("key")
@library_option
@json_option
@click.pass_context
def cancel(ctx: click.Context, key: str, library: Path | None, as_json: bool) -> None:
    """Ask the running job KEY to stop, on whichever machine it runs. What it finished is kept.

    The beginning of a key is enough.
    """
    library, as_json = inherited(ctx, library, as_json)
    with open_library(library) as opened:
        job = _job_named(key, opened.jobs(limit=1000))
        opened.cancel_job(job.key)
        asked = opened.job(job.key) or job
    if as_json:
        print_json(job_json(asked))
    else:
        click.echo(f"job {asked.key} on {display_path(asked.host)} stops after what it is at")


def job_json(job: JobRecord) -> dict[str, object]:
    """The keys of a job in JSON."""
    moments = ("started_at", "heartbeat_at", "cancel_requested_at", "ended_at")
    values: dict[str, object] = asdict(job)
    values |= {name: moment and moment.isoformat() for name in moments for moment in [getattr(job, name)]}
    del values["run_id"]
    return values


def _job_named(key: str, jobs: Iterable[JobRecord]) -> JobRecord:
    found = [job for job in jobs if job.key.startswith(key)]
    if len(found) != 1:
        which = "no job has" if not found else f"{len(found)} jobs have"
        raise LibraryError(f"{which} a key that begins with {display_path(key)}; see `vitmae-search jobs`")
    return found[0]


def _print(jobs: Sequence[JobRecord]) -> None:
    for job in jobs:
        state = "stopping" if job.state == "running" and job.cancel_requested_at else job.state
        began = f"{job.started_at.astimezone():%Y-%m-%d %H:%M}"
        click.echo(
            f"{job.key[:8]}  {job.kind:<9} {state:<11} {began}  on {display_path(job.host)} ({job.pid})"
            f"{_details(job)}"
        )
    if not jobs:
        click.echo("there were no jobs yet")


def _details(job: JobRecord) -> str:
    words = [f"  {display_path(folder)}" for folder in _folders(job)]
    done, total = job.progress.get("done"), job.progress.get("total")
    if job.state == "running" and isinstance(done, int):
        words.append(f"  {done}{f' of {total}' if total else ''}")
    if job.error:
        words.append(f"  {display_path(job.error)}")
    return "".join(words)


def _folders(job: JobRecord) -> list[str]:
    folders = job.arguments.get("folders") or job.arguments.get("folder") or ()
    return [str(folder) for folder in folders] if isinstance(folders, list | tuple) else [str(folders)]
