"""Long jobs on the page, from the catalogue's `runs` rows: every browser shows the same."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from datetime import datetime

import streamlit as st

from vitmae_search.errors import VitmaeSearchError, display_path
from vitmae_search.records import JobRecord
from vitmae_search.web.components import adapt_report, plain_text
from vitmae_search.web.server.session import library

SHOWN_SUFFIXES = 5
RECENT = 10
"""How many of the newest jobs are looked at."""
TRAININGS = frozenset({"pretrain"})
"""Jobs that do not block the library while they run; the Training page shows them."""
MAPS = frozenset({"map"})
"""Such jobs, too; the Map page shows them."""

WATCHES = frozenset({"watch"})
"""Jobs that wait for changes; what they index are jobs of their own."""
MANY = 300
"""Among how many of the newest jobs those are that wait."""

RUNNING_REFRESH_SECONDS, IDLE_REFRESH_SECONDS = 1.0, 4.0
"""How often the page looks for progress, and for a job that was started elsewhere."""
COUNTS_REFRESH_SECONDS = 2.0
"""How often the library's photos are counted while a job runs."""

_TRAINING_TITLES = {"pretrain": "Pretraining", "finetune": "Fine-tuning", "": "Training"}
_PHASE_TITLES = {
    "scanning": "Looking through the folder",
    "indexing": "Reading photos",
    "waiting": "Waiting for photos that another run reads",
    "classifying": "Classifying photos",
    "encoding": "Reading photos",
    "training": "Learning",
    "mapping": "Laying out the map",
    "finishing": "Finishing",
    "done": "Finishing",
}
_WHAT_REMAINS = {
    "index": ", finished photos kept",
    "classify": ", finished photos kept",
    "pretrain": ", what it learned is kept",
    "adapt": ", nothing was changed",
    "map": ", the map is as it was",
}
"""What an interrupted job of each kind leaves."""


def running_jobs(*, include_trainings: bool = False) -> list[JobRecord]:
    """The jobs that are running and write to the library, newest first; trainings too, if wanted."""
    left_out = MAPS | WATCHES if include_trainings else MAPS | WATCHES | TRAININGS
    return [job for job in library().jobs(RECENT) if job.state == "running" and job.kind not in left_out]


def blocking_jobs(*, include_trainings: bool = False) -> list[JobRecord]:
    """The running jobs that keep this machine from starting another one.

    In a file's library that is any, as it has one writer; else those that run on this machine.
    """
    running = running_jobs(include_trainings=include_trainings)
    if not library().has_several_writers:
        return running
    return [job for job in running if job.host == socket.gethostname()]


def running_watches() -> list[JobRecord]:
    """The jobs that watch folders, newest first."""
    return [job for job in library().jobs(MANY) if job.state == "running" and job.kind in WATCHES]


def running_maps() -> list[JobRecord]:
    """The jobs that lay out a map."""
    return [job for job in library().jobs(RECENT) if job.state == "running" and job.kind in MAPS]


def show_running(
    rerun_if: Callable[[], bool] = lambda: False, which: Callable[[], list[JobRecord]] = running_jobs
) -> bool:
    """Show the running jobs with their progress, redrawn by themselves.

    The whole page is drawn anew when a job begins or ends, or when `rerun_if` returns True.

    Args:
        rerun_if: Asked again and again.
        which: Lists the jobs.

    Returns:
        Whether there are any.
    """
    running = which()
    keys = [job.key for job in running]
    refresh = RUNNING_REFRESH_SECONDS if running else IDLE_REFRESH_SECONDS
    st.fragment(_draw, run_every=refresh)(keys, rerun_if, which)
    return bool(running)


def _draw(expected: list[str], rerun_if: Callable[[], bool], which: Callable[[], list[JobRecord]]) -> None:
    with plain_text.errors_as_notices():
        running = which()
        if [job.key for job in running] != expected or rerun_if():
            st.rerun(scope="app")
        for job in running:
            _progress(job)


def _progress(job: JobRecord) -> None:
    progress = job.progress
    done, total = int_field(progress, "done"), progress.get("total")
    with st.container(border=True):
        plain_text.heading(job_title(job))
        share = min(1.0, done / total) if isinstance(total, int) and total > 0 else 0.0
        st.progress(share, text=_progress_text(progress, done, total))
        if job.host != socket.gethostname():
            plain_text.hint(f"On the machine {display_path(job.host)}.")
        current = progress.get("current")
        if isinstance(current, str) and current:
            plain_text.hint(display_path(current))
        kept = "Nothing is changed" if job.kind in ("adapt", "map") else "Finished photos stay in the library"
        stop_button(job, "Cancel", f"Stopping after this batch. {kept}.")


def _progress_text(progress: Mapping[str, object], done: int, total: object) -> str:
    """Numbers and our own words only: the progress bar's text is Markdown."""
    words = [_PHASE_TITLES.get(str(progress.get("phase")), "Starting")]
    if total:
        words.append(f"{done:,} of {total:,}")
    elif done:
        words.append(f"{done:,}")
    rate = progress.get("photos_per_second")
    if isinstance(rate, int | float) and rate > 0:
        words.append(f"{rate:.1f} photos a second")
        if isinstance(total, int) and total > done:
            words.append(f"{duration((total - done) / rate)} left")
    if failed := int_field(progress, "failed"):
        words.append(f"{failed:,} failed")
    return " · ".join(words)


