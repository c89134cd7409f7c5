"""What adapting to a person's photos came to: how often a changed photo was found, before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import Run
from vitmae_search.web.components import plain_text

CHANGES = {
    "crop-40": "cropped to 40 % of its area",
    "crop-80": "cropped to 80 % of its area",
    "rotated+15": "turned left by 15°",
    "rotated-15": "turned right by 15°",
    "rotated+15-corners": "turned by 15°, with black corners",
    "recoloured": "other colours",
    "grey": "without colours",
    "jpeg-20": "saved at low quality",
    "screenshot": "a screenshot of it",
    "mirrored": "mirrored",
    "all": "all of these",
}


def verdict(report: Mapping[str, object]) -> str:
    """In a few words whether it was kept, and what it gained."""
    before, after = recall(report, "before", "all"), recall(report, "after", "all")
    found = "" if before is None or after is None else f" ({before:.1%} found before, {after:.1%} after)"
    if not report.get("kept"):
        return f"nothing was changed, as it was not better beyond chance{found}"
    return f"searches use the new space {report.get('space')}, which is better{found}"


def latest(runs: Iterable[Run]) -> None:
    """The comparison of the newest run that adapted, kind by kind; nothing where there is none."""
    run = next((run for run in runs if run.kind == "adapt" and run.state == "done" and run.report), None)
    if run is None or run.report is None:
        return
    rows = comparison(run.report)
    if rows:
        with st.expander("What adapting did"):
            folder = display_path(str(run.arguments.get("folder")))
            plain_text.hint(
                f"Photos of {folder} that it did not learn from were changed, and looked for among the "
                "originals. How often the right one came first:"
            )
            plain_text.table(("The photo is", "Before", "After"), rows)
            plain_text.hint(plain_text.sentence(verdict(run.report)))


def comparison(report: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """Each kind of change with the shares that were found first, for people."""
    kinds = report.get("before")
    rows = []
    for kind in kinds if isinstance(kinds, dict) else ():
        before, after = recall(report, "before", kind), recall(report, "after", kind)
        if before is not None and after is not None:
            rows.append((CHANGES.get(kind, display_path(kind)), f"{before:.1%}", f"{after:.1%}"))
    return rows


def recall(report: Mapping[str, object], when: str, kind: str) -> float | None:
    """The share, 0 to 1, of photos changed in this way that were found first."""
    found: object = report
    for name in (when, kind, "value"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, float | int) else None
