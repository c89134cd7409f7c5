"""`Library.evaluate`: how good the searches of an embedder are on a folder of photos, beside baselines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding import GuardedEmbedder, PluginHost, open_embedder
from vitmae_search.embedding.projection import Projection
from vitmae_search.errors import EvaluationError, PluginError, StorageError, display_path
from vitmae_search.evaluation import (
    MIN_CALIBRATION_PHOTOS,
    Classes,
    Evaluation,
    LabelledPhotos,
    MethodScores,
    class_figures,
    color_histogram,
    draw,
    duplicate_figures,
    find_labelled_photos,
    instance_figures,
    perceptual_hash,
    raw_pixels,
)
from vitmae_search.evaluation.plot import save_plot
from vitmae_search.indexing.job import ProgressReporter
from vitmae_search.library.encode_folder import Encoded, Method, encode
from vitmae_search.library.query_views import ViewSearch
from vitmae_search.photos import decode_target
from vitmae_search.records import JobProgress

__all__ = ["Candidate", "calibrate_projection", "evaluate_folder", "save_plot"]

_HASH = "perceptual hash, 64 bits"
_BASELINES = (
    Method("colour histogram, 8³ bins", color_histogram),
    Method("raw pixels, 32 × 32", raw_pixels),
    Method("raw grey pixels, 32 × 32", partial(raw_pixels, grey=True)),
    Method(_HASH, perceptual_hash),
)
_BASELINE_PLUGIN = "color_layout"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is measured: an open embedder, and the projection that a search would apply to its features."""

    name: str
    embedder: GuardedEmbedder
    projection: Projection | None = None

    @classmethod
    def of(cls, embedder: GuardedEmbedder, projection: Projection | None = None) -> Candidate:
        """A candidate named after its model and the options that are not the plugin's defaults.

        Args:
            embedder: The embedder.
            projection: The projection.

        Raises:
            ModelError: The projection does not fit the embedder's features.
        """
        if projection is not None:
            projection.check_fits(embedder.dimension)
        defaults = embedder.info.options
        others = [
            f"{name} {value}"
            for name, value in embedder.options.items()
            if name != "model" and value != defaults[name]
        ]
        return cls(", ".join([embedder.model, *others]), embedder, projection)


def evaluate_folder(
    folder: str | os.PathLike[str],
    candidates: Sequence[Candidate],
    *,
    labels: str | os.PathLike[str] | None = None,
    instances: int = 1000,
    limit: int | None = None,
    decode: str = "scaled",
    batch_size: int | None = None,
    variants: bool = True,
    seed: int = 0,
    host: PluginHost | None = None,
    on_progress: Callable[[JobProgress], None] | None = None,
) -> Evaluation:
    """Measure candidates, the first one's network untrained, and simple baselines on a folder's photos.

    Copies of a photo count once. Photos that cannot be read are reported.

    Args:
        folder: The photos; the first folder below it is a photo's class.
        candidates: What is measured, with different names. They stay open.
        labels: A CSV file of classes (`labels_of_csv`) in place of folders; photos that it does not list
            are left out.
        instances: How many photos are changed and looked for among each other, at most.
        limit: Draw so many of the photos. None takes all.
        decode: How photos are decoded, "scaled" or "exact".
        batch_size: Photos embedded at once. None is what suits each method.
        variants: Search for changed photos with candidates as searches do: without their borders, and
            turned. Baselines compare them as they are.
        seed: What is drawn.
        host: Finds the plugin of a baseline.
        on_progress: Called at each step.

    Raises:
        LabelsError: The CSV file is wrong.
        PluginError: A plugin does not work.
        EvaluationError: Nothing can be measured.
    """
    reporter = ProgressReporter(on_progress)
    reporter.report("scanning", 0)
    photos = find_labelled_photos(folder, labels)
    photos = photos if limit is None else photos.drawn(limit, seed)
    count = len(photos.files)
    sample = draw(count, instances, seed) if instances > 1 else []
    total = count + (len(candidates) * len(sample) if variants else 0)
    with ExitStack() as closing:
        compared = list(_compared(candidates, host or PluginHost(), variants, closing))
        shrink_to = _shrink_to(decode, compared)
        encoded = encode(
            photos.files,
            [one.method for one in compared],
            sample=sample,
            shrink_to=shrink_to,
            batch_size=batch_size,
            seed=seed,
            on_done=lambda done, failed: reporter.report("evaluating", done, total, failed=failed),
        )
    failed = len(encoded.failures)
    done = iter(range(count + 1, total + 1))
    searched = _search_views(
        compared,
        encoded,
        [photos.files[row].path for row in encoded.sample],
        partial(ViewSearch, shrink_to=shrink_to, seed=seed),
        lambda: reporter.report("evaluating", next(done), total, failed=failed),
    )
    reporter.report("finishing", total, total, failed=failed)
    where = {"folder": os.fspath(folder), "decode": decode, "variants": variants, "seed": seed}
    found = _measured(photos, encoded, compared, searched, reporter, **where)
    reporter.report("done", total, total, failed=failed)
    return found


