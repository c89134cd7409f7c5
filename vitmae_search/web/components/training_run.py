"""One training run on the page, read from its folder anew every few seconds while it is running."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import streamlit as st

from vitmae_search.errors import PhotoError, TrainingError, VitmaeSearchError, display_path
from vitmae_search.library.previews import preview
from vitmae_search.records import JobRecord
from vitmae_search.training_runs import TrainingRun, TrainingState, read_training_run
from vitmae_search.web.components import film_strip, job_status, loss_chart, plain_text
from vitmae_search.web.components.model_choice import PARAMETER
from vitmae_search.web.components.typed_folder import full_path
from vitmae_search.web.server.session import library

State = TrainingState | Literal["starting", "none"]

REFRESH_SECONDS: dict[State, float] = {
    "starting": 1.0,
    "running": 2.0,
    "finished": 10.0,
    "interrupted": 10.0,
    "none": 10.0,
}
_BADGES = {"running": "running", "finished": "finished", "interrupted": "stopped"}
_PICTURE_CAPTIONS = {
    "reconstructions.png": "Photos that it learns from. In each row: the photo, what the model saw, what it "
    "made of that, and its guess between the patches that it saw.",
    "confusion.png": "Which class (row) was taken for which (column), on photos held out.",
}
_PICTURE_SIDE = 1400
_LOOK_PAGES = (
    ("reconstructions", "Reconstruct a photo", ":material/grid_view:"),
    ("inside", "Look inside", ":material/visibility:"),
)


def show_run(folder: str) -> None:
    """Show the run in `folder`, redrawn by itself; when it begins or ends, the whole page is."""
    state = _state(folder)
    st.fragment(_draw, run_every=REFRESH_SECONDS[state])(folder, state)


def _state(folder: str) -> State:
    try:
        return read_training_run(folder).state
    except TrainingError:
        job = _job_of(folder)
        return "starting" if job is not None and job.state == "running" else "none"


def _draw(folder: str, expected: State) -> None:
    with plain_text.errors_as_notices():
        if _state(folder) != expected:
            st.rerun(scope="app")
        job = _job_of(folder)
        if expected == "starting":
            st.progress(0.0, text="Starting")
            return
        if expected == "none" and _show_failure(job):
            return
        run = read_training_run(folder)
        _progress(run, job)
        film_strip.show(run.folder)
        loss_chart.draw(run.lines)
        pictures = [name for name in _PICTURE_CAPTIONS if (run.folder / name).is_file()]
        left, right = st.columns([5, 4], gap="medium") if pictures else (None, st.container())
        for name in pictures:
            with left or right:
                _show_picture(run.folder / name, _PICTURE_CAPTIONS[name])
        with right:
            _usage(run)
            _options(run)


def _job_of(folder: str) -> JobRecord | None:
    """The newest job of this library that trains into `folder`; None where it was started elsewhere."""
    output = os.path.abspath(folder)
    return next((job for job in library().jobs(50) if job.arguments.get("output") == output), None)


def _progress(run: TrainingRun, job: JobRecord | None) -> None:
    with st.container(border=True):
        detail = f"in {display_path(run.folder)}"
        plain_text.card(
            job_status.training_title(run.kind, run.photos_folder), detail, badge=_BADGES[run.state]
        )
        if run.state != "finished":
            st.progress(run.fraction, text=_progress_text(run))
        with st.container(horizontal=True, gap="medium"):
            for label, value in metrics(run):
                st.metric(label, value, width="content")
        if run.state != "running":
            _show_failure(job)
        _buttons(run, job)


def _progress_text(run: TrainingRun) -> str:
    """Numbers and our own words only: the progress bar's text is Markdown."""
    if run.lines or run.state != "running":
        return f"{run.fraction:.0%}"
    return "Learning has begun" if run.kind else "Reading photos"


