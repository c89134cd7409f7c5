"""The Browse page: all photos of the library, by folder and by date, without a query."""

from __future__ import annotations

import streamlit as st

from vitmae_search.web.components import export_menu, filter_bar, filters, job_status, plain_text, selection
from vitmae_search.web.components.browse_batch import next_batch
from vitmae_search.web.components.filter_parameters import PARAMETERS, Filters, read_order
from vitmae_search.web.components.grid import browse_grid
from vitmae_search.web.server.session import library


def page() -> None:
    """The folders and dates, the filters, and the photos that pass them."""
    plain_text.show_queued_notice()
    if not library().status().photos:
        plain_text.empty_library()
        if job_status.running_jobs():
            job_status.show_running(rerun_if=lambda: library().count_photos() > 0)
        return
    active = filters.of_address()
    side, photos = st.columns([1, 4], gap="medium")
    with photos:
        _photos(active)
    with side, st.container(key="vs_rail"):  # drawn last, as its counts take longer
        filter_bar.draw_rail(active, key="vs_rail_lists")


def _photos(active: Filters) -> None:
    filter_bar.draw(active, sort=filter_bar.SORT, first_sort="newest", key="vs_bar")
    if active.problem:
        plain_text.notice(active.problem, "problem")
        return
    asked = {name: value for name, value in st.query_params.to_dict().items() if name in PARAMETERS}
    order = read_order(st.query_params.to_dict()) or "newest"
    total = library().count_photos(active.where)
    plain_text.hint(f"{total:,} photo{'' if total == 1 else 's'}")
    if not total:
        plain_text.notice("No photo passes these filters.")
    with st.container(horizontal=True, vertical_alignment="center"):
        selection.switch()
        export_menu.draw(active.where)
    selection.bar(
        lambda: [photo.photo_id for photo in library().photos(active.where)],
        everything="All that pass the filters",
        album=active.where.album,
    )
    shown, more = next_batch(active.where, order, asked)
    label = f"Photos, {filter_bar.SORT[order].lower()}"
    start = f"{asked} {order}"
    browse_grid(
        shown,
        key="vs_photos",
        label=label,
        more=more,
        total=total,
        start=start,
        selected=selection.selected(),
        on_select=selection.toggle,
    )


if __name__ == "__main__":
    st.title("Browse", anchor=False)
    with plain_text.errors_as_notices():
        page()
