"""How photos lie in a space: distances of neighbours, hubs, and in how many directions vectors differ.

A distance is 1 - the cosine of two vectors. What is computed of them is in `neighbour_graph`; here is what is
told of a space and of a photo, each with a figure that shows itself in a notebook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitmae_search.inspection.figures import blank_figure, figure_png
from vitmae_search.inspection.neighbour_graph import NeighbourGraph
from vitmae_search.records import Photo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of what is usual in a library."""
_CHUNK = 8192
_BLUE, _ORANGE = "#2b6ca3", "#e66100"
_MOST_BARS = 60


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A photo beside another one, or one that is a hub.

    Attributes:
        photo: The photo.
        distance: 1 - the cosine with the other one; 0 where there is no other.
        occurrences: How many photos have it among their k nearest; an estimate in a large library.
        other_rank: Its rank in the space that is compared with; None where there is none.
    """

    photo: Photo
    distance: float
    occurrences: float
    other_rank: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SpaceStatistics:
    """A space as a whole.

    Attributes:
        space_id: Its number; of features that were whitened for this, that of the features.
        title: What it is, for people.
        k: How many neighbours of each photo count.
        photos: How many different photos it has.
        sampled: Of how many, drawn at random, neighbours were looked for, among all. All up to 10,000.
        occurrences: (N,) float64, how many photos have each photo among their k nearest; estimates where
            photos were sampled.
        usual_occurrences: (S,) int64, the same of the photos whose neighbours were looked for; where they
            were sampled, as if there were no others.
        skewness: Of the occurrences: 0 where all photos are neighbours equally often, large with hubs.
        distances: (k, 5) float64, quantiles (`QUANTILES`) of the distance of the 1st to the k-th neighbour.
        mean_cosine: Of any two photos.
        spectrum: (D,) float64, the variances along the principal directions as shares, the largest first.
        effective_dimension: The participation ratio of the spectrum.
        norms: (5,) float64, quantiles of the lengths of vectors before they were brought to length 1; None
            where these are not known, as a model's own features are stored with length 1, and of no photos.
        hubs: The photos that are neighbours most often; their occurrences are exact.
    """

    space_id: int
    title: str
    k: int
    photos: int
    sampled: int
    occurrences: NDArray[np.float64]
    usual_occurrences: NDArray[np.int64]
    skewness: float
    distances: NDArray[np.float64]
    mean_cosine: float
    spectrum: NDArray[np.float64]
    effective_dimension: float
    norms: NDArray[np.float64] | None
    hubs: tuple[Neighbour, ...]

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return len(self.spectrum)

    @property
    def never(self) -> float:
        """The share of photos that no photo has as a neighbour, of those whose neighbours were looked for."""
        return float((self.usual_occurrences == 0).mean()) if len(self.usual_occurrences) else 0.0

    @property
    def most(self) -> float:
        """How often the largest hub is a neighbour."""
        return self.hubs[0].occurrences if self.hubs else 0.0

    def figure(self) -> Figure:
        """Distances of neighbours, occurrences, and the spectrum; of matplotlib."""
        figure, (left, middle, right) = blank_figure(3)
        figure.suptitle(f"{self.title}: {self.photos:,} photos, {self.dimension} dimensions")
        draw_usual(left, self.distances)
        draw_occurrences(middle, self.usual_occurrences, self.k)
        middle.set_title(f"hubs: skewness {self.skewness:.2f}", fontsize=9)
        right.plot(np.arange(1, self.dimension + 1), np.cumsum(self.spectrum), color=_BLUE)
        right.axvline(self.effective_dimension, color=_ORANGE)
        right.set(xlabel="directions, the strongest first", ylabel="share of the variance", ylim=(0, 1.02))
        right.set_title(f"effective dimension {self.effective_dimension:.1f}", fontsize=9)
        return figure

    def _repr_png_(self) -> bytes:
        return figure_png(self.figure())


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhood:
    """A photo among its neighbours.

    Attributes:
        space_id: The space's number; of features that were whitened for this, that of the features.
        title: What the space is, for people.
        photo: The photo, or one with the same content; None for a picture that is not in the library.
        k: How many neighbours count.
        photos: How many different photos the space has.
        sampled: As for `SpaceStatistics`.
        neighbours: The k nearest photos, the nearest first.
        usual: (k, 5) float64, quantiles (`QUANTILES`) of the distance of the 1st to the k-th neighbour.
        percentiles: (k,) float64, the share of photos whose neighbour of that rank is nearer.
        occurrences: N_k: how many photos have it among their k nearest. Exact.
        usual_occurrences: (5,) float64, quantiles of that; where photos were sampled, as if there were no
            others.
        occurrence_percentile: The share of photos that are neighbours less often.
        reverse: Photos that have it among their k nearest, the nearest first; at most `MOST_REVERSE`.
    """

    space_id: int
    title: str
    photo: Photo | None
    k: int
    photos: int
    sampled: int
    neighbours: tuple[Neighbour, ...]
    usual: NDArray[np.float64]
    percentiles: NDArray[np.float64]
    occurrences: int
    usual_occurrences: NDArray[np.float64]
    occurrence_percentile: float
    reverse: tuple[Neighbour, ...]

    @property
    def distances(self) -> NDArray[np.float64]:
        """(k,) float64, of the neighbours."""
        return np.array([each.distance for each in self.neighbours])

    def figure(self) -> Figure:
        """Its neighbours' distances over the usual ones, and how often it is a neighbour; of matplotlib."""
        figure, (left, right) = blank_figure(2)
        figure.suptitle(f"{self.title}: {self.photos:,} photos")
        draw_usual(left, self.usual)
        left.plot(
            np.arange(1, len(self.neighbours) + 1), self.distances, "o-", color=_ORANGE, label="this photo"
        )
        left.legend(fontsize=8)
        names = [f"{quantile:.0%}" for quantile in QUANTILES]
        right.bar(names, self.usual_occurrences, color=_BLUE, label="usual, quantiles")
        right.axhline(self.occurrences, color=_ORANGE, label="this photo")
        right.set(xlabel="of all photos", ylabel=f"among the {self.k} nearest of how many")
        right.legend(fontsize=8)
        return figure

    def _repr_png_(self) -> bytes:
        return figure_png(self.figure())


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourChange:
    """The neighbours of a photo in two spaces, such as before and after `adapt`.

    Each neighbour's `other_rank` is where it is in the other space.

    Attributes:
        before: In the one space.
        after: In the other one.
        views: What became of the photo's changed copies: for each kind of change the rank of the photo, from
            1, when the changed copy is searched for before and after. Empty where they were not tried.
        without_views: Why they could not be tried though they were asked for; empty where nothing is amiss.
    """

    before: Neighbourhood
    after: Neighbourhood
    views: dict[str, tuple[int, int]]
    without_views: str = ""

    @property
    def shared(self) -> int:
        """How many photos are neighbours in both."""
        ids = {each.photo.content_id for each in self.before.neighbours}
        return sum(each.photo.content_id in ids for each in self.after.neighbours)

    @property
    def found_by_copies(self) -> tuple[int, int]:
        """How many changed copies find the photo among the first k, before and after."""
        ranks = self.views.values()
        return sum(one <= self.before.k for one, _ in ranks), sum(two <= self.after.k for _, two in ranks)

    def figure(self) -> Figure:
        """The neighbours of both spaces, with lines between the same photos; of matplotlib."""
        figure, places = blank_figure(2 if self.views else 1)
        k, left = self.after.k, places[0]
        for rank, each in enumerate(self.before.neighbours, 1):
            other = each.other_rank if each.other_rank is not None else k + 2
            stays = other <= k
            left.plot([0, 1], [rank, min(other, k + 2)], "o-", color=_BLUE if stays else "#bbbbbb")
        for rank, each in enumerate(self.after.neighbours, 1):
            if each.other_rank is None or each.other_rank > k:
                left.plot([1], [rank], "o", color=_ORANGE)
        left.set(ylabel="rank", xticks=[0, 1], xticklabels=[self.before.title, self.after.title])
        left.set_xlim(-0.35, 1.35)
        left.set_ylim(k + 2.5, 0.5)
        left.set_title(f"{self.shared} of {k} neighbours stay; new ones in orange", fontsize=9)
        if self.views:
            draw_views(places[1], self.views)
        return figure

    def _repr_png_(self) -> bytes:
        return figure_png(self.figure())


