"""The Match page: why a photo was found for a picture, square by square. Results of a search lead here."""

from __future__ import annotations

import streamlit as st

from vitmae_search.errors import InspectionError
from vitmae_search.inspection.figures import match_figure
from vitmae_search.library.json_forms import explanation_json
from vitmae_search.records import MatchExplanation, RegionExplanation
from vitmae_search.web.components import (
    inspections,
    model_choice,
    patch_maps,
    plain_text,
    query_picker,
    region_box,
    view_downloads,
)
from vitmae_search.web.components.patch_maps import PatchedPicture
from vitmae_search.web.components.photo_address import named_photo
from vitmae_search.web.components.photo_tile import photo_name

INTRO = "Search for a photo, open a hit, and choose “Why did this match”: this page then compares the two."
CORRESPONDING, ADDED = "What corresponds", "What counts"
SENTENCES = {
    CORRESPONDING: "Point at a square of either picture: what looks most alike lights up in the other.",
    ADDED: "Purple squares make the two pictures more alike to the model, brown ones less.",
}
FORMULAS = {
    CORRESPONDING: "Cosines of the patches' features after the layer, once the mean of both pictures is "
    "taken away. Lines connect patches that are each other's best. `vitmae_search/inspection/match.py`",
    ADDED: "The score is the cosine of two vectors. Each vector is a sum over patches: means and deviations "
    "are sums, the projection is a matrix, a ReLU passes the same components on whichever patch they are "
    "from. So the squares and the projection's own shift sum up to the score, without approximation. "
    "`vitmae_search/inspection/match.py`",
}
PART_FORMULAS = {
    CORRESPONDING: "Cosines of patches' features after the last layer, whitened over all photos that were "
    "looked through. Lines connect patches that are each other's best. `vitmae_search/search/regions.py`",
    ADDED: "The part is cut into 4 × 4 cells, each the mean of its squares, and laid over a window of the "
    "photo: the score is the mean of the cosines of the cells and the squares below them, less the mean of "
    "such windows of all photos that were looked through. Means are sums over squares: so the squares of "
    "either picture, and that mean, sum up to the score without approximation. "
    "`vitmae_search/search/regions.py`",
}
LINES = 10  # correspondences that get one


def page() -> None:
    """Compare two pictures, or say how one gets here."""
    query, hit = query_picker.current_query(), named_photo("hit")
    if query is None or hit is None:
        plain_text.hint(INTRO)
        return
    other = query_picker.QueryState(photo=hit)
    space, box = _number("space"), region_box.of_address()
    found: MatchExplanation | RegionExplanation
    if box is None:
        model_choice.draw()
        found = _whole(query, other, space)
    else:
        found = inspections.explain_region(query, box, other, space)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = inspections.choice("view", "View", (CORRESPONDING, ADDED), CORRESPONDING)
        if view == CORRESPONDING and isinstance(found, MatchExplanation):
            inspections.layer_slider("layer", 0, len(found.query.attention))
    plain_text.hint(SENTENCES[view])
    if view == ADDED and found.query_shares is None:
        plain_text.notice("This model's vectors are no sum over squares, so what each adds cannot be said.")
        return
    _draw(query, other, found, added=view == ADDED)
    plain_text.facts(_facts(found))
    with st.expander("How this is computed"):
        st.markdown((FORMULAS if box is None else PART_FORMULAS)[view])
    view_downloads.draw("match", lambda: explanation_json(found), lambda: match_figure(found))


def _whole(
    query: query_picker.QueryState, hit: query_picker.QueryState, space: int | None
) -> MatchExplanation:
    """Two whole pictures; of a layer that the model has not, the last in its place."""
    layer = _number("layer")
    try:
        return inspections.explain(query, hit, space, layer)
    except InspectionError:
        if layer is None:
            raise
        return inspections.explain(query, hit, space, None)  # an address of a deeper model


def _number(name: str) -> int | None:
    text = st.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 9 else None


def _draw(
    query: query_picker.QueryState,
    hit: query_picker.QueryState,
    found: MatchExplanation | RegionExplanation,
    *,
    added: bool,
) -> None:
    assert hit.photo is not None
    whole = isinstance(found, MatchExplanation)
    how = "at the model's size" if whole else "small"
    sides = [
        PatchedPicture(
            made.picture,
            made.grid,
            title,
            name,
            f"{name} {how}, in {made.grid[0]} rows and {made.grid[1]} columns of squares",
            shares if added else None,
        )
        for made, title, name, shares in (
            (
                found.query,
                "Searched for" if whole else "The part that was searched for",
                query.name,
                found.query_shares,
            ),
            (found.hit, "Found", photo_name(hit.photo), found.hit_shares),
        )
    ]
    patch_maps.draw(
        sides,
        found.similarity,
        key="vs_match",
        unit="cosine",
        kept=st.query_params.get("patch", ""),
        on_keep=inspections.keep_patch,
        map_unit="added to the score",
        signed=added,
        pairs=None if added else found.pairs[:LINES],
    )


def _facts(found: MatchExplanation | RegionExplanation) -> list[tuple[str, str]]:
    lines = min(LINES, len(found.pairs))
    if isinstance(found, RegionExplanation):
        total = float(found.query_shares.sum())
        return [
            (
                "Score",
                f"{found.score:.3f}: {total:+.3f} of the squares, {found.query_rest:+.3f} of the others",
            ),
            ("The others", f"the mean of {found.compared} photos that were looked through, taken away"),
            ("Corresponding squares", f"{len(found.pairs)}, of which the best {lines} have lines"),
        ]
    rows = [
        ("Score", f"{found.score:.3f}, of both pictures as they are: neither turned nor trimmed"),
        ("Corresponding squares", f"{len(found.pairs)}, of which the best {lines} have lines"),
    ]
    if found.query_shares is not None and found.hit_shares is not None:
        rows += [
            ("Sum over the first picture", _sum(float(found.query_shares.sum()), found.query_rest)),
            ("Sum over the second picture", _sum(float(found.hit_shares.sum()), found.hit_rest)),
        ]
    return rows


def _sum(squares: float, rest: float) -> str:
    return f"{squares:+.3f} of its squares, {rest:+.3f} of the projection's shift"


if __name__ == "__main__":
    st.title("Why did this match?", anchor=False)
    with plain_text.errors_as_notices():
        page()
