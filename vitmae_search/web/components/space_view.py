"""How photos lie in a space: a photo among its neighbours, what another space changes, and all photos.

The address has the whole view: `?space=2&before=features&k=20`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, TypeVar, cast

import streamlit as st

from vitmae_search.inspection.figures import figure_png
from vitmae_search.inspection.space import Neighbour, NeighbourChange, Neighbourhood, SpaceStatistics
from vitmae_search.library.json_forms import (
    neighbour_change_json,
    neighbourhood_json,
    space_statistics_json,
)
from vitmae_search.records import Hit, SearchResult
from vitmae_search.web.components import (
    inspections,
    page_address,
    plain_text,
    query_picker,
    spaces,
    view_downloads,
)
from vitmae_search.web.components.grid import hit_grid, photo_grid
from vitmae_search.web.components.photo_address import photo_parameters
from vitmae_search.web.components.session_cache import cached
from vitmae_search.web.server.session import library

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vitmae_search.library.space_inspection import SpaceChoice

T = TypeVar("T")

PHOTO_SENTENCE = (
    "The photos that are nearest to this one, how near that is for this library, and for which photos this "
    "one is among the nearest itself. A hub is near to very many, and so comes up in searches where it does "
    "not belong."
)
CHANGE_SENTENCE = (
    "The photos that were nearest before, and those that are nearest now. Changed copies of the photo "
    "(cropped, turned, recolored) show whether it is found more easily."
)
SPACE_SENTENCE = (
    "All photos at once: how far neighbours usually are, whether a few photos are everybody's neighbour, and "
    "in how many ways photos differ for the model."
)
FORMULA = (
    "A distance is 1 - the cosine of two vectors; the bands are quantiles over photos, rank by rank. Nₖ(x) "
    "is the number of photos that have x among their k nearest: its mean is k, and the skewness of its "
    "distribution, E[(Nₖ - k)³] / σ³, measures hubs (Radovanović, Nanopoulos and Ivanović, “Hubs in Space”, "
    "[JMLR 11, 2010](https://www.jmlr.org/papers/v11/radovanovic10a.html)). The effective dimension is the "
    "participation ratio (Σλ)² / Σλ² of the eigenvalues λ of the vectors' covariance. Whitening is that of "
    "`vitmae-search adapt --method whitening`. Up to 10,000 photos all are compared; of more, 5,000 drawn at "
    "random with all. `vitmae_search/inspection/neighbour_graph.py`, `space.py`"
)
COUNTS = ("5", "10", "20", "50")
DEFAULT_COUNT = "10"
WHITENED, FEATURES = "whitened", "features"
_KEPT = 12


def draw_photo(query: query_picker.QueryState) -> None:
    """A photo among its neighbours, or what changed for it.

    Args:
        query: The picture.
    """
    chosen, before, k = _controls()
    if before is None:
        found = _cached(
            ("photo", query.key, chosen, k),
            lambda shown: library().neighbourhood(query.picture, space=chosen, k=k, on_progress=shown),
        )
        _draw_neighbourhood(query, found, chosen)
    else:
        change = _cached(
            ("change", query.key, chosen, before, k),
            lambda shown: library().compare_neighbours(
                query.picture, before, chosen, k=k, views=True, on_progress=shown
            ),
        )
        _draw_change(change, before, chosen)
    _explain()


def draw_space() -> None:
    """All photos of a space, beside another one where the address names it."""
    chosen, before, k = _controls()
    wanted = [chosen] if before is None else [before, chosen]
    found = [_statistics(each, k) for each in wanted]
    plain_text.hint(SPACE_SENTENCE)
    _show_table(found)
    for each in found:
        _show_figure(each.figure(), _space_alt(each))
    latest = found[-1]
    if latest.hubs:
        plain_text.heading("Hubs: the photos that are neighbours of most others")
        notes = {each.photo.photo_id: f"of {each.occurrences:.0f} photos" for each in latest.hubs}
        photos = [each.photo for each in latest.hubs]
        photo_grid(photos, key="vs_hubs", label="The largest hubs", on_pick=_look_at, notes=notes)
    view_downloads.draw(
        "space", lambda: {"spaces": [space_statistics_json(each) for each in found]}, latest.figure
    )
    _explain()


def _statistics(choice: SpaceChoice, k: int) -> SpaceStatistics:
    return _cached(
        ("space", choice, k),
        lambda shown: library().space_statistics(choice, k=k, on_progress=shown),
    )


def _controls() -> tuple[SpaceChoice, SpaceChoice, int]:
    """The space, the one that it is compared with, and k, as the address names them."""
    known = library().spaces()
    titles = {str(space.space_id): spaces.title(space) for space in known}
    current = next((space for space in known if space.current), None)
    titles[WHITENED] = "The current features, whitened"
    default = "" if current is None else str(current.space_id)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = _choose("space", "Space", list(titles), titles, default)
        others = ["", *(each for each in titles if each != chosen)]
        before = _choose("before", "Compare with", others, {**titles, "": "No other space"}, "")
        k = inspections.choice("k", "Neighbours", COUNTS, DEFAULT_COUNT)
    return _read(chosen), _read(before), int(k)


def _choose(name: str, label: str, options: Sequence[str], titles: dict[str, str], default: str) -> str:
    """A box whose choice is kept in the address."""
    named = st.query_params.get(name, default)
    if named == FEATURES:  # of an address that a person typed, as for the command
        current = next((space for space in library().spaces() if space.current), None)
        named = "" if current is None else str(current.features_id)
    value = named if named in options else default
    key = f"vs_space_{name}"
    page_address.show_in(key, value)

    def store() -> None:
        now = str(st.session_state[key])
        page_address.update_address(**{name: None if now == default else now})

    st.selectbox(
        label, options, format_func=lambda one: titles.get(one, one), key=key, on_change=store, width=320
    )
    return value


def _read(text: str) -> SpaceChoice:
    return "whitened" if text == WHITENED else int(text) if text else None


def _cached(key: tuple[object, ...], compute: Callable[[Callable[[int, int], None]], T]) -> T:
    """What was computed for this visitor; else it is computed, and how far that is, is shown."""

    def run() -> T:
        shown = st.empty()

        def show(done: int, total: int) -> None:
            shown.progress(done / max(1, total), text=f"Compared {done:,} of {total:,} photos…")

        with st.spinner("Looking…"):
            made = compute(show)
        shown.empty()
        return made

    state = tuple((space.fingerprint, space.revision) for space in library().spaces())
    name = "vs_space_views"
    found = cached(
        name, (str(library().folder), state, *key), lambda: cast(object, run()), lambda _: 1, _KEPT
    )
    return cast(T, found)


def _draw_neighbourhood(query: query_picker.QueryState, found: Neighbourhood, chosen: SpaceChoice) -> None:
    plain_text.hint(PHOTO_SENTENCE)
    _show_figure(found.figure(), _photo_alt(query.name, found))
    plain_text.facts(_photo_facts(found))
    plain_text.heading("Its nearest photos")
    _hits("vs_neighbours", found.neighbours, chosen, "The nearest photos")
    plain_text.heading("Photos that have it among their nearest")
    if not found.reverse:
        plain_text.hint("None.")
    elif found.occurrences > len(found.reverse):
        plain_text.hint(f"The nearest {len(found.reverse)} of {found.occurrences:,}.")
    _hits("vs_reverse", found.reverse, chosen, "Photos that have it among their nearest")
    view_downloads.draw("neighbours", lambda: neighbourhood_json(found), found.figure)


def _draw_change(found: NeighbourChange, before: SpaceChoice, after: SpaceChoice) -> None:
    plain_text.hint(CHANGE_SENTENCE)
    _show_figure(found.figure(), _change_alt(found))
    plain_text.facts(_change_facts(found))
    contents = {each.photo.content_id for each in found.before.neighbours}
    both = frozenset(
        each.photo.content_id for each in found.after.neighbours if each.photo.content_id in contents
    )
    sides = (("Before", found.before, before, "vs_before"), ("After", found.after, after, "vs_after"))
    for column, (word, side, choice, key) in zip(st.columns(2), sides, strict=True):
        with column:
            plain_text.heading(f"{word}: {side.title}")
            _hits(key, side.neighbours, choice, f"The nearest photos in {side.title}", both)
    view_downloads.draw("change", lambda: neighbour_change_json(found), found.figure)


def _hits(
    key: str,
    neighbours: Sequence[Neighbour],
    choice: SpaceChoice,
    label: str,
    both: frozenset[int] = frozenset(),
) -> None:
    """Photos with their scores, each of which opens in the viewer, which says why it matches."""
    if not neighbours:
        return
    by_id = {space.space_id: space for space in library().spaces()}
    space = (
        by_id[choice] if isinstance(choice, int) else next(each for each in by_id.values() if each.current)
    )
    hits = tuple(Hit(rank, 1 - each.distance, each.photo) for rank, each in enumerate(neighbours, 1))
    hit_grid(
        SearchResult(hits, space, True, 0.0),
        key=key,
        label=label,
        on_similar=_look_at,
        line=False,
        explained=choice != "whitened",
        both=both,
    )


def _look_at(photo_id: int) -> None:
    """Go to a photo's neighbours."""
    kept = {name: st.query_params[name] for name in ("space", "before", "k") if name in st.query_params}
    st.query_params.from_dict({"view": "Neighbours", **kept, **photo_parameters(photo_id)})