def stop_button(job: JobRecord, label: str, message: str) -> None:
    """A button that asks a job to stop. Once somebody did, in any browser, it says so instead.

    Args:
        job: The job.
        label: The button's label.
        message: Plain text to show once it was pressed.
    """
    asked = job.cancel_requested_at is not None
    if st.button(label, icon=":material/stop_circle:", key=f"vs_stop_{job.key}", disabled=asked):
        try:
            library().cancel_job(job.key)
            asked = True
        except VitmaeSearchError as error:
            plain_text.notice(plain_text.as_sentence(error), "problem")
    if asked:
        plain_text.hint(message)


def watch_job(key: str) -> None:
    """Let `show_outcome` tell this visitor how a job ends, even if it never showed it running."""
    st.session_state["vs_watched"] = key


def show_outcome(*, of_maps: bool = False) -> None:
    """Say how the newest job ended: a failure to all, a success to those who started or watched it.

    Args:
        of_maps: The newest one that laid out a map, in place of those that write to the library.
    """
    jobs = [job for job in library().jobs(RECENT) if job.kind not in TRAININGS]
    newest = next((job for job in jobs if (job.kind in MAPS) == of_maps), None)
    if newest is None:
        return
    if newest.state == "running" and newest.kind not in WATCHES:
        watch_job(newest.key)
    # The key stays until the next job: the page may be drawn twice at the end, the first time unseen.
    watched = st.session_state.get("vs_watched") == newest.key
    if newest.state == "done" and watched:
        plain_text.notice(f"{job_title(newest)} is {_outcome_text(newest)}.", "good")
    elif newest.state == "failed":
        plain_text.notice(f"{job_title(newest)} failed: {newest.error or 'no reason given'}", "problem")
    elif newest.state == "interrupted":
        remains = _WHAT_REMAINS.get(newest.kind, "")
        plain_text.notice(f"{job_title(newest)} was interrupted{remains}. Do the same again to go on.")


def show_history() -> None:
    """The last jobs with their outcomes, in an expander."""
    ended = [job for job in library().jobs(RECENT) if job.state != "running"]
    if not ended:
        return
    with st.expander("Recent runs"):
        hosts = {job.host for job in ended}
        rows = [(local_time(job.started_at), job_title(job), _outcome_text(job)) for job in ended]
        if hosts <= {socket.gethostname()}:
            plain_text.table(("Began", "What", "Outcome"), rows)
        else:
            where = [display_path(job.host) for job in ended]
            on_hosts = [(*row, host) for row, host in zip(rows, where, strict=True)]
            plain_text.table(("Began", "What", "Outcome", "Machine"), on_hosts)


def _outcome_text(job: JobRecord) -> str:
    kept = _WHAT_REMAINS.get(job.kind, "") if job.state in ("cancelled", "interrupted") else ""
    report = job.report or {}
    words = [job.state + kept]
    if job.kind == "adapt" and job.state == "done":
        words.append(adapt_report.summary(report))
    counted = ("classified", "added", "updated", "moved", "missing", "failed")
    words += [f"{int_field(report, name):,} {name}" for name in counted if int_field(report, name)]
    others = report.get("not_looked_at")
    if isinstance(others, Mapping) and others:
        suffixes = [display_path(suffix) or "no suffix" for suffix in others]
        if len(suffixes) > SHOWN_SUFFIXES:
            suffixes[SHOWN_SUFFIXES:] = ["..."]
        words.append(f"{sum(others.values()):,} other files not looked at ({', '.join(suffixes)})")
    if job.error:
        words.append(job.error)
    return ", ".join(words)


def job_title(job: JobRecord) -> str:
    """What a job does, in a few words, as plain text."""
    if job.kind == "classify":
        where = f" in {job_folders(job)}" if job.arguments.get("folder") else ""
        return f"Classifying photos{where} by {display_path(str(job.arguments.get('model')))}"
    if job.kind == "adapt":
        return f"Adapting to {job_folders(job)}"
    if job.kind in MAPS:
        return "Laying out the map"
    if job.kind in TRAININGS:
        return training_title(job.kind, job_folders(job))
    return f"{'Watching' if job.kind in WATCHES else 'Indexing'} {job_folders(job)}"


def training_title(kind: str, folder: str | None) -> str:
    """What a training does, in a few words, as plain text.

    Args:
        kind: "pretrain", "finetune", or "" where that is not known yet.
        folder: The folder of photos, None where that is not known yet.
    """
    where = f" on {display_path(folder)}" if folder else ""
    return f"{_TRAINING_TITLES.get(kind, display_path(kind))}{where}"


def job_folders(job: JobRecord) -> str:
    """The folders that a job was given, as plain text."""
    folders = job.arguments.get("folders") or job.arguments.get("folder") or ()
    names = folders if isinstance(folders, list | tuple) else [folders]
    return ", ".join(display_path(str(name)) for name in names) or job.kind


def int_field(values: Mapping[str, object], name: str) -> int:
    """An integer of a JSON object, 0 where there is none.

    Args:
        values: The object.
        name: The field.
    """
    value = values.get(name)
    return value if isinstance(value, int) else 0


def duration(seconds: float) -> str:
    """A duration as people read it: 40 s, 12 min, 2 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def local_time(moment: datetime) -> str:
    """Date and time in this machine's time zone."""
    return f"{moment.astimezone():%d %b %Y, %H:%M}"
