"""Which index a space is searched with, and why: from its files' first pages, without catching up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.listings import IndexListing
from vitmae_search.vectors.file import Origin, VectorsFile, read_origin
from vitmae_search.vectors.protocols import Policy


def describe(vectors: Path, approximate: Path, wanted: Origin, policy: Policy) -> IndexListing:
    """What the next search in this space would use."""
    try:
        file = VectorsFile(vectors, wanted)
    except FileNotFoundError:
        return IndexListing("exact", 0, 0, None, "the index file is made when it is first searched")
    except (OSError, VectorCacheDamaged) as error:
        return IndexListing("exact", 0, 0, None, f"the index file is made again: {error}")
    count, size = len(file.ids), vectors.stat().st_size
    known = _approximate(approximate, wanted)
    if known is not None and known["measured"]["recall"] >= policy.recall:
        measured = known["measured"]
        recall, queries, day = float(measured["recall"]), measured["queries"], measured["built_at"][:10]
        why = f"recall@10 {recall:.3f}, measured on {queries:,} queries, {day}"
        return IndexListing(known["kind"], count, size + approximate.stat().st_size, recall, why)
    return IndexListing("exact", count, size, None, _why_exact(file, known, policy))


def _approximate(path: Path, wanted: Origin) -> dict[str, Any] | None:
    try:
        origin, more = read_origin(path, wanted)
        return more if origin.revision <= wanted.revision else None
    except (OSError, VectorCacheDamaged):
        return None


def _why_exact(file: VectorsFile, known: dict[str, Any] | None, policy: Policy) -> str:
    from vitmae_search.vectors.exact import ExactIndex, exact_seconds

    seconds = exact_seconds(ExactIndex.of(file.ids, file.vectors))
    taking = f"{len(file.ids):,} vectors take about {max(1, round(1000 * seconds))} ms"
    if known is not None:
        recall = float(known["measured"]["recall"])
        return f"{taking}; an approximate index found {recall:.3f} of the ten best, which is too few"
    if policy.wants_faster(seconds, file.origin.dimension):
        return f"{taking}; the app, or the next `index`, makes an approximate index"
    return taking
