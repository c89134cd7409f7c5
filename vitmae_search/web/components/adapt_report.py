"""What adapting to a person's photos achieved: how often a changed photo was found, before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import JobRecord
from vitmae_search.web.components import plain_text

CHANGE_TITLES = {
    "crop-40": "cropped to 40 % of its area",
    "crop-80": "cropped to 80 % of its area",
    "corner-crop": "a corner of it, 35 % of each side",
    "rotated+15": "turned left by 15°",
    "rotated-15": "turned right by 15°",
    "rotated+15-corners": "turned by 15°, with black corners",
    "rotated+90": "turned left by 90°",
    "rotated-90": "turned right by 90°",
    "mirrored": "mirrored",
    "recoloured": "other colours",
    "filter": "with a filter",
    "grey": "without colours",
    "jpeg-20": "saved at low quality",
    "jpeg-5-small": "small and saved at very low quality",
    "sticker": "with a line of text on it",
    "margin": "with a white margin",
    "screenshot-black": "a phone's screenshot with black bars",
    "screenshot-white": "a phone's screenshot with white bars",
    "viewer-window": "in a viewer's window",
    "all": "all of these",
}


def summary(report: Mapping[str, object]) -> str:
    """In a few words whether the new projection was kept, and what it gained."""
    before, after = recall_at_1(report, "before", "all"), recall_at_1(report, "after", "all")
    found = "" if before is None or after is None else f" ({before:.1%} found before, {after:.1%} after)"
    if not report.get("kept"):
        return f"nothing was changed, as it was not better beyond chance{found}"
    return f"searches use the new space {report.get('space')}, which is better{found}"


def show_latest(jobs: Iterable[JobRecord]) -> None:
    """Show the comparison of the newest job that adapted; nothing where there is none."""
    job = next((job for job in jobs if job.kind == "adapt" and job.state == "done" and job.report), None)
    if job is None or job.report is None:
        return
    rows = comparison_rows(job.report)
    if rows:
        with st.expander("What adapting did"):
            folder = display_path(str(job.arguments.get("folder")))
            plain_text.hint(
                f"Photos of {folder} that it did not learn from were changed, and looked for among the "
                "originals. How often the right one came first:"
            )
            plain_text.table(("The photo is", "Before", "After"), rows)
            plain_text.hint(plain_text.as_sentence(summary(job.report)))


def comparison_rows(report: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """(change, before, after) for each kind of change: how often the right photo came first, as text."""
    kinds = report.get("before")
    rows = []
    for kind in kinds if isinstance(kinds, dict) else ():
        before, after = recall_at_1(report, "before", kind), recall_at_1(report, "after", kind)
        if before is not None and after is not None:
            rows.append((CHANGE_TITLES.get(kind, display_path(kind)), f"{before:.1%}", f"{after:.1%}"))
    return rows


def recall_at_1(report: Mapping[str, object], when: str, kind: str) -> float | None:
    """The share, 0 to 1, of changed photos whose original was found first; None where it is not known.

    Args:
        report: What `adapt` reported.
        when: "before" or "after".
        kind: The kind of change, or "all".
    """
    found: object = report
    for name in (when, kind, "value"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, float | int) else None
