"""The vectors of changed photos that a search would compare: of the variant of each that it chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder, Projection
from vitmae_search.errors import DeviceError, PhotoError, VitmaeSearchError
from vitmae_search.indexing.batcher import batch_size_for, run_with_fallback
from vitmae_search.library.encode_folder import photo_views
from vitmae_search.photos import PhotoProcesses, photo_fits_memory
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.records import QueryVariant, ScoreCalibration
from vitmae_search.search.variants import (
    best_turned,
    best_upright,
    is_clear,
    likely_turns,
    turned_variants,
    turns,
    upright_variants,
)

_View = tuple[int, QueryVariant]
"""The number of a kind of change, and a variant of the picture that it makes."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewSearch:
    """Searches for changed photos among originals, with the same choice of variants as `Library.search`.

    Attributes:
        embedder: Embeds the views.
        projection: Applied to its features; None for none.
        gallery: (N, D), the originals' vectors.
        shrink_to: As for `photos.decode`.
        seed: Of the views.
    """

    embedder: GuardedEmbedder
    projection: Projection | None
    gallery: NDArray[np.float32]
    shrink_to: int | None
    seed: int

    def vectors(
        self,
        paths: Sequence[str],
        as_they_are: NDArray[np.float32],
        on_done: Callable[[], None] = lambda: None,
    ) -> NDArray[np.float32]:
        """The chosen variants' vectors of each kind of change of photos.

        Args:
            paths: n files.
            as_they_are: (kinds, n, D), the views' vectors without variants; kept for a file that cannot be
                read any more, or has a variant that cannot be embedded.
            on_done: Called after each photo.

        Returns:
            (kinds, n, D).
        """
        chosen = as_they_are.copy()
        workers = default_workers()
        processes = PhotoProcesses()
        read = partial(self._read, processes)
        reads = prefetch(paths, read, workers=workers, ahead=2 * workers, end_work=processes.close)
        with ThreadPoolExecutor(workers) as executor, closing(reads):
            for i, images in enumerate(reads):
                try:
                    for kind, vector in self._choose(images, executor):
                        chosen[kind, i] = vector
                except DeviceError:
                    raise
                except VitmaeSearchError:  # one of its variants cannot be embedded
                    chosen[:, i] = as_they_are[:, i]
                on_done()
        return chosen

    def _read(self, processes: PhotoProcesses, path: str) -> dict[_View, tuple[Image.Image, NDArray[Any]]]:
        """The upright variants of a photo's views, and what the model takes of them; called in threads."""
        prepare = self.embedder.prepare
        try:
            with photo_fits_memory(path):
                loaded = processes.load(path, self.shrink_to)
                views = photo_views(loaded.image, loaded.digest, self.shrink_to, self.seed)
                return {
                    (kind, variant): (upright, prepare(upright))
                    for kind, view in enumerate(views)
                    for variant, upright in upright_variants(view, self.embedder.input_size).items()
                }
        except PhotoError:
            return {}

    def _choose(
        self, read: Mapping[_View, tuple[Image.Image, NDArray[Any]]], executor: ThreadPoolExecutor
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The number of each kind of change, and the chosen variant's vector (D,)."""
        vectors = self._embed({view: prepared for view, (_, prepared) in read.items()})
        scores = self._best_scores(vectors)
        upright: dict[int, QueryVariant] = {}
        for kind in sorted({kind for kind, _ in scores}):
            upright[kind] = best_upright({v: score for (k, v), score in scores.items() if k == kind})
        unclear = [view for view in upright.items() if not is_clear(scores[view], self._calibration)]
        likely = self._likely_turns({view: vectors[view] for view in unclear}, scores)
        turned = {
            (kind, variant): image
            for (kind, own), wanted in likely.items()
            for variant, image in turned_variants(
                wanted, read[kind, own][0], self.embedder.input_size
            ).items()
        }
        pixels = executor.map(self.embedder.prepare, turned.values())
        turned_vectors = self._embed(dict(zip(turned, pixels, strict=True)))
        turned_scores = self._best_scores(turned_vectors)
        vectors |= turned_vectors
        for kind, variant in upright.items():
            if (kind, variant) in unclear:
                turned_by = [turned for turned in turns(variant) if (kind, turned) in turned_scores]
                own = {turned: turned_scores[kind, turned] for turned in turned_by}
                variant = best_turned(variant, scores[kind, variant], own)
            yield kind, vectors[kind, variant]

    def _likely_turns(
        self, vectors: Mapping[_View, NDArray[np.float32]], scores: Mapping[_View, float]
    ) -> dict[_View, list[QueryVariant]]:
        """For each of the views the turns that a search would embed."""
        rows = np.stack(list(vectors.values())) if vectors else None
        guessed = None if self.projection is None or rows is None else self.projection.guess_turned(rows)
        if guessed is None:
            return {(kind, variant): turns(variant) for kind, variant in vectors}
        likely: dict[_View, list[QueryVariant]] = {}
        for view, own in zip(vectors, guessed.swapaxes(0, 1), strict=True):
            best = (own @ self.gallery.T).max(axis=1).tolist()
            found = dict(zip(turns(view[1]), best, strict=True))
            likely[view] = likely_turns(scores[view], found, self._calibration)
        return likely

    @property
    def _calibration(self) -> ScoreCalibration | None:
        return None if self.projection is None else self.projection.calibration

    def _embed(self, prepared: Mapping[_View, NDArray[Any]]) -> dict[_View, NDArray[np.float32]]:
        """The vectors (D,), without those of images that the model cannot take."""
        pixels, size = list(prepared.values()), batch_size_for(self.embedder)
        outcomes = [
            outcome
            for start in range(0, len(pixels), size)
            for outcome in run_with_fallback(self.embedder.embed, np.stack(pixels[start : start + size]))
        ]
        features = {
            view: outcome
            for view, outcome in zip(prepared, outcomes, strict=True)
            if not isinstance(outcome, VitmaeSearchError)
        }
        if self.projection is None or not features:
            return features
        return dict(zip(features, self.projection(np.stack(list(features.values()))), strict=True))

    def _best_scores(self, vectors: Mapping[_View, NDArray[np.float32]]) -> dict[_View, float]:
        if not vectors:
            return {}
        best = (np.stack(list(vectors.values())) @ self.gallery.T).max(axis=1)
        return dict(zip(vectors, best.tolist(), strict=True))