def participation_ratio(spectrum: NDArray[np.float64]) -> float:
    """(Σλ)² / Σλ²: D for equal variances, 1 where all vectors lie on a line.

    Args:
        spectrum: (D,), the eigenvalues of a covariance.
    """
    squares = float((spectrum**2).sum())
    return float(spectrum.sum()) ** 2 / squares if squares > 0 else 0.0


def spectrum_of(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """The eigenvalues of the covariance as shares, the largest first, and the mean cosine of two vectors.

    Args:
        vectors: (N, D), of unit length.
    """
    count, width = vectors.shape
    total, products = np.zeros(width), np.zeros((width, width))
    for start in range(0, count, _CHUNK):
        some = vectors[start : start + _CHUNK].astype(np.float64)
        total += some.sum(axis=0)
        products += some.T @ some
    mean = total / max(count, 1)
    values = np.linalg.eigvalsh(products / max(count, 1) - np.outer(mean, mean))[::-1]
    values = np.maximum(values, 0.0)
    pairs = count * (count - 1)
    return values / (values.sum() or 1.0), float((total @ total - count) / pairs) if pairs else 1.0


def usual_distances(graph: NeighbourGraph) -> NDArray[np.float64]:
    """Quantiles of the distance of each rank's neighbour, (k, 5).

    Args:
        graph: The neighbours of photos.
    """
    if not len(graph.scores):
        return np.zeros((graph.k, len(QUANTILES)))
    found: NDArray[np.float64] = np.quantile(1.0 - graph.scores.astype(np.float64), QUANTILES, axis=0).T
    return found


def draw_usual(place: Axes, usual: NDArray[np.float64]) -> None:
    """Draw the usual distances as bands.

    Args:
        place: Where.
        usual: (k, 5).
    """
    ranks = np.arange(1, len(usual) + 1)
    place.fill_between(ranks, usual[:, 0], usual[:, 4], color=_BLUE, alpha=0.15, label="90 % of photos")
    place.fill_between(ranks, usual[:, 1], usual[:, 3], color=_BLUE, alpha=0.3, label="half of photos")
    place.plot(ranks, usual[:, 2], color=_BLUE, label="median")
    place.set(xlabel="neighbour", ylabel="distance (1 - cosine)", ylim=(0, None))
    place.set_title("distances of neighbours", fontsize=9)
    place.legend(fontsize=8)


def draw_occurrences(place: Axes, occurrences: NDArray[np.int64], k: int) -> None:
    """Draw how many photos are a neighbour how often.

    Args:
        place: Where.
        occurrences: (S,).
        k: How many neighbours count.
    """
    top = int(occurrences.max(initial=1))
    bins = np.arange(top + 2) - 0.5 if top < _MOST_BARS else np.linspace(0, top, _MOST_BARS + 1)
    place.hist(occurrences, bins=bins.tolist(), color=_BLUE)
    place.axvline(k, color=_ORANGE)
    place.set(xlabel=f"among the {k} nearest of how many", ylabel="photos")
    if len(occurrences):  # of none, a logarithm has no limits
        place.set_yscale("log")


def draw_views(place: Axes, views: dict[str, tuple[int, int]]) -> None:
    """Draw the ranks at which changed copies of a photo find it.

    Args:
        place: Where.
        views: As of `NeighbourChange`.
    """
    names = list(views)
    rows = np.arange(len(names))
    place.barh(rows - 0.2, [views[name][0] for name in names], 0.4, color="#bbbbbb", label="before")
    place.barh(rows + 0.2, [views[name][1] for name in names], 0.4, color=_ORANGE, label="after")
    place.set(yticks=rows, yticklabels=names, xlabel="rank of the photo for its changed copy", xscale="log")
    place.invert_yaxis()
    place.tick_params(axis="y", labelsize=7)
    place.legend(fontsize=8)
