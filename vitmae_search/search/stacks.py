"""Stacks: near-identical hits as one, so that a burst does not fill a page.

Two hits are near-identical where their score with each other says so: from `same` on (`ScoreCalibration`) if
they were taken within seconds of each other, which is a burst; otherwise from a score that is `COPY_NEARNESS`
times nearer to 1 than `same`, as a photo's smaller or recompressed files have. A space whose scores were not
measured has no stacks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitmae_search.records import Photo

BURST_SECONDS = 10.0
COPY_NEARNESS = 10.0
REACH = 50
"""A hit joins a stack only if at most this many hits lie between it and the stack's last one.

So the first stacks are the same however many hits are looked at, and pages fit each other.
"""
LARGEST = 1000
"""Hits in a stack at most; further ones begin another."""


def stacks_of(
    photos: Sequence[Photo], vectors: NDArray[np.float32], same: float, reach: int = REACH
) -> list[list[int]]:
    """Put hits into stacks, each with the first hit that it is near-identical to.

    Args:
        photos: For each hit, best first, the photo that it shows.
        vectors: (N, D), of unit length: the hits' vectors.
        same: The score from which two pictures are the same photo, as the space was calibrated.
        reach: See `REACH`.

    Returns:
        The places of each stack's hits, in their order; stacks in the order of their first hits.
    """
    copy = 1 - (1 - same) / COPY_NEARNESS
    stacks: list[list[int]] = []
    for i, photo in enumerate(photos):
        near = [stack for stack in stacks if i - stack[-1] <= reach and len(stack) < LARGEST]
        scores = vectors[[stack[0] for stack in near]] @ vectors[i]
        joined = (
            stack
            for stack, score in zip(near, scores, strict=True)
            if score >= copy or (score >= same and _same_moment(photos[stack[0]], photo))
        )
        stack = next(joined, None)
        if stack is None:
            stacks.append([i])
        else:
            stack.append(i)
    return stacks


def are_final(stacks: Sequence[Sequence[int]], hits: int, reach: int = REACH) -> bool:
    """Whether further hits would leave these stacks as they are.

    Args:
        stacks: Some of what `stacks_of` gave.
        hits: How many hits it was given.
        reach: As it was given.
    """
    return all(hits - stack[-1] > reach or len(stack) >= LARGEST for stack in stacks)


def _same_moment(one: Photo, other: Photo) -> bool:
    """Whether two photos were taken within seconds of each other, by what their files say."""
    first, second = one.metadata.taken_at, other.metadata.taken_at
    return first is not None and second is not None and abs((first - second).total_seconds()) <= BURST_SECONDS
