"""Builds approximate indexes and tunes them by their measured recall@10."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from vitmae_search.vectors.approximate import (
    ApproximateIndex,
    Measurement,
    factory_strings,
    raise_if_cancelled,
)
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.protocols import IsCancelled, Policy, Vectors, never_cancel
from vitmae_search.vectors.space_index import SpaceIndex

K = 10
"""Recall is measured at this k."""

_SCORE_TOLERANCE = 1e-6


def updated_approximate(
    exact: ExactIndex, held: ApproximateIndex | None, policy: Policy, cancelled: IsCancelled = never_cancel
) -> ApproximateIndex:
    """Return the approximate index that fits `exact` now: `held`, `held` with vectors added, or a new one.

    Building one takes about a minute for a million vectors.

    Args:
        exact: All vectors of the space.
        held: The approximate index so far.
        policy: When to add, when to rebuild, and which recall is enough.
        cancelled: Stops the work.

    Raises:
        BuildCancelled: `cancelled` returned True.
    """
    if held is None:
        return build(exact, policy, cancelled)
    total = len(held.ids) + len(held.missing_ids(exact))
    removed = total - len(exact)
    if total - held.trained_on + removed > len(exact) / 2:
        return build(exact, policy, cancelled)
    if len(held.missing_ids(exact)) <= policy.added * len(exact):
        return held
    return tune_candidates(held.with_added(exact, cancelled), exact, policy, cancelled)


def build(
    exact: ExactIndex, policy: Policy | None = None, cancelled: IsCancelled = never_cancel
) -> ApproximateIndex:
    """Build an approximate index of all vectors and measure its recall.

    The first of `factory_strings` that reaches the recall is taken, or else the last.

    Args:
        exact: The vectors.
        policy: The recall that is enough.
        cancelled: Stops the work.

    Raises:
        BuildCancelled: `cancelled` returned True.
    """
    policy = policy or Policy()
    for kind in factory_strings(exact.dimension, len(exact)):
        built = tune_candidates(ApproximateIndex.build(exact, kind, cancelled), exact, policy, cancelled)
        if built.measured.recall >= policy.recall:
            break
    return built


def tune_candidates(
    built: ApproximateIndex, exact: ExactIndex, policy: Policy, cancelled: IsCancelled
) -> ApproximateIndex:
    """Return `built` with the fewest lists and candidates that reach the recall, or the most if none do.

    Args:
        built: The index to tune.
        exact: All vectors of the space.
        policy: The recall that is enough, and the queries that measure it.
        cancelled: Stops the work.
    """
    queries = perturbed_queries(exact, policy.queries, policy.noise)
    kth = kth_scores(exact, queries, cancelled)

    def recall_of(candidates: int, share: float) -> float:
        trial = built.with_measurement(Measurement(candidates, share=share))
        return measure_recall(SpaceIndex(exact, trial), queries, kth, cancelled)

    *parts, share = built.list_shares
    *fewer, candidates = built.candidate_counts
    share = next((part for part in parts if recall_of(candidates, part) >= policy.recall), share)
    for count in fewer:
        recall = recall_of(count, share)
        if recall >= policy.recall:
            candidates = count
            break
    else:
        recall = recall_of(candidates, share)
    built_at = datetime.now(UTC).isoformat(timespec="seconds")
    return built.with_measurement(Measurement(candidates, recall, len(queries), built_at, share))


def perturbed_queries(exact: ExactIndex, count: int, noise: float) -> Vectors:
    """Draw stored vectors and add noise; the same ones each time.

    Args:
        exact: The vectors to draw from.
        count: Number of queries Q at most.
        noise: Length of the noise.

    Returns:
        (Q, D) float32 of unit length.
    """
    random = np.random.default_rng(1)
    drawn = random.choice(exact.ids, min(count, len(exact)), replace=False)
    change = random.standard_normal((len(drawn), exact.dimension), np.float32)
    change *= noise / np.linalg.norm(change, axis=1, keepdims=True)
    rows = exact.vectors(drawn) + change
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def kth_scores(exact: ExactIndex, queries: Vectors, cancelled: IsCancelled) -> Vectors:
    """Compute the score of each query's true K-th neighbour.

    Args:
        exact: The vectors.
        queries: (Q, D) float32.
        cancelled: Stops the work.

    Returns:
        (Q,) float32.
    """
    best = np.full((len(queries), K), -2, np.float32)
    for _, vectors in exact.chunks():
        raise_if_cancelled(cancelled)
        scores = np.concatenate([best, queries @ vectors.T], axis=1)
        best = np.partition(scores, scores.shape[1] - K, axis=1)[:, -K:]
    kth: Vectors = best.min(axis=1)
    return kth


def measure_recall(index: SpaceIndex, queries: Vectors, kth: Vectors, cancelled: IsCancelled) -> float:
    """Return recall@K: the share of the K nearest that a search finds.

    A match that scores as high as the true K-th neighbour counts, so ties do not lower the recall.

    Args:
        index: The index to measure.
        queries: (Q, D) float32.
        kth: (Q,) float32, from `kth_scores`.
        cancelled: Stops the work.
    """
    hits = 0
    for query, least in zip(queries, kth, strict=True):
        raise_if_cancelled(cancelled)
        hits += int((index.search(query[None], K)[0].scores >= least - _SCORE_TOLERANCE).sum())
    return hits / (min(K, len(index)) * len(queries))