def metrics(run: TrainingRun) -> list[tuple[str, str]]:
    """(name, value) of the run's key figures, those that are known."""
    last = run.lines[-1] if run.lines else {}
    rows = []
    if "epoch" in last:
        rows.append(("Epochs", f"{last['epoch']:.1f}"))
    if "loss" in last:
        rows.append(("Loss", f"{last['loss']:.4f}"))
    if "accuracy" in last:
        rows.append(("Accuracy", f"{last['accuracy']:.1%}"))
    if "images_per_second" in last:
        digits = 0 if last["images_per_second"] >= 10 else 1
        rows.append(("Images a second", f"{last['images_per_second']:,.{digits}f}"))
    if "seconds" in last:
        rows.append(("Time trained", job_status.duration(last["seconds"])))
    if run.remaining is not None:
        rows.append(("Left", job_status.duration(run.remaining)))
    return rows


def _show_failure(job: JobRecord | None) -> bool:
    """Whether the run failed; if so, show why."""
    if job is None or job.state != "failed":
        return False
    plain_text.notice(plain_text.as_sentence(job.error or "it failed and gave no reason"), "problem")
    return True


def _buttons(run: TrainingRun, job: JobRecord | None) -> None:
    if run.state == "running":
        if job is None or job.state != "running":
            plain_text.hint("It was started elsewhere: Ctrl-C there stops it, and keeps what it learned.")
            return
        message = "Stopping after this step. What it learned is kept, and it can go on from there."
        job_status.stop_button(job, "Stop", message)
    elif run.state == "interrupted" and run.kind == "pretrain" and run.photos_folder:
        icon = ":material/play_arrow:"
        help_text = "From its last checkpoint, as if it had never stopped."
        if st.button("Go on", icon=icon, key="vs_train_go_on", help=help_text):
            start_pretraining(run.photos_folder, run.folder)


def start_pretraining(folder: str, output: Path, *options: str) -> None:
    """Pretrain in a child process, and draw the page anew with its progress.

    Args:
        folder: The photos to learn from.
        output: The run's folder.
        *options: Further words of the command line of `pretrain`.
    """
    try:
        with st.spinner("Starting…"):
            library().start_job("pretrain", full_path(folder), "-o", os.fspath(output), *options)
        st.session_state["vs_run_next"] = os.fspath(output)
    except VitmaeSearchError as error:
        plain_text.queue_notice(plain_text.as_sentence(error), "problem")
    st.rerun(scope="app")


def _show_picture(path: Path, caption: str) -> None:
    try:
        picture = preview(path, _PICTURE_SIDE)
    except PhotoError as error:
        plain_text.notice(plain_text.as_sentence(error), "problem")
        return
    plain_text.card(path.stem.capitalize(), caption)
    st.image(picture, alt=caption)


def _usage(run: TrainingRun) -> None:
    """The commands that use the checkpoint, ready to copy."""
    if run.checkpoint is None:
        return
    plain_text.card("Use it", f"The checkpoint is {display_path(run.checkpoint)}. Look at a photo with it:")
    with st.container(horizontal=True):
        parameters = {PARAMETER: os.fspath(run.checkpoint)}
        for page, label, icon in _LOOK_PAGES:
            st.page_link(f"../pages/{page}.py", label=label, icon=icon, query_params=parameters)
    plain_text.hint("To search with it:")
    for line in commands(run, [root.path for root in library().status().roots]):
        plain_text.command(line)


def commands(run: TrainingRun, roots: list[str]) -> list[str]:
    """The commands to search with the run's model; a classifier gives tags, too.

    Args:
        run: The run, which has a checkpoint.
        roots: The library's folders.
    """
    where = ["--library", os.fspath(library().folder), "--model", os.fspath(run.folder)]
    lines = [["vitmae-search", "index", *(roots or ["FOLDER"]), *where]]
    if run.kind == "finetune":
        lines.append(["vitmae-search", "classify", *where])
    return [shlex.join(display_path(word) for word in line) for line in lines]


def _options(run: TrainingRun) -> None:
    with st.expander("Options"):
        plain_text.table(("Option", "Value"), option_rows(run.metadata))


def option_rows(metadata: Mapping[str, object]) -> list[tuple[str, str]]:
    """(name, value) of everything in run.json, as text; nested names are joined."""
    rows = []
    for name, value in metadata.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {inner}", text) for inner, text in option_rows(value)]
        else:
            rows.append((name, display_path(value) if isinstance(value, str) else _as_text(value)))
    return [(display_path(name), text) for name, text in rows]


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
