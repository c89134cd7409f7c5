"""Where an adapted projection goes: into a library's new space, or into a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.embedding import Projection
from vitmae_search.errors import SpaceError, StorageError, display_path
from vitmae_search.indexing.progress import ProgressReporter, progress_writer, record_job
from vitmae_search.library.adapt.adaptation import Adaptation, AdaptReport
from vitmae_search.library.adapt.fit import AdaptOptions
from vitmae_search.library.embedders import EmbedderSelection
from vitmae_search.library.spaces import Spaces
from vitmae_search.records import IndexProgress, Space
from vitmae_search.vectors import VectorCache, never_cancel

_STORED = 200_000  # of a library's features, at most: whitening gains nothing from more


@dataclass(frozen=True, slots=True)
class AdaptJob:
    """What is asked for, and by whom it is watched. `folder` is absolute."""

    folder: str
    options: AdaptOptions
    selection: EmbedderSelection
    spaces: Spaces
    device: str
    batch_size: int
    on_progress: Callable[[IndexProgress], None] | None
    cancelled: Callable[[], bool] | None

    def run(
        self,
        catalog: Catalog | None,
        keep: Callable[[Projection], Mapping[str, object]],
        record: Callable[[Mapping[str, Any]], None] = lambda progress: None,
        stored: Callable[[Iterable[str]], NDArray[np.float32] | None] = lambda digests: None,
    ) -> AdaptReport:
        """See `Adaptation.run`."""
        adaptation = Adaptation(
            self.folder,
            self.spaces.resolve(self.selection, catalog),
            self.options,
            ProgressReporter(self.on_progress, record),
            stored=stored,
            device=self.device,
            batch_size=self.batch_size,
            cancelled=self.cancelled or (lambda: False),
        )
        return adaptation.run(keep)


def adapt_to_file(job: AdaptJob, catalog: Catalog | None, output: Path) -> AdaptReport:
    """Write the projection to `output` if it is better. Raises `StorageError` where that cannot be."""
    if output.is_dir():
        raise StorageError(f"{display_path(output)} is a folder: the projection needs a file's name")
    if not os.path.isdir(output.parent):
        raise StorageError(f"{display_path(output.parent)} is not a folder: the projection cannot go there")

    def keep(projection: Projection) -> Mapping[str, object]:
        try:
            projection.save(output)
        except OSError as error:
            raise StorageError(f"{display_path(output)} cannot be written: {error.strerror}") from error
        return {"output": os.fspath(output)}

    return job.run(catalog, keep)


def adapt_library(job: AdaptJob, catalog: CatalogWriter, vectors: VectorCache, run_key: str) -> AdaptReport:
    """Make the projection's space of the library's stored features, and use it, if it is better.

    Raises `SpaceError` where nothing is indexed with the chosen model.
    """

    def run() -> AdaptReport:
        space = job.spaces.resolve(job.selection, catalog).space
        if space is None:
            raise SpaceError(
                "nothing is indexed with this model and these options yet: run `index` with them first, "
                "or let the projection be written to a file"
            )

        def keep(projection: Projection) -> Mapping[str, object]:
            made = job.spaces.derive(catalog, space, projection, use=True)
            source = catalog.vector_source(made.space_id)
            vectors.save(source)
            vectors.speed_up(source, job.cancelled or never_cancel)
            return {"space": made.space_id}

        stored = partial(stored_features, catalog, space)
        return job.run(catalog, keep, progress_writer(catalog, run_key), stored)

    arguments = {"folder": job.folder, "options": asdict(job.options)}
    return record_job(catalog, run_key, "adapt", arguments, run)


def stored_features(
    catalog: Catalog, space: Space, left_out: Iterable[str] = ()
) -> NDArray[np.float32] | None:
    """(M, F) of a space's vectors; None where there are fewer than two for each dimension.

    `left_out` are the digests of photos that a projection is judged by: it must not know them.
    """
    contents = filter(None, map(catalog.content_id, left_out))
    judges = [catalog.vector(space.space_id, content) for content in contents]
    unwanted = {vector.tobytes() for vector in judges if vector is not None}
    chunks: list[NDArray[np.float32]] = []
    for _, vectors in catalog.vector_source(space.space_id).added_since(0):
        chunks.append(vectors[[row.tobytes() not in unwanted for row in vectors]])
        if sum(map(len, chunks)) >= _STORED:
            break
    found = sum(map(len, chunks))
    return np.concatenate(chunks) if found >= 2 * space.dimension else None
