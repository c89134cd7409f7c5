"""Adapt, and save the projection: in a library's new space, or in a file."""

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
from vitmae_search.indexing.job import ProgressReporter, progress_writer, run_job
from vitmae_search.library.adapt.adaptation import Adaptation, AdaptReport, SaveProjection, StoredFeatures
from vitmae_search.library.adapt.fit import AdaptOptions
from vitmae_search.library.embedders import EmbedderSelection
from vitmae_search.library.spaces import Spaces
from vitmae_search.records import JobProgress, Space
from vitmae_search.vectors import VectorStore, never_cancel

_MAX_STORED = 200_000
"""Most of a library's features that whitening uses: it gains nothing from more."""


@dataclass(frozen=True, slots=True)
class AdaptRequest:
    """What is adapted, and how.

    Attributes:
        folder: Absolute path of the photos' folder.
        options: How to learn.
        selection: The embedder whose features are adapted.
        spaces: Resolves the selection.
        device: Where a head is trained.
        batch_size: Views in a batch.
        on_progress: Called at each step.
        cancelled: Asked often; true stops the run.
    """

    folder: str
    options: AdaptOptions
    selection: EmbedderSelection
    spaces: Spaces
    device: str
    batch_size: int
    on_progress: Callable[[JobProgress], None] | None
    cancelled: Callable[[], bool] | None

    def run(
        self,
        catalog: Catalog | None,
        save: SaveProjection,
        write_progress: Callable[[Mapping[str, Any]], None] = lambda progress: None,
        stored_features: StoredFeatures = lambda digests: None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AdaptReport:
        """Run the adaptation; see `Adaptation.run`.

        Args:
            catalog: The library's, if there is one.
            save: Called with a better projection.
            write_progress: See `ProgressReporter`.
            stored_features: See `Adaptation`.
            cancelled: Asked in place of the request's own.
        """
        adaptation = Adaptation(
            self.folder,
            self.spaces.resolve(self.selection, catalog),
            self.options,
            ProgressReporter(self.on_progress, write_progress),
            stored_features=stored_features,
            device=self.device,
            batch_size=self.batch_size,
            cancelled=cancelled or self.cancelled or never_cancel,
        )
        return adaptation.run(save)


def adapt_to_file(request: AdaptRequest, catalog: Catalog | None, output: Path) -> AdaptReport:
    """Adapt, and write the projection to a file if it is better.

    Args:
        request: What is adapted, and how.
        catalog: The library's, if there is one.
        output: The file.

    Raises:
        StorageError: The file cannot be written.
    """
    if output.is_dir():
        raise StorageError(f"{display_path(output)} is a folder: the projection needs a file's name")
    if not os.path.isdir(output.parent):
        raise StorageError(f"{display_path(output.parent)} is not a folder: the projection cannot go there")

    def save(projection: Projection) -> Mapping[str, object]:
        try:
            projection.save(output)
        except OSError as error:
            raise StorageError(f"{display_path(output)} cannot be written: {error.strerror}") from error
        return {"output": os.fspath(output)}

    return request.run(catalog, save)


def adapt_library(
    request: AdaptRequest, catalog: CatalogWriter, vectors: VectorStore, run_key: str
) -> AdaptReport:
    """Adapt, and if the projection is better, make its space of the stored features, and use it.

    Args:
        request: What is adapted, and how.
        catalog: The library's.
        vectors: The library's vector indexes.
        run_key: Key of the run's row in the catalogue.

    Raises:
        SpaceError: Nothing is indexed with the chosen model.
    """

    def run(stop: Callable[[], bool]) -> AdaptReport:
        space = request.spaces.resolve(request.selection, catalog).space
        if space is None:
            raise SpaceError(
                "nothing is indexed with this model and these options yet: run `index` with them first, "
                "or let the projection be written to a file"
            )

        def save(projection: Projection) -> Mapping[str, object]:
            made = request.spaces.derive(catalog, space, projection, use=True)
            source = catalog.vector_source(made.space_id)
            vectors.save(source)
            vectors.speed_up(source, stop)
            return {"space": made.space_id}

        features = partial(stored_features, catalog, space)
        return request.run(catalog, save, progress_writer(catalog, run_key), features, stop)

    arguments = {"folder": request.folder, "options": asdict(request.options)}
    return run_job(catalog, run_key, "adapt", arguments, run, request.cancelled)


def stored_features(
    catalog: Catalog, space: Space, exclude: Iterable[str] = ()
) -> NDArray[np.float32] | None:
    """Read the vectors of a space.

    Args:
        catalog: The library's.
        space: The space of features.
        exclude: Digests of the photos that projections are compared on.

    Returns:
        (M, F); None if there are fewer than two for each dimension.
    """
    contents = filter(None, map(catalog.content_id, exclude))
    excluded = [catalog.vector(space.space_id, content) for content in contents]
    excluded_rows = {vector.tobytes() for vector in excluded if vector is not None}
    chunks: list[NDArray[np.float32]] = []
    for _, vectors in catalog.vector_source(space.space_id).added_since(0):
        chunks.append(vectors[[row.tobytes() not in excluded_rows for row in vectors]])
        if sum(map(len, chunks)) >= _MAX_STORED:
            break
    count = sum(map(len, chunks))
    return np.concatenate(chunks) if count >= 2 * space.dimension else None
