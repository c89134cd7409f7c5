"""What is not in the library, and why: files that failed, folders that were not looked into, other files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.web.components import job_status, plain_text
from vitmae_search.web.server.session import library

SHOWN = 200
"""Lines of a table at most."""


def draw() -> None:
    """The tables; nothing where nothing was skipped."""
    with plain_text.errors_as_notices():
        failed = [(display_path(failure.path), failure.reason) for failure in library().failures()]
        reports = _latest_reports()
        unread = [
            (display_path(str(one["path"])), str(one["reason"]))
            for report in reports
            for one in report.get("problems") or ()
        ]
        left_out = [
            (display_path(str(folder)), "systems and other programs keep copies of photos in it")
            for report in reports
            for folder in report.get("left_out") or ()
        ]
        others = _other_files(reports)
        if not (failed or unread or left_out or others):
            return
        st.subheader("What was skipped, and why", anchor=False)
        _table("Files that could not be used", ("File", "Reason"), failed)
        _table("Folders that could not be looked into", ("Folder", "Reason"), unread)
        _table("Folders that were left out", ("Folder", "Reason"), left_out)
        _table("Files that are no photos", ("Suffix", "Files"), others)


def _table(title: str, head: tuple[str, str], rows: list[tuple[str, str]]) -> None:
    if not rows:
        return
    plain_text.heading(title)
    plain_text.table(head, rows[:SHOWN])
    if len(rows) > SHOWN:
        plain_text.hint(f"and {len(rows) - SHOWN:,} more")


def _latest_reports() -> list[Mapping[str, Any]]:
    """The report of the newest run over each set of folders."""
    found: dict[str, Mapping[str, Any]] = {}
    for job in library().jobs(job_status.MANY):
        if job.kind == "index" and job.report and not job.report.get("interrupted"):
            found.setdefault(str(job.arguments.get("folders")), job.report)
    return list(found.values())


def _other_files(reports: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How many files have each suffix, most first."""
    counts: dict[str, int] = {}
    for report in reports:
        for suffix, count in (report.get("not_looked_at") or {}).items():
            counts[suffix] = counts.get(suffix, 0) + int(count)
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(display_path(suffix) or "none", f"{count:,}") for suffix, count in most_first]
