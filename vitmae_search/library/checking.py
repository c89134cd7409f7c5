"""`check`: what may be wrong with a library, and how it is mended."""

from __future__ import annotations

from pathlib import Path

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.records import CheckReport
from vitmae_search.vectors import VectorCache


def check_library(folder: Path, catalog: Catalog, vectors: VectorCache, *, repair: bool) -> CheckReport:
    """Check the catalogue and each space's index file; with `repair`, rebuild or drop what is damaged."""
    checked, problems, repaired = ["the catalogue"], list(catalog.check()), []
    if problems and repair:
        with CatalogWriter.open_writer(folder) as writer:
            repaired += writer.repair()
    for space in catalog.spaces():
        source = catalog.vector_source(space.space_id)
        checked.append(f"the index file of space {space.space_id}")
        try:
            vectors.verify(source)
        except VectorCacheDamaged as error:
            problems.append(str(error))
            if repair:
                vectors.discard(source.key)
                if vectors.save(source):
                    repaired.append(f"rebuilt the index file of space {space.space_id} from the catalogue")
    return CheckReport(tuple(checked), tuple(problems), tuple(repaired))
