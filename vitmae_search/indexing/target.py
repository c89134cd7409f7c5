"""What an index run embeds with, and the spaces that it brings up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vitmae_search.embedding import GuardedEmbedder, Projection
from vitmae_search.records import Space


@dataclass(frozen=True, slots=True)
class Target:
    """The run plans by `features` and records there what the embedder gives, which is opened at need.

    `searched` is the space that the person is after: `features`, or one derived from it. It is the report's,
    and the one whose index file is kept. `projections` are those of all spaces derived from `features`, by
    digest.
    """

    open_embedder: Callable[[], GuardedEmbedder]
    features: Space
    searched: Space
    projections: Mapping[str, Projection] = field(default_factory=dict)


OpenTarget = Callable[[], Target]
