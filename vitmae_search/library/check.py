"""`Library.check`: look for damage in a library, and mend it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.embedding import Projection
from vitmae_search.errors import SpaceError, VectorCacheDamaged
from vitmae_search.library.spaces import Spaces
from vitmae_search.records import CheckReport
from vitmae_search.vectors import VectorCache


@dataclass(slots=True)
class _Findings:
    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def check_library(catalog: Catalog, vectors: VectorCache, spaces: Spaces, *, repair: bool) -> CheckReport:
    """Check projections, the catalogue and each space's index file.

    Args:
        catalog: The library's catalogue.
        vectors: Its index files.
        spaces: Its spaces and projections.
        repair: Restore a projection from its model, derive derived vectors again, and rebuild or drop what
            else is damaged.
    """
    found = _Findings()
    projections = _check_projections(catalog, spaces, found, repair=repair)
    found.checked.append("the catalogue")
    problems = catalog.check(projections)
    found.problems += problems
    if repair:
        _repair_catalog(catalog, vectors, found, projections)
    _check_index_files(catalog, vectors, found, repair=repair)
    return CheckReport(tuple(found.checked), tuple(found.problems), tuple(found.repaired))


def _check_projections(
    catalog: Catalog, spaces: Spaces, found: _Findings, *, repair: bool
) -> dict[str, Projection]:
    """The undamaged projections, by digest."""
    sound = {}
    for space in catalog.spaces():
        if space.projection is None:
            continue
        found.checked.append(f"the projection of space {space.space_id}")
        try:
            projection = spaces.read_projection(space)
        except SpaceError as error:
            found.problems.append(str(error))
            restored = spaces.restore_projection(catalog, space) if repair else None
            if restored is None:
                continue
            found.repaired.append(f"restored the projection of space {space.space_id} from its model")
            projection = restored
        sound[projection.digest] = projection
    return sound


def _repair_catalog(
    catalog: Catalog, vectors: VectorCache, found: _Findings, projections: dict[str, Projection]
) -> None:
    """Delete vectors that an intact index file contradicts, and mend what the catalogue's own checks find.

    The first comes first, so that no derived vector is made of a damaged one.
    """
    wrong = {
        space.space_id: vectors.contradicted(catalog.vector_source(space.space_id)).tolist()
        for space in catalog.spaces()
    }
    if not found.problems and not any(wrong.values()):
        return
    with CatalogWriter.open_writer(catalog.folder) as writer:
        for space_id, ids in wrong.items():
            if ids:
                writer.remove_vectors(space_id, ids)
                found.problems.append(f"{len(ids)} vectors of space {space_id} were changed by damage.")
                found.repaired.append(
                    f"deleted {len(ids)} vectors of space {space_id}; the next `index` makes them again"
                )
        found.repaired += writer.repair(projections)


def _check_index_files(catalog: Catalog, vectors: VectorCache, found: _Findings, *, repair: bool) -> None:
    for space in catalog.spaces():
        source = catalog.vector_source(space.space_id)
        found.checked.append(f"the index file of space {space.space_id}")
        try:
            vectors.verify(source)
        except VectorCacheDamaged as error:
            found.problems.append(str(error))
            if repair:
                vectors.discard(source.key)
                if vectors.save(source):
                    found.repaired.append(
                        f"rebuilt the index file of space {space.space_id} from the catalogue"
                    )
