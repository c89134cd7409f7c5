"""Which index a space is searched with: exact while that is fast, beyond it one that is measured."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from vitmae_search.vectors.approximate import CANDIDATES, ApproximateIndex, Measured, kinds, stop_if
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.protocols import Asked, Policy, Vectors, never
from vitmae_search.vectors.space_index import SpaceIndex

K = 10
_SAME = 1e-6


def improved(
    exact: ExactIndex, held: ApproximateIndex | None, policy: Policy, cancelled: Asked = never
) -> ApproximateIndex:
    """The approximate index that `exact` should have now: the one that is `held`, or another one.

    Takes a minute for a million vectors where it has to be made; raises `Cancelled`.
    """
    if held is None:
        return build(exact, policy, cancelled)
    joined = len(held.ids) + len(held.lacks(exact))
    gone = joined - len(exact)
    if joined - held.trained_on + gone > len(exact) / 2:
        return build(exact, policy, cancelled)
    if len(held.lacks(exact)) <= policy.added * len(exact):
        return held
    return measured(held.joined_by(exact, cancelled), exact, policy, cancelled)


def build(exact: ExactIndex, policy: Policy | None = None, cancelled: Asked = never) -> ApproximateIndex:
    """An approximate index of all that `exact` holds, measured. Raises `Cancelled`.

    The first of `kinds` that reaches the recall; the last one where none does.
    """
    policy = policy or Policy()
    for kind in kinds(exact.dimension):
        made = measured(ApproximateIndex.build(exact, kind, cancelled), exact, policy, cancelled)
        if made.measured.recall >= policy.recall:
            break
    return made


def measured(made: ApproximateIndex, exact: ExactIndex, policy: Policy, cancelled: Asked) -> ApproximateIndex:
    """`made` with the fewest candidates that reach the recall, or with the most where none do."""
    queries = noisy(exact, policy.queries, policy.noise)
    kth = kth_scores(exact, queries, cancelled)
    for candidates in CANDIDATES:
        trial = made.measured_as(Measured(candidates))
        recall = recall_of(SpaceIndex(exact, trial), queries, kth, cancelled)
        if recall >= policy.recall:
            break
    built_at = datetime.now(UTC).isoformat(timespec="seconds")
    return made.measured_as(Measured(candidates, recall, len(queries), built_at))


def noisy(exact: ExactIndex, count: int, noise: float) -> Vectors:
    """(Q, D) float32 of unit length: stored vectors, drawn and disturbed."""
    random = np.random.default_rng(1)
    drawn = random.choice(exact.ids, min(count, len(exact)), replace=False)
    change = random.standard_normal((len(drawn), exact.dimension), np.float32)
    change *= noise / np.linalg.norm(change, axis=1, keepdims=True)
    rows = exact.vectors(drawn) + change
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def kth_scores(exact: ExactIndex, queries: Vectors, cancelled: Asked) -> Vectors:
    """(Q,) float32: the score of the last of the K that are truly nearest."""
    best = np.full((len(queries), K), -2, np.float32)
    for _, vectors in exact.chunks():
        stop_if(cancelled)
        scores = np.concatenate([best, queries @ vectors.T], axis=1)
        best = np.partition(scores, scores.shape[1] - K, axis=1)[:, -K:]
    kth: Vectors = best.min(axis=1)
    return kth


def recall_of(index: SpaceIndex, queries: Vectors, kth: Vectors, cancelled: Asked) -> float:
    """The share of the K best that a search finds. What scores as high as they do is as good."""
    hits = 0
    for query, least in zip(queries, kth, strict=True):
        stop_if(cancelled)
        hits += int((index.search(query[None], K)[0].scores >= least - _SAME).sum())
    return hits / (min(K, len(index)) * len(queries))
