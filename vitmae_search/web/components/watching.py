"""The jobs that watch folders for changes, each with a button that stops it."""

from __future__ import annotations

import streamlit as st

from vitmae_search.web.components import job_status, plain_text

_REFRESH_SECONDS = 4.0


def draw() -> None:
    """The running ones; nothing while there are none. Drawn again by itself, and the page when one ends."""
    running = job_status.running_watches()
    if running:
        st.fragment(_draw, run_every=_REFRESH_SECONDS)([job.key for job in running])


def is_watched(folder: str) -> bool:
    """Whether a job watches a folder."""
    return any(folder in (job.arguments.get("folders") or ()) for job in job_status.running_watches())  # type: ignore[operator]


def _draw(expected: list[str]) -> None:
    with plain_text.errors_as_notices():
        running = job_status.running_watches()
        if [job.key for job in running] != expected:
            st.rerun(scope="app")
        for job in running:
            with st.container(border=True, horizontal=True, vertical_alignment="center"):
                since = job_status.local_time(job.started_at)
                plain_text.card(job_status.job_title(job), f"Since {since}. What changes is indexed at once.")
                job_status.stop_button(job, "Stop watching", "It ends within a second.")
