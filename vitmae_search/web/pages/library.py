"""The Library page: folders, index runs, failures with their reasons, and embedding spaces."""

from __future__ import annotations

import os

import streamlit as st

from vitmae_search.address import is_address
from vitmae_search.errors import VitmaeSearchError, display_path
from vitmae_search.library.previews import can_decode_videos
from vitmae_search.records import LibraryStatus, Root
from vitmae_search.web.components import (
    adapt_report,
    folder_changes,
    job_status,
    plain_text,
    skipped,
    spaces,
    watching,
)
from vitmae_search.web.components.typed_folder import full_path
from vitmae_search.web.server.session import has_only_samples, library


def page() -> None:
    """Everything about the library; for an empty one, only the field for its first folder."""
    status = library().status()
    # The first run is seen before the folder that it reads is recorded.
    running = job_status.show_running(rerun_if=lambda: not status.roots and bool(library().status().roots))
    busy = bool(job_status.blocking_jobs())
    job_status.show_outcome()
    plain_text.show_queued_notice()
    if not status.roots:
        if not running:
            plain_text.empty_state(
                "Begin with a folder of photos",
                "Type its path below. Its photos are read on this machine, nothing is uploaded, and they are "
                "never changed. You can search while it is being read.",
            )
        _add_folder("Folder of photos", busy)
        return
    samples = has_only_samples(status)
    if samples:
        _add_folder("These are sample photos. Add a folder of your own", busy)
    watching.draw()
    refresh = job_status.COUNTS_REFRESH_SECONDS if running else None  # while a job runs, they are read again
    st.fragment(_contents, run_every=refresh)(busy)
    if not samples:
        _add_folder("Add another folder", busy)
    job_status.show_history()
    st.fragment(skipped.draw, run_every=refresh)()
    st.fragment(_spaces, run_every=refresh)(busy)
    adapt_report.show_latest(library().jobs(job_status.RECENT))
    plain_text.hint(f"This library is kept in {display_path(status.library)}")


def _contents(busy: bool) -> None:
    """Counts and folders."""
    with plain_text.errors_as_notices():
        status = library().status()
        _counts(status)
        if status.database is not None:
            plain_text.hint(f"The catalogue is in {display_path(status.database)}.")
        folder_changes.draw_prune(status.missing, disabled=busy)
        _folders(status, busy)


def _counts(status: LibraryStatus) -> None:
    with st.container(horizontal=True, gap="medium"):
        st.metric("Photos", f"{status.photos:,}", width="content")
        st.metric(
            "Different pictures",
            f"{status.contents:,}",
            width="content",
            help="Copies of a file share one entry: they are compared once.",
        )
        st.metric(
            "Missing",
            f"{status.missing:,}",
            width="content",
            help="Files that were there once and are not any more. If they come back, nothing is read again.",
        )
        st.metric(
            "Failed",
            f"{status.failed:,}",
            width="content",
            help="Files that could not be used; the reasons are below.",
        )


def _folders(status: LibraryStatus, busy: bool) -> None:
    st.subheader("Folders", anchor=False)
    failed = [failure.path for failure in library().failures()]
    for root in status.roots:
        with st.container(
            border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
        ):
            badge = "offline" if root.offline else None
            plain_text.card(display_path(root.path), _root_detail(root), badge=badge)
            inside = os.path.join(root.path, "")
            _folder_buttons(root, any(path.startswith(inside) for path in failed), busy)


def _folder_buttons(root: Root, failed: bool, busy: bool) -> None:
    with st.container(horizontal=True, width="content"):
        if failed and st.button(
            "Retry failed",
            key=f"vs_retry_{root.root_id}",
            disabled=busy,
            help="A file that could not be used is not tried again while it stays as it is; this does.",
        ):
            start(root.path, "--retry-failed")
        icon = ":material/refresh:"
        if st.button("Index again", icon=icon, key=f"vs_again_{root.root_id}", disabled=busy):
            start(root.path)
        if st.button(
            "Adapt",
            icon=":material/tune:",
            key=f"vs_adapt_{root.root_id}",
            disabled=busy or root.offline,
            help="Learn from these photos, for some minutes, to find photos better. Searches change only if "
            "photos held out are found better.",
        ):
            start(root.path, command="adapt")
        folder_changes.draw_forget(root, disabled=busy)
        with st.popover("More", key=f"vs_more_{root.root_id}"):
            _more(root, busy)


def _more(root: Root, busy: bool) -> None:
    """What is done rarely with a folder."""
    if st.button(
        "Read everything again",
        icon=":material/sync:",
        key=f"vs_rescan_{root.root_id}",
        disabled=busy or root.offline,
        help="Also files whose size and date have not changed. Takes long; nothing is embedded anew that is "
        "the same.",
    ):
        start(root.path, "--rescan")
    if st.button(
        "Watch for changes",
        icon=":material/visibility:",
        key=f"vs_watch_{root.root_id}",
        disabled=busy or root.offline or is_address(root.path) or watching.is_watched(root.path),
        help="A storage reports no changes; index again now and then."
        if is_address(root.path)
        else "New photos can be searched within seconds, until you stop it.",
    ):
        start(root.path, "--watch")
    folder_changes.draw_relocate(root, disabled=busy)


def _root_detail(root: Root) -> str:
    count = f"{root.photos:,} photo{'' if root.photos == 1 else 's'}"
    if root.offline:
        away = "Its storage could not be reached" if is_address(root.path) else "Its drive is away"
        return f"{count}. {away}; nothing of it is lost until you forget it."
    return count


def _add_folder(label: str, busy: bool) -> None:
    if st.session_state.pop("vs_started", False):
        st.session_state["vs_folder"] = ""  # Streamlit allows this only before the field is drawn
    form = st.form("vs_add")
    with form, st.container(horizontal=True, vertical_alignment="bottom"):
        typed = st.text_input(
            label,
            placeholder=os.path.join(os.path.expanduser("~"), "Pictures"),
            key="vs_folder",
            help="The full path, or s3://bucket/folder. Folders inside it are included, hidden ones are not.",
        )
        videos = can_decode_videos() and st.checkbox(
            "Videos, too", key="vs_videos", help="Frames of videos are found as photos are."
        )
        icon = ":material/create_new_folder:"
        sent = st.form_submit_button("Index this folder", icon=icon, type="primary", disabled=busy)
    if sent:
        if typed.strip():
            start(typed.strip(), *(["--videos"] if videos else []))
        else:
            plain_text.notice("Type the folder's path first.", "problem")


def start(folder: str, *options: str, command: str = "index") -> None:
    """Start a job in a child process, and draw the page anew with its progress.

    Args:
        folder: What the command works on.
        *options: Further words of its command line.
        command: "index" or "adapt".
    """
    try:
        with st.spinner("Starting…"):
            job_status.watch_job(library().start_job(command, full_path(folder), *options))
        st.session_state["vs_started"] = True
    except VitmaeSearchError as error:
        plain_text.queue_notice(plain_text.as_sentence(error), "problem")
    st.rerun()


def _spaces(busy: bool) -> None:
    with plain_text.errors_as_notices():
        spaces.draw(library().status().spaces, busy=busy)


if __name__ == "__main__":
    st.title("Library", anchor=False)
    with plain_text.errors_as_notices():
        page()
