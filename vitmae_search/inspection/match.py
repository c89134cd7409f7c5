"""Why two pictures match: which of their patches correspond, and what each patch adds to the score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitmae_search.inspection.features import patch_similarity
from vitmae_search.records import Inspection, MatchExplanation

Maps = tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
"""The affine maps of a projection, (weight, bias) each, with ReLU between them; none for features alone."""


def explain_match(
    query: Inspection, hit: Inspection, maps: Maps, layer: int | None = None
) -> MatchExplanation:
    """Explain the score of two pictures.

    A vector is a sum of what each patch adds to it: pooling is a sum over patches, a projection is a matrix,
    and a ReLU passes on the same components whichever patch they come from. So the score is the sum of the
    patches' shares and of what the projection adds by itself, without any approximation.

    Args:
        query: The picture that was searched for.
        hit: The other one, of the same model.
        maps: The projection.
        layer: Whose patches are compared, 0 to the model's depth; None for the last.

    Raises:
        InspectionError: There is no such layer.
    """
    layer = len(query.tokens) - 1 if layer is None else layer
    similarity = patch_similarity(query, hit, layer)
    one, two = _Linear(query.features, maps), _Linear(hit.features, maps)
    query_shares, query_rest = _score_shares(query, one, two.vector)
    hit_shares, hit_rest = _score_shares(hit, two, one.vector)
    return MatchExplanation(
        query=query,
        hit=hit,
        score=float(one.vector @ two.vector),
        similarity=similarity,
        layer=layer,
        pairs=mutual_pairs(similarity),
        query_shares=query_shares,
        hit_shares=hit_shares,
        query_rest=query_rest,
        hit_rest=hit_rest,
    )


def mutual_pairs(similarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """Patches that are each other's most similar.

    Args:
        similarity: (P, P').

    Returns:
        (N, 2) int64, the most similar pair first.
    """
    forward, backward = similarity.argmax(axis=1), similarity.argmax(axis=0)
    own = np.flatnonzero(backward[forward] == np.arange(len(similarity)))
    order = np.argsort(-similarity[own, forward[own]], kind="stable")
    return np.stack([own, forward[own]], axis=1)[order].astype(np.int64)


class _Linear:
    """A projection at one picture's features, where it is affine: vector = weight @ features + bias."""

    def __init__(self, features: NDArray[np.float32], maps: Maps) -> None:
        at = features.astype(np.float64)
        weight = np.eye(len(at))
        for number, (matrix, bias) in enumerate(maps):
            passed = at > 0 if number else np.ones(len(at), bool)
            weight = matrix.astype(np.float64) @ (weight * passed[:, None])
            at = matrix.astype(np.float64) @ (at * passed) + bias
        norm = np.linalg.norm(at) or 1.0
        self.weight, self.vector = weight / norm, at / norm


def _score_shares(
    made: Inspection, linear: _Linear, other: NDArray[np.float64]
) -> tuple[NDArray[np.float32] | None, float]:
    """What each patch adds to the score with another vector, and what is added beside them."""
    if made.shares is None:
        return None, 0.0
    shares = made.shares.astype(np.float64) @ (other @ linear.weight)
    rest = float(other @ linear.vector - shares.sum())
    return shares.reshape(made.grid).astype(np.float32), rest