def _show_figure(figure: Figure, alt: str) -> None:
    source = base64.b64encode(figure_png(figure)).decode("ascii")
    image = f'<img class="vs-figure vs-chart" src="data:image/png;base64,{source}" alt="{escape(alt)}">'
    st.html(f'<div class="vs-scroll">{image}</div>')


def _photo_facts(found: Neighbourhood) -> list[tuple[str, str]]:
    usual = found.usual_occurrences
    rows = []
    if found.neighbours:
        nearer = f"nearer for {found.percentiles[0]:.0%} of the photos"
        rows.append(
            (
                "Nearest photo",
                f"at {found.distances[0]:.3f}; usual is {found.usual[0, 2]:.3f}, and it is {nearer}",
            )
        )
    rows.append(
        (
            f"Among the {found.k} nearest of",
            f"{found.occurrences:,} photos; usual are {usual[1]:.0f} to {usual[3]:.0f}. "
            f"{_hub_sentence(found)}",
        )
    )
    if found.sampled < found.photos:
        rows.append(("What is usual", f"of {found.sampled:,} of {found.photos:,} photos, drawn at random"))
    return rows


def _hub_sentence(found: Neighbourhood) -> str:
    if not found.occurrences:
        return "No search for a photo of the library shows it so early."
    if found.occurrences > found.usual_occurrences[4]:
        return "It is a hub."
    return "It is no hub."


