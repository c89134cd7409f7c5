"""Long jobs on the page: read from the catalogue, so every browser sees the same, whoever began them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import streamlit as st

from vitmae_search.errors import VitmaeSearchError, display_path
from vitmae_search.records import Run
from vitmae_search.web.components import adapt_report, plain_text
from vitmae_search.web.server.session import library

RECENT = 10
TRAININGS = frozenset({"pretrain"})
"""Jobs that leave the library to others meanwhile; the Training page shows them."""

_TRAINING = {"pretrain": "Pretraining", "finetune": "Fine-tuning", "": "Training"}
_PHASES = {
    "scanning": "Looking through the folder",
    "indexing": "Reading photos",
    "classifying": "Classifying photos",
    "encoding": "Reading photos",
    "training": "Learning",
    "finishing": "Finishing",
    "done": "Finishing",
}
_KEPT = {
    "index": ", finished photos kept",
    "classify": ", finished photos kept",
    "pretrain": ", what it learned is kept",
    "adapt": ", nothing was changed",
}


def running(*, trainings: bool = False) -> list[Run]:
    """The runs that go on now and write to the library, newest first; with `trainings` those, too."""
    going_on = [run for run in library().runs(RECENT) if run.state == "running"]
    return [run for run in going_on if trainings or run.kind not in TRAININGS]


def watch(until: Callable[[], bool] = lambda: False) -> bool:
    """The running jobs, redrawn on their own; the whole page is when one begins or ends, or `until` holds.

    Returns whether there are any.
    """
    busy = running()
    keys = [run.key for run in busy]
    # A second browser learns of a run too, at a gentler pace.
    st.fragment(_draw, run_every=1.0 if busy else 4.0)(keys, until)
    return bool(busy)


def _draw(expected: list[str], until: Callable[[], bool]) -> None:
    with plain_text.errors_as_notices():
        busy = running()
        if [run.key for run in busy] != expected or until():
            st.rerun(scope="app")
        for run in busy:
            _progress(run)


def _progress(run: Run) -> None:
    progress = run.progress
    done, total = number(progress, "done"), progress.get("total")
    with st.container(border=True):
        plain_text.heading(doing(run))
        share = min(1.0, done / total) if isinstance(total, int) and total > 0 else 0.0
        st.progress(share, text=_phase(progress, done, total))
        current = progress.get("current")
        if isinstance(current, str) and current:
            plain_text.hint(display_path(current))
        kept = "Nothing is changed" if run.kind == "adapt" else "Photos that are finished stay in the library"
        stop_button(run, "Cancel", f"Stopping after this batch. {kept}.")


def stop_button(run: Run, label: str, said: str) -> None:
    """A button that asks the run to stop, and what is `said` from then on. Pressed again, it insists."""
    if st.button(label, icon=":material/stop_circle:", key=f"vs_stop_{run.key}"):
        try:
            library().cancel_run(run.key)
        except VitmaeSearchError as error:
            plain_text.notice(plain_text.sentence(error), "problem")
        else:
            st.session_state["vs_stopping"] = run.key
    if st.session_state.get("vs_stopping") == run.key:
        plain_text.hint(said)


def _phase(progress: Mapping[str, object], done: int, total: object) -> str:
    """Numbers and our own words only: the progress bar's text is Markdown."""
    words = [_PHASES.get(str(progress.get("phase")), "Starting")]
    if total:
        words.append(f"{done:,} of {total:,}")
    elif done:
        words.append(f"{done:,}")
    rate = progress.get("photos_per_second")
    if isinstance(rate, int | float) and rate > 0:
        words.append(f"{rate:.1f} photos a second")
    if failed := number(progress, "failed"):
        words.append(f"{failed:,} failed")
    return " · ".join(words)


def say_outcome_of(key: str) -> None:
    """Whoever began a run is told how it ended, even where it is over before it was seen to go on."""
    st.session_state["vs_watched"] = key


def outcome() -> None:
    """How the newest run ended: a failure always, a success to those who began or watched it."""
    newest = next((run for run in library().runs(RECENT) if run.kind not in TRAININGS), None)
    if newest is None:
        return
    if newest.state == "running":
        say_outcome_of(newest.key)
    # Kept until the next run: a page that is drawn twice at the end would take it away unseen.
    watched = st.session_state.get("vs_watched") == newest.key
    if newest.state == "done" and watched:
        plain_text.notice(f"{doing(newest)} is {_outcome(newest)}.", "good")
    elif newest.state == "failed":
        plain_text.notice(f"{doing(newest)} failed: {newest.error or 'no reason given'}", "problem")
    elif newest.state == "interrupted":
        plain_text.notice(
            f"{doing(newest)} was interrupted{_KEPT.get(newest.kind, '')}. Do the same again to go on."
        )


def history() -> None:
    """What the last runs did."""
    ended = [run for run in library().runs(RECENT) if run.state != "running"]
    if not ended:
        return
    with st.expander("Recent runs"):
        rows = [(when(run.started_at), doing(run), _outcome(run)) for run in ended]
        plain_text.table(("Began", "What", "Outcome"), rows)


def _outcome(run: Run) -> str:
    kept = _KEPT.get(run.kind, "") if run.state in ("cancelled", "interrupted") else ""
    report = run.report or {}
    words = [run.state + kept]
    if run.kind == "adapt" and run.state == "done":
        words.append(adapt_report.verdict(report))
    counted = ("classified", "added", "updated", "moved", "missing", "failed")
    words += [f"{number(report, name):,} {name}" for name in counted if number(report, name)]
    if run.error:
        words.append(run.error)
    return ", ".join(words)


def doing(run: Run) -> str:
    """What a run does, in a few words, as text."""
    if run.kind == "classify":
        where = f" in {folder_of(run)}" if run.arguments.get("folder") else ""
        return f"Classifying photos{where} by {display_path(str(run.arguments.get('model')))}"
    if run.kind == "adapt":
        return f"Adapting to {folder_of(run)}"
    if run.kind in TRAININGS:
        return training_on(run.kind, folder_of(run))
    return f"Indexing {folder_of(run)}"


def training_on(kind: str, folder: str | None) -> str:
    """What a training does, in a few words, as text."""
    where = f" on {display_path(folder)}" if folder else ""
    return f"{_TRAINING.get(kind, display_path(kind))}{where}"


def folder_of(run: Run) -> str:
    """The folders that a run was given, as text."""
    folders = run.arguments.get("folders") or run.arguments.get("folder") or ()
    names = folders if isinstance(folders, list | tuple) else [folders]
    return ", ".join(display_path(str(name)) for name in names) or run.kind


def number(values: Mapping[str, object], name: str) -> int:
    """An integer out of a JSON object, 0 where there is none."""
    value = values.get(name)
    return value if isinstance(value, int) else 0


def when(moment: datetime) -> str:
    """Local date and time."""
    return f"{moment.astimezone():%d %b %Y, %H:%M}"
