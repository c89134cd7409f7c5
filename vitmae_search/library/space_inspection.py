"""How photos lie in a library's spaces: neighbours, hubs, directions, and what another space changes."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.catalog import Catalog
from vitmae_search.embedding import GuardedEmbedder, Projection
from vitmae_search.errors import PhotoError, SpaceError, display_path
from vitmae_search.inspection.neighbour_graph import (
    NeighbourGraph,
    Progress,
    nearest,
    neighbour_graph,
    reverse_neighbours,
)
from vitmae_search.inspection.space import (
    QUANTILES,
    Neighbour,
    NeighbourChange,
    Neighbourhood,
    SpaceStatistics,
    participation_ratio,
    spectrum_of,
    usual_distances,
)
from vitmae_search.library.duplicates import space_vectors
from vitmae_search.photos import decode_target
from vitmae_search.records import Photo, SearchFilter, Space
from vitmae_search.search import embed_images, query_image, require_file

SpaceChoice = int | Literal["features", "whitened"] | None
"""A space by its id; the current one's features, as they are or whitened as by `adapt --method whitening`; or
None for the selected or current one."""

COMPLETE, SAMPLE = 10_000, 5_000
"""Up to so many photos, neighbours of all are looked for; of more, those of so many drawn at random."""
MOST_REVERSE = 48
"""Photos that have one as a neighbour, which are returned."""
HUBS = 12
_WHITENED_DIMENSION = 256
_KEPT_BYTES = 512 << 20
_CHUNK = 8192
_SEED = 0
_TIE = 1e-6
"""Smaller differences of cosines are rounding errors."""

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ComparedSpace:
    """All vectors of a space, and the neighbours of all or some of them.

    Attributes:
        space: The space; of whitened features that of the features.
        title: For people.
        ids: (N,), of the embeddings, in order.
        vectors: (N, D) float32.
        graph: The neighbours.
        projection: What was applied to the space's stored vectors here; None for none.
        key: Of all that these depend on.
    """

    space: Space
    title: str
    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    graph: NeighbourGraph
    projection: Projection | None
    key: object

    def row_of(self, catalog: Catalog, photo: Photo) -> int | None:
        """The row of a photo's content; None where no file that has it is searched.

        Args:
            catalog: Has it.
            photo: The photo.
        """
        same = frozenset(each.photo_id for each in catalog.copies(photo.content_id))
        found = catalog.searchable_ids(self.space.space_id, SearchFilter(photo_ids=same))
        return int(np.searchsorted(self.ids, found[0])) if len(found) and found[0] in self.ids else None

    def photos(self, catalog: Catalog, rows: NDArray[np.int64]) -> list[Photo | None]:
        """A photo on disk for each row; None where there is none any more.

        Args:
            catalog: Has them.
            rows: (n,).
        """
        found = catalog.photos_of(self.ids[rows])
        firsts = (
            next((photo for photo in found.get(int(number), []) if not photo.missing), None)
            for number in self.ids[rows]
        )
        return list(firsts)


@dataclass(slots=True)
class SpaceInspector:
    """Compares the vectors of spaces, and keeps the latest. Safe for threads; one compares at a time."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: OrderedDict[object, ComparedSpace] = field(default_factory=OrderedDict)
    _norms: dict[object, NDArray[np.float64] | None] = field(default_factory=dict)

    def compare(
        self,
        catalog: Catalog,
        space: Space,
        k: int,
        *,
        whitened: bool = False,
        on_progress: Progress = lambda done, total: None,
    ) -> ComparedSpace:
        """Look for the neighbours of a space's photos.

        Args:
            catalog: Has the vectors.
            space: The space.
            k: Neighbours of each.
            whitened: Whiten the vectors first.
            on_progress: As for `neighbour_graph`.

        Raises:
            SpaceError: They cannot be whitened.
        """
        ids = catalog.searchable_ids(space.space_id)
        which = hashlib.sha256(ids.tobytes()).digest()
        key = (space.fingerprint, space.revision, k, whitened, which)
        with self._lock:
            if key not in self._kept:
                vectors = space_vectors(catalog, space, ids)
                title = f"space {space.space_id} ({space.kind})"
                projection = None
                if whitened:
                    projection = _whitening(vectors)
                    vectors, title = projection(vectors), f"space {space.space_id}, whitened"
                graph = neighbour_graph(
                    vectors, k, sample=None if len(ids) <= COMPLETE else SAMPLE, on_progress=on_progress
                )
                self._kept[key] = ComparedSpace(space, title, ids, vectors, graph, projection, key)
                while len(self._kept) > 1 and self._bytes() > _KEPT_BYTES:
                    self._norms.pop(self._kept.popitem(last=False)[0], None)
            self._kept.move_to_end(key)
            return self._kept[key]

    def norms(
        self, catalog: Catalog, compared: ComparedSpace, projection: Projection | None
    ) -> NDArray[np.float64] | None:
        """Quantiles of the lengths that vectors had before they were brought to length 1; None where unknown.

        Args:
            catalog: Has the features.
            compared: The space.
            projection: What made its vectors of features; None where they are features.
        """
        if projection is None:
            return None
        with self._lock:
            if compared.key not in self._norms:
                self._norms[compared.key] = _norm_quantiles(catalog, compared.space.features_id, projection)
            return self._norms[compared.key]

    def _bytes(self) -> int:
        return sum(each.vectors.nbytes + each.graph.neighbours.nbytes for each in self._kept.values())