def calibrate_projection(path: str | os.PathLike[str], found: Evaluation) -> None:
    """Write what the scores of an evaluated projection mean into its file; its vectors stay the same.

    Args:
        path: The projection's file.
        found: The evaluation.

    Raises:
        EvaluationError: It had too few photos.
        ModelError: The file is no projection.
        StorageError: It cannot be written.
    """
    if found.calibration is None:
        raise EvaluationError(
            f"it takes {MIN_CALIBRATION_PHOTOS} photos, changed and looked for, to say what scores mean"
        )
    try:
        replace(Projection.read(path), calibration=found.calibration).save(path)
    except OSError as error:
        raise StorageError(f"{display_path(path)} cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the tables: the vectors of a method, or a projection of them.

    Attributes:
        name: Shown to the person.
        projection: Applied to the method's vectors; None for none.
        searched_with: Embeds the variants that a search tries of a changed photo; None compares it as it is.
        classes: Whether neighbours of the same class are measured.
    """

    name: str
    projection: Projection | None = None
    searched_with: GuardedEmbedder | None = None
    classes: bool = True


@dataclass(frozen=True, slots=True)
class _Compared:
    """A method, and the rows that it has in the tables."""

    method: Method
    rows: tuple[_Row, ...]
    input_size: int | None = 1


def _compared(
    candidates: Sequence[Candidate], host: PluginHost, variants: bool, closing: ExitStack
) -> Iterator[_Compared]:
    """The candidates and the baselines. Embedders that are opened here are closed with `closing`."""
    for candidate in candidates:
        yield _Compared(
            Method.of_embedder(candidate.name, candidate.embedder),
            tuple(_rows(candidate, variants)),
            candidate.embedder.input_size,
        )
    untrained = candidates[0].embedder.random_init()
    if untrained is not None:
        yield _baseline(f"{candidates[0].name}, untrained", closing.enter_context(untrained))
    if all(candidate.embedder.info.name != _BASELINE_PLUGIN for candidate in candidates):
        with suppress(PluginError):  # it is a plugin like any other, and may be missing
            opened = open_embedder(host.get(_BASELINE_PLUGIN), device="cpu")
            yield _baseline(_BASELINE_PLUGIN, closing.enter_context(opened))
    for method in _BASELINES:
        yield _Compared(method, (_Row(method.name, classes=method.name != _HASH),))


def _rows(candidate: Candidate, variants: bool) -> Iterator[_Row]:
    projection = candidate.projection
    name = candidate.name if projection is None else f"{candidate.name} + {projection.kind}"
    if variants:
        yield _Row(name, projection, candidate.embedder)
        yield _Row(f"{name}, without variants", projection, classes=False)
    else:
        yield _Row(name, projection)
    if projection is not None:
        yield _Row(candidate.name)


def _baseline(name: str, embedder: GuardedEmbedder) -> _Compared:
    return _Compared(Method.of_embedder(name, embedder), (_Row(name),), embedder.input_size)


def _shrink_to(decode: str, compared: Sequence[_Compared]) -> int | None:
    """The side that the decoder may scale down to: what a library would use for the most demanding method."""
    sizes = [one.input_size for one in compared]
    return decode_target(decode, None if None in sizes else max(size for size in sizes if size))


def _search_views(
    compared: Sequence[_Compared],
    encoded: Encoded,
    files: Sequence[str],
    search: Callable[[GuardedEmbedder, Projection | None, NDArray[np.float32]], ViewSearch],
    on_done: Callable[[], None],
) -> dict[str, NDArray[np.float32]]:
    """(kinds, n, D) by the row's name: of each view of the `files` the vector that a search compares."""
    found: dict[str, NDArray[np.float32]] = {}
    own = np.searchsorted(encoded.rows, encoded.sample)
    for one, features, views in zip(compared, encoded.vectors, encoded.views, strict=True):
        for row in one.rows if len(own) > 1 else ():
            if row.searched_with is not None:
                gallery = _projected(features[own][None], row.projection)[0]
                view_search = search(row.searched_with, row.projection, gallery)
                found[row.name] = view_search.vectors(files, _projected(views, row.projection), on_done)
    return found


def _measured(
    photos: LabelledPhotos,
    encoded: Encoded,
    compared: Sequence[_Compared],
    searched: Mapping[str, NDArray[np.float32]],
    reporter: ProgressReporter,
    **where: Any,
) -> Evaluation:
    """The evaluation; `where` are further fields. Raises `EvaluationError` if nothing can be measured."""
    classes = Classes.of([photos.labels[row] for row in encoded.rows])
    instances = len(encoded.sample) if len(encoded.sample) > 1 else 0
    if not (classes.queries or instances):
        first = [f"{display_path(one.path)}: {one.reason}" for one in encoded.failures[:1]]
        reason = "; ".join([*classes.notes(), *first])
        raise EvaluationError(f"nothing can be measured on {len(encoded.rows)} photos: {reason}")
    unreadable = [
        f"{display_path(one.path)} could not be looked into: {one.reason}." for one in photos.problems
    ]
    return Evaluation(
        **where,
        photos=len(encoded.rows),
        classes=len(classes.sizes),
        queries=classes.queries,
        unlabelled=len(encoded.rows) - len(classes.rows),
        instances=instances,
        copies=encoded.copies,
        failures=encoded.failures,
        notes=(*unreadable, *classes.notes()),
        methods=tuple(_scores(encoded, compared, classes, searched)),
        seconds=reporter.seconds,
    )


def _scores(
    encoded: Encoded,
    compared: Sequence[_Compared],
    classes: Classes,
    searched: Mapping[str, NDArray[np.float32]],
) -> Iterator[MethodScores]:
    own = np.searchsorted(encoded.rows, encoded.sample)
    for one, features, plain in zip(compared, encoded.vectors, encoded.views, strict=True):
        for row in one.rows:
            vectors = _projected(features[None], row.projection)[0]
            has_classes, has_instances = bool(classes.queries) and row.classes, len(own) > 1
            if has_instances:
                views = searched[row.name] if row.name in searched else _projected(plain, row.projection)
            if has_classes or has_instances:
                yield MethodScores(
                    name=row.name,
                    dimension=vectors.shape[1],
                    neighbours=class_figures(vectors[classes.rows], classes.numbers) if has_classes else {},
                    instances=instance_figures(vectors[own], views) if has_instances else {},
                    duplicates=duplicate_figures(vectors[own], views) if has_instances else None,
                )


def _projected(views: NDArray[np.float32], projection: Projection | None) -> NDArray[np.float32]:
    """(kinds, n, F) to (kinds, n, D)."""
    if projection is None:
        return views
    kinds, count, length = views.shape
    return projection(views.reshape(kinds * count, length)).reshape(kinds, count, projection.dimension)