def _change_facts(found: NeighbourChange) -> list[tuple[str, str]]:
    k = found.after.k
    rows = [
        ("Neighbours that stay", f"{found.shared} of {k}"),
        (
            f"Among the {k} nearest of",
            f"{found.before.occurrences:,} photos before, {found.after.occurrences:,} after",
        ),
    ]
    if found.without_views:
        rows.append(("Changed copies", f"not tried: {found.without_views}"))
    if found.views:
        one, two = found.found_by_copies
        better = "more" if two > one else "fewer" if two < one else "as many"
        total = len(found.views)
        rows.append(
            (
                "Changed copies that find it",
                f"{one} of {total} before and {two} after show it among the first {k}: {better}",
            )
        )
        lower = sum(after < before for before, after in found.views.values())
        higher = sum(after > before for before, after in found.views.values())
        rows.append(("Its place for these", f"better for {lower}, worse for {higher}"))
    return rows


def _show_table(found: Sequence[SpaceStatistics]) -> None:
    rows = [
        ("Photos", *(f"{each.photos:,}" for each in found)),
        ("Neighbours were looked for of", *(f"{each.sampled:,}" for each in found)),
        ("Numbers in a vector", *(f"{each.dimension:,}" for each in found)),
        ("Effective dimension", *(f"{each.effective_dimension:.1f}" for each in found)),
        ("Mean cosine of two photos", *(f"{each.mean_cosine:.3f}" for each in found)),
        ("Usual distance of the nearest", *(_median(each) for each in found)),
        ("Skewness (hubs)", *(f"{each.skewness:.2f}" for each in found)),
        ("Largest hub is a neighbour of", *(f"{each.most:,.0f} photos" for each in found)),
        ("Photos that are nobody's neighbour", *(f"{each.never:.0%}" for each in found)),
        ("Length before it is made 1", *(_norms(each) for each in found)),
    ]
    plain_text.table(["", *(each.title for each in found)], rows)


def _median(found: SpaceStatistics) -> str:
    return f"{found.distances[0, 2]:.3f}" if len(found.distances) else "–"


def _norms(found: SpaceStatistics) -> str:
    if found.norms is None:
        return "not known"
    return f"{found.norms[0]:.3g} to {found.norms[4]:.3g}, median {found.norms[2]:.3g}"


def _photo_alt(name: str, found: Neighbourhood) -> str:
    near = f"from {found.distances[0]:.3f} to {found.distances[-1]:.3f}" if found.neighbours else "none"
    return (
        f"Distances of the {len(found.neighbours)} neighbours of {name}, {near}, over the usual ones; it is "
        f"among the {found.k} nearest of {found.occurrences} photos, usual are "
        f"{found.usual_occurrences[1]:.0f} to {found.usual_occurrences[3]:.0f}"
    )


def _space_alt(found: SpaceStatistics) -> str:
    return (
        f"{found.title}: distances of neighbours, how often photos are neighbours (skewness "
        f"{found.skewness:.2f}), and the spectrum (effective dimension {found.effective_dimension:.1f})"
    )


def _change_alt(found: NeighbourChange) -> str:
    return f"{found.shared} of {found.after.k} neighbours stay; places of changed copies before and after"


def _explain() -> None:
    with st.expander("How this is computed"):
        st.markdown(FORMULA)