def _norm_quantiles(catalog: Catalog, features_id: int, projection: Projection) -> NDArray[np.float64] | None:
    """Quantiles of the lengths of all projected features, read in pieces; None of none."""
    ids = catalog.searchable_ids(features_id)
    pieces = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
    norms = [projection.norms(catalog.vectors(features_id, some)) for some in pieces]
    return np.quantile(np.concatenate(norms), QUANTILES) if norms else None


def _whitening(features: NDArray[np.float32]) -> Projection:
    """As `adapt --method whitening` makes it. Raises `SpaceError` where there is nothing to whiten."""
    from vitmae_search.errors import TrainingError
    from vitmae_search.training.adaptation import fit_whitening

    try:
        weight, bias = fit_whitening(features, dimension=min(_WHITENED_DIMENSION, features.shape[1]))
    except TrainingError as error:
        raise SpaceError(f"this space cannot be whitened: {error}") from error
    return Projection([weight], [bias], "whitening")


def space_statistics(
    catalog: Catalog, compared: ComparedSpace, norms: NDArray[np.float64] | None
) -> SpaceStatistics:
    """What is told of a space as a whole.

    Args:
        catalog: Has the photos.
        compared: The space.
        norms: As of `SpaceInspector.norms`.
    """
    graph = compared.graph
    occurrences = graph.occurrences()
    spectrum, mean_cosine = spectrum_of(compared.vectors)
    rows = np.argsort(-occurrences, kind="stable")[:HUBS]
    if not graph.complete:  # those that were met most often are counted
        for row in rows.tolist():
            found, _ = reverse_neighbours(compared.vectors, compared.vectors[row], graph.k, row)
            occurrences[row] = len(found)
        rows = rows[np.argsort(-occurrences[rows], kind="stable")]
    return SpaceStatistics(
        space_id=compared.space.space_id,
        title=compared.title,
        k=graph.k,
        photos=graph.count,
        sampled=len(graph.queries),
        occurrences=occurrences,
        usual_occurrences=graph.usual,
        skewness=graph.skewness(),
        distances=usual_distances(graph),
        mean_cosine=mean_cosine,
        spectrum=spectrum,
        effective_dimension=participation_ratio(spectrum),
        norms=norms,
        hubs=_neighbours(catalog, compared, rows, np.ones(len(rows)), occurrences),
    )


def neighbourhood(
    catalog: Catalog, compared: ComparedSpace, photo: Photo | None, vector: Vector
) -> Neighbourhood:
    """What is told of a photo among its neighbours.

    Args:
        catalog: Has the photos.
        compared: The space.
        photo: The photo; None for a picture that is not in the library.
        vector: (D,), its vector in the space.
    """
    graph, k = compared.graph, compared.graph.k
    own = None if photo is None else compared.row_of(catalog, photo)
    rows, scores = nearest(compared.vectors, vector, k, own)
    if own is not None and graph.complete:
        found = np.flatnonzero((graph.neighbours == own).any(axis=1))
        found_scores = compared.vectors[found] @ vector
        order = np.argsort(-found_scores, kind="stable")
        found, found_scores = found[order], found_scores[order]
    else:
        found, found_scores = reverse_neighbours(compared.vectors, vector, k, own)
    occurrences = graph.occurrences()
    closer = (
        (graph.scores > scores[None, : graph.k] + _TIE).mean(axis=0) if len(graph.scores) else np.zeros(k)
    )
    return Neighbourhood(
        space_id=compared.space.space_id,
        title=compared.title,
        photo=photo,
        k=k,
        photos=graph.count,
        sampled=len(graph.queries),
        neighbours=_neighbours(catalog, compared, rows, scores, occurrences),
        usual=usual_distances(graph),
        percentiles=closer.astype(np.float64),
        occurrences=len(found),
        usual_occurrences=np.quantile(graph.usual, QUANTILES) if graph.count else np.zeros(len(QUANTILES)),
        occurrence_percentile=float((graph.usual < len(found)).mean()) if graph.count else 0.0,
        reverse=_neighbours(
            catalog, compared, found[:MOST_REVERSE], found_scores[:MOST_REVERSE], occurrences
        ),
    )


