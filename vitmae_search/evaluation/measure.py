"""Everything that is measured of one method, from its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitmae_search.evaluation.bootstrap import Figure, figure
from vitmae_search.evaluation.duplicates import DuplicateScores, duplicate_scores
from vitmae_search.evaluation.instances import INSTANCE_VIEWS, SAME_PHOTO, instance_recall
from vitmae_search.evaluation.knn import score_neighbours

ALL_KINDS = "all"
"""The name of the mean over the kinds of change, beside them."""

Figures = Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class MethodScores:
    """What was measured of one method; all figures are shares from 0 to 1.

    `neighbours` has P@1, P@10, mAP@100 and 20-NN; it is empty without classes. `instances` has recall@1 and
    recall@10 by kind of change, and `ALL_KINDS`; it is empty, and `duplicates` None, without instances.
    """

    name: str
    dimension: int
    neighbours: Figures
    instances: Mapping[str, Figures]
    duplicates: DuplicateScores | None


def class_figures(vectors: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Figure]:
    """The means of `score_neighbours`, with intervals, by the measure's name.

    Args:
        vectors: (N, D).
        labels: (N,) integers from 0.
    """
    scores = score_neighbours(vectors, labels)
    columns = {
        "P@1": scores.first,
        "P@10": scores.precision,
        "mAP@100": scores.average_precision,
        "20-NN": scores.correct,
    }
    return {name: figure(values) for name, values in columns.items()}


def instance_figures(
    gallery: NDArray[np.float32], queries: NDArray[np.float32]
) -> dict[str, dict[str, Figure]]:
    """Recall@1 and recall@10, by the kind of change.

    Args:
        gallery: (N, D), the originals.
        queries: (kinds, N, D), their views in the order of `INSTANCE_VIEWS`.
    """
    ranks = [instance_recall(gallery, views) for views in queries]
    hits = {k: np.stack([rank.hits(k) for rank in ranks]) for k in (1, 10)}
    names = [name for name, _ in INSTANCE_VIEWS]
    figures = {
        name: {f"recall@{k}": figure(rows[kind]) for k, rows in hits.items()}
        for kind, name in enumerate(names)
    }
    figures[ALL_KINDS] = {f"recall@{k}": figure(rows.mean(axis=0)) for k, rows in hits.items()}
    return figures


def duplicate_figures(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], kinds: Sequence[str] = SAME_PHOTO
) -> DuplicateScores:
    """As `duplicate_scores`, over some kinds of change.

    Args:
        gallery: (N, D), the originals.
        queries: (kinds, N, D), their views in the order of `INSTANCE_VIEWS`.
        kinds: The kinds of change that count.
    """
    same = [kind for kind, (name, _) in enumerate(INSTANCE_VIEWS) if name in kinds]
    return duplicate_scores(gallery, queries[same])
