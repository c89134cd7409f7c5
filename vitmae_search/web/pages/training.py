"""The Training page: how far a training is, what it has learned, and the start of one."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import streamlit as st

from vitmae_search.bundled import bundled
from vitmae_search.errors import display_path
from vitmae_search.settings import settings
from vitmae_search.training_runs import trained_runs
from vitmae_search.web.components import job_status, plain_text, training_run
from vitmae_search.web.server.session import library

INTRO = (
    "A model learns from photos alone, without a label: most of each photo is hidden, and it guesses the "
    "rest. Trained on your own photos, it knows better what tells them apart."
)
SCRATCH = "A new, small model"
LOG_EVERY = "5"  # steps: whoever watches a curve waits for its points
OUTPUTS = "trained"  # the folder in the library where the models that are trained here lie


def page() -> None:
    """The run that is chosen, by default the latest; then the form that starts one."""
    plain_text.said_last_time()
    runs = [os.fspath(folder) for folder in trained_runs()]
    if not runs:
        plain_text.hint(INTRO)
    chosen = _choose(runs)
    if chosen:
        training_run.watch(os.path.expanduser(chosen))
    st.subheader("Train a model", anchor=False)
    if runs:
        plain_text.hint(INTRO)
    _start()


def _choose(runs: list[str]) -> str | None:
    if (started := st.session_state.pop("vs_run_next", None)) is not None:
        st.session_state["vs_run"] = started  # before the field is drawn, Streamlit lets it be set
    return st.selectbox(
        "Run",
        runs,
        index=0 if runs else None,
        format_func=run_label,
        key="vs_run",
        placeholder="Choose a run, or type its folder",
        accept_new_options=True,
        help="The runs of this machine, the latest first. Of another one, type the folder.",
    )


def run_label(folder: str) -> str:
    """The folder's own name first: a phone shows no more."""
    parent, name = os.path.split(os.path.normpath(folder))
    return display_path(f"{name} · {parent}" if name else folder)


def _start() -> None:
    busy = job_status.running(trainings=True)
    roots = library().status().roots
    with st.form("vs_train"):
        folder = st.text_input(
            "Folder of photos to learn from",
            value=next((root.path for root in roots if display_path(root.path) == root.path), ""),
            placeholder=os.path.join(os.path.expanduser("~"), "Pictures"),
            key="vs_train_folder",
            help="The full path. Folders inside it are included. The photos are never changed.",
        )
        with st.container(horizontal=True):
            start_from = st.selectbox(
                "Begin with",
                [SCRATCH, *bundled_models()],
                key="vs_train_init",
                help="A new model needs many thousands of photos and hours. One that has learned before goes "
                "on learning from yours.",
            )
            minutes = st.number_input("Minutes at most", 1, 100_000, 30, key="vs_train_minutes", width=160)
            epochs = st.number_input(
                "Epochs at most",
                1,
                100_000,
                100,
                key="vs_train_epochs",
                width=160,
                help="Passes over all photos. Minutes or epochs, whichever comes first.",
            )
        icon = ":material/model_training:"
        sent = st.form_submit_button("Start training", icon=icon, type="primary", disabled=bool(busy))
    if busy:
        plain_text.hint(f"{job_status.doing(busy[0])}. One thing at a time: start when that is done.")
    if sent:
        _started(folder, start_from, int(minutes), int(epochs))


def _started(folder: str, start_from: str, minutes: int, epochs: int) -> None:
    if not folder.strip():
        plain_text.notice("Type the folder's path first.", "problem")
        return
    options = ["--max-minutes", str(minutes), "--epochs", str(epochs), "--device", settings().device]
    options += ["--log-every", LOG_EVERY]
    if start_from != SCRATCH:
        options += ["--init", start_from]
    training_run.begin(folder.strip(), new_output(), *options)


def new_output() -> Path:
    """A folder of the library that is not there yet."""
    return library().folder / OUTPUTS / f"pretrain-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}"


def bundled_models() -> list[str]:
    """The models that came with the app."""
    folder = bundled("data/models")
    return sorted(place.name for place in folder.iterdir() if (place / "model.safetensors").is_file())


if __name__ == "__main__":
    st.title("Training", anchor=False)
    with plain_text.errors_as_notices():
        page()
