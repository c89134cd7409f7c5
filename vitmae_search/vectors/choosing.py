"""Which index a space is searched with: exact while that is fast, beyond it one that is measured."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache

import numpy as np

from vitmae_search.vectors.approximate import EFFORTS, ApproximateIndex, Asked, Measured, stop_if
from vitmae_search.vectors.contract import Policy, Vectors
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.searching import SpaceIndex

K = 10
_TIMED_BYTES = 32 << 20
_TIMES = 3
_SAME = 1e-6


def exact_seconds(exact: ExactIndex) -> float:
    """How long an exact search takes here and now, judged by a part of the vectors."""
    ids = exact.ids[: max(1, _TIMED_BYTES // (4 * exact.dimension))]
    if not len(ids):
        return 0.0
    sample = ExactIndex.of(ids, exact.vectors(ids))
    query, seconds = sample.vectors(ids[:1]), []
    for _ in range(_TIMES):
        start = time.perf_counter()
        sample.search(query, K)
        seconds.append(time.perf_counter() - start)
    return min(seconds) * exact.bytes_scanned / sample.bytes_scanned


def improved(
    exact: ExactIndex, held: ApproximateIndex | None, policy: Policy, cancelled: Asked = lambda: False
) -> ApproximateIndex | None:
    """The approximate index that `exact` should have now: none, the one that is `held`, or another one.

    Takes a minute for a million vectors where it has to be made; raises `Cancelled`.
    """
    if held is None:
        slow = exact_seconds(exact) > policy.exact_seconds
        return build(exact, policy, cancelled) if slow else None
    joined = len(held.ids) + len(held.lacks(exact))
    gone = joined - len(exact)
    if joined - held.trained_on + gone > len(exact) / 2:
        return build(exact, policy, cancelled)
    if len(held.lacks(exact)) <= policy.added * len(exact):
        return held
    return measured(held.joined_by(exact, cancelled), exact, policy, cancelled)


def build(
    exact: ExactIndex, policy: Policy | None = None, cancelled: Asked = lambda: False
) -> ApproximateIndex:
    """An approximate index of all that `exact` holds, measured. Raises `Cancelled`."""
    return measured(ApproximateIndex.build(exact, cancelled), exact, policy or Policy(), cancelled)


def measured(made: ApproximateIndex, exact: ExactIndex, policy: Policy, cancelled: Asked) -> ApproximateIndex:
    """`made` with the least effort that reaches the recall, or with the most where none does."""
    queries = noisy(exact, policy.queries, policy.noise)
    kth = kth_scores(exact, queries, cancelled)

    @cache
    def recall(effort: int) -> float:
        trial = made.measured_as(Measured(EFFORTS[effort]))
        return recall_of(SpaceIndex(exact, trial), queries, kth, cancelled)

    low, high = 0, len(EFFORTS) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if recall(middle) >= policy.recall else (middle + 1, high)
    built_at = datetime.now(UTC).isoformat(timespec="seconds")
    return made.measured_as(Measured(EFFORTS[low], recall(low), len(queries), built_at))


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
