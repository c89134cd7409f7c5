"""The Training page: a training run's progress and results, and a form to start one."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import streamlit as st

from vitmae_search.bundled import bundled
from vitmae_search.errors import display_path
from vitmae_search.settings import settings
from vitmae_search.training_runs import list_training_runs
from vitmae_search.web.components import job_status, plain_text, training_run
from vitmae_search.web.components.select_or_type import select_or_type
from vitmae_search.web.components.typed_folder import full_path
from vitmae_search.web.server.session import library

INTRO = (
    "A model learns from photos alone, without a label: most of each photo is hidden, and it guesses the "
    "rest. Trained on your own photos, it knows better what tells them apart."
)
SCRATCH = "A new, small model"
LOG_EVERY = "5"  # steps: often, for the curves on the page
PARAMETER = "run"  # of the address: the run that is shown
OUTPUTS = "trained"  # the folder in the library for models that are trained from this page


def page() -> None:
    """The selected run, by default the latest; then the form that starts one."""
    plain_text.show_queued_notice()
    runs = [os.fspath(folder) for folder in list_training_runs()]
    if not runs:
        plain_text.hint(INTRO)
    selected = _select_run(runs)
    if selected:
        with plain_text.errors_as_notices():
            training_run.show_run(full_path(selected))
    st.subheader("Train a model", anchor=False)
    if runs:
        plain_text.hint(INTRO)
    _form()


def _select_run(runs: list[str]) -> str | None:
    named = st.query_params.get(PARAMETER)
    if named is not None and named != st.session_state.get("vs_run_named"):
        st.session_state["vs_run"] = named
    if (started := st.session_state.pop("vs_run_next", None)) is not None:
        st.session_state["vs_run"] = started  # Streamlit allows this only before the field is drawn
    selected = select_or_type(
        "Run",
        runs,
        key="vs_run",
        option_label=run_label,
        placeholder="Choose a run, or type its folder",
        help="The runs of this machine, the latest first. Of another one, type the folder.",
    )
    if selected:  # the latest too, which will be another one after the next training
        st.query_params[PARAMETER] = selected
    else:
        st.query_params.pop(PARAMETER, None)
    st.session_state["vs_run_named"] = st.query_params.get(PARAMETER)
    return selected


def run_label(folder: str) -> str:
    """A run's folder as text, its own name first: a phone shows no more."""
    parent, name = os.path.split(os.path.normpath(folder))
    return display_path(f"{name} · {parent}" if name else folder)


def _form() -> None:
    busy = job_status.blocking_jobs(include_trainings=True)
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
        watched = st.text_input(
            "A photo to watch",
            placeholder="Four of these photos, unless you name one",
            key="vs_train_film_photo",
            help="The full path of a photo. The film strip shows how the model learns to complete it.",
        )
        icon = ":material/model_training:"
        sent = st.form_submit_button("Start training", icon=icon, type="primary", disabled=bool(busy))
    if busy:
        plain_text.hint(f"{job_status.job_title(busy[0])}. One thing at a time: start when that is done.")
    if sent:
        _submit(folder, start_from, int(minutes), int(epochs), watched)


def _submit(folder: str, start_from: str, minutes: int, epochs: int, watched: str) -> None:
    if not folder.strip():
        plain_text.notice("Type the folder's path first.", "problem")
        return
    options = ["--max-minutes", str(minutes), "--epochs", str(epochs), "--device", settings().device]
    options += ["--log-every", LOG_EVERY]
    if start_from != SCRATCH:
        options += ["--init", start_from]
    if watched.strip():
        options += ["--film-photo", os.path.expanduser(watched.strip())]
    training_run.start_pretraining(folder.strip(), new_output(), *options)


def new_output() -> Path:
    """The path of a new run's folder in the library."""
    return library().folder / OUTPUTS / f"pretrain-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}"


def bundled_models() -> list[str]:
    """The models that came with the app."""
    folder = bundled("data/models")
    return sorted(place.name for place in folder.iterdir() if (place / "model.safetensors").is_file())


if __name__ == "__main__":
    st.title("Training", anchor=False)
    with plain_text.errors_as_notices():
        page()