def neighbour_change(
    catalog: Catalog,
    spaces: Sequence[ComparedSpace],
    photo: Photo | None,
    vectors: Sequence[Vector],
    views: Sequence[dict[str, int]] = (),
    without_views: str = "",
) -> NeighbourChange:
    """What another space changes for a photo.

    Args:
        catalog: Has the photos.
        spaces: Before and after.
        photo: The photo; None for a picture that is not in the library.
        vectors: Its vector in each.
        views: Of `try_views`, of both spaces; empty where they were not tried.
        without_views: Why they could not be tried.
    """
    before, after = (
        neighbourhood(catalog, space, photo, vector) for space, vector in zip(spaces, vectors, strict=True)
    )
    before = _with_other_ranks(before, catalog, spaces[1], vectors[1])
    after = _with_other_ranks(after, catalog, spaces[0], vectors[0])
    both = {name: (views[0][name], views[1][name]) for name in views[0]} if views else {}
    return NeighbourChange(before, after, both, without_views)


def try_views(
    catalog: Catalog,
    spaces: Sequence[ComparedSpace],
    photo: Photo | None,
    open_embedder: Callable[[Space], GuardedEmbedder],
    projection_of: Callable[[ComparedSpace], Projection | None],
) -> tuple[list[dict[str, int]], str]:
    """Search for changed copies of a photo in each of some spaces, which must be of the same features.

    Copies are embedded as they are: a search would try turned ones, too.

    Args:
        catalog: Has the photo.
        spaces: One or more.
        photo: The photo; None for a picture that is not in the library.
        open_embedder: Opens the embedder of a space of features.
        projection_of: What makes a space's vectors of its features; None where they are features.

    Returns:
        For each space the photo's rank, from 1, by the kind of change; or none, and why.
    """
    if photo is None:
        return [], "the picture is not in the library"
    if len({each.space.features_id for each in spaces}) > 1:
        return [], "the spaces are of different features"
    rows = [row for each in spaces if (row := each.row_of(catalog, photo)) is not None]
    if len(rows) < len(spaces):
        return [], f"{display_path(photo.path)} is not among the photos that are searched"
    embedder = open_embedder(catalog.space(spaces[0].space.features_id))
    shrink_to = decode_target(spaces[0].space.decode, embedder.input_size)
    try:
        image = query_image(require_file(photo.path), shrink_to)
    except PhotoError as error:
        return [], str(error)
    features = _view_features(image, embedder)
    return [
        _ranks(features, projection_of(each), each, row) for each, row in zip(spaces, rows, strict=True)
    ], ""


def _view_features(image: Image.Image, embedder: GuardedEmbedder) -> dict[str, Vector]:
    """The features of changed copies of a photo, by the kind of change."""
    from vitmae_search.evaluation.instances import INSTANCE_VIEWS

    changed = [view(image, np.random.default_rng(_SEED)) for _, view in INSTANCE_VIEWS]
    names = (name for name, _ in INSTANCE_VIEWS)
    return dict(zip(names, embed_images(changed, embedder), strict=True))


def _ranks(
    features: dict[str, Vector], projection: Projection | None, compared: ComparedSpace, row: int
) -> dict[str, int]:
    """The rank of a row for each of some pictures, given by their features."""
    queries = np.stack(list(features.values()))
    scores = compared.vectors @ (queries if projection is None else projection(queries)).T
    ranks = 1 + (scores > scores[row] + _TIE).sum(axis=0)
    return dict(zip(features, ranks.tolist(), strict=True))


def _neighbours(
    catalog: Catalog,
    compared: ComparedSpace,
    rows: NDArray[np.int64],
    scores: NDArray[np.floating],
    occurrences: NDArray[np.float64],
) -> tuple[Neighbour, ...]:
    return tuple(
        Neighbour(photo, max(0.0, 1.0 - float(score)), float(occurrences[row]))
        for photo, row, score in zip(compared.photos(catalog, rows), rows, scores, strict=True)
        if photo is not None
    )


def _with_other_ranks(
    found: Neighbourhood, catalog: Catalog, other: ComparedSpace, vector: Vector
) -> Neighbourhood:
    """The same with each neighbour's rank in another space."""
    scores = other.vectors @ vector
    own = None if found.photo is None else other.row_of(catalog, found.photo)
    if own is not None:
        scores[own] = -np.inf

    def rank(photo: Photo) -> int | None:
        row = other.row_of(catalog, photo)
        return None if row is None else 1 + int((scores > scores[row]).sum())

    return replace(
        found, neighbours=tuple(replace(each, other_rank=rank(each.photo)) for each in found.neighbours)
    )
