"""`Library.check`: look for damage in a library, and mend it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.embedding import Projection
from vitmae_search.errors import SpaceError, VectorCacheDamaged, VectorStoreUnavailable
from vitmae_search.library.spaces import Spaces
from vitmae_search.records import CheckReport
from vitmae_search.vectors import VectorStore


@dataclass(slots=True)
class _Findings:
    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def check_library(catalog: Catalog, vectors: VectorStore, spaces: Spaces, *, repair: bool) -> CheckReport:
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
    if repair:
        _delete_contradicted_vectors(catalog, vectors, found, projections)
    problems = catalog.check(projections)
    found.problems += problems
    if problems and repair:
        with CatalogWriter.open_writer(catalog.folder, catalog.address) as writer:
            found.repaired += writer.repair(projections)
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


def _delete_contradicted_vectors(
    catalog: Catalog, vectors: VectorStore, found: _Findings, projections: dict[str, Projection]
) -> None:
    """Delete the vectors that an intact index file contradicts, before others are derived from them.

    Derived vectors whose projection is sound are left to the catalogue's own check.
    """
    for space in catalog.spaces():
        if space.projection in projections:
            continue
        wrong = vectors.contradicted(catalog.vector_source(space.space_id)).tolist()
        if wrong:
            with CatalogWriter.open_writer(catalog.folder, catalog.address) as writer:
                writer.remove_vectors(space.space_id, wrong)
            changed = f"{len(wrong)} vectors of space {space.space_id}"
            found.problems.append(f"{changed} are not those that were indexed.")
            found.repaired.append(f"deleted {changed}; the next `index` makes them again")


def _check_index_files(catalog: Catalog, vectors: VectorStore, found: _Findings, *, repair: bool) -> None:
    for space in catalog.spaces():
        source = catalog.vector_source(space.space_id)
        checked = f"the {vectors.noun} of space {space.space_id}"
        try:
            vectors.verify(source)
            found.checked.append(checked)
        except VectorStoreUnavailable as error:  # which is the same for all, and no damage
            found.problems.append(str(error))
            return
        except VectorCacheDamaged as error:
            found.checked.append(checked)
            found.problems.append(str(error))
            if repair:
                vectors.discard(source)
                if vectors.save(source):
                    found.repaired.append(f"rebuilt {checked} from the catalogue")
