"""`evaluate`: how good the searches of an embedder are on a folder of photos, beside simple baselines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding import GuardedEmbedder, PluginHost, open_embedder
from vitmae_search.embedding.projection import Projection
from vitmae_search.errors import EvaluationError, PluginError, display_path
from vitmae_search.evaluation import (
    Classes,
    Evaluation,
    MethodScores,
    Subject,
    class_figures,
    colour_histogram,
    draw,
    duplicate_figures,
    find_subject,
    instance_figures,
    perceptual_hash,
    raw_pixels,
)
from vitmae_search.indexing.progress import ProgressReporter
from vitmae_search.library.encode_folder import Encoded, Method, encode
from vitmae_search.photos import decode_target
from vitmae_search.records import IndexProgress

_HASH = "perceptual hash, 64 bits"
_BASELINES = (
    Method("colour histogram, 8³ bins", colour_histogram),
    Method("raw pixels, 32 × 32", raw_pixels),
    Method("raw grey pixels, 32 × 32", partial(raw_pixels, grey=True)),
    Method(_HASH, perceptual_hash),
)
_BASELINE_PLUGIN = "color_layout"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be measured: an open embedder, and the projection that a search would put behind it."""

    name: str
    embedder: GuardedEmbedder
    projection: Projection | None = None

    @classmethod
    def of(cls, embedder: GuardedEmbedder, projection: Projection | None = None) -> Candidate:
        """Named after its model, and the options that are not the plugin's defaults.

        Raises `ModelError` for a projection that does not fit.
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
    seed: int = 0,
    host: PluginHost | None = None,
    on_progress: Callable[[IndexProgress], None] | None = None,
) -> Evaluation:
    """Measure candidates, the first one's network untrained, and baselines on the photos under `folder`.

    The first folder below it is a photo's class, or the CSV file `labels` says it (`labels_of_csv`; photos
    that it does not list take no part). At most `instances` of the photos, drawn by `seed`, are changed and
    looked for among each other; `limit` draws the photos themselves. Copies count once. What cannot be read
    is reported. The candidates, whose names differ, stay open. Raises `LabelsError`, `PluginError`, and
    `EvaluationError` where nothing can be measured.
    """
    reporter = ProgressReporter(on_progress)
    reporter.report("scanning", 0)
    subject = find_subject(folder, labels)
    subject = subject if limit is None else subject.drawn(limit, seed)
    total = len(subject.files)
    with ExitStack() as closing:
        compared = list(_compared(candidates, host or PluginHost(), closing))
        encoded = encode(
            subject.files,
            [one.method for one in compared],
            sample=draw(total, instances, seed) if instances > 1 else (),
            shrink_to=_shrink_to(decode, compared),
            batch_size=batch_size,
            seed=seed,
            on_done=lambda done, failed: reporter.report("evaluating", done, total, failed=failed),
        )
    reporter.report("finishing", total, total, failed=len(encoded.failures))
    where = {"folder": os.fspath(folder), "decode": decode, "seed": seed}
    found = _measured(subject, encoded, compared, reporter, **where)
    reporter.report("done", total, total, failed=len(encoded.failures))
    return found


@dataclass(frozen=True, slots=True)
class _Compared:
    """A method, and what is made of its vectors: other rows of the table, by name, or themselves."""

    method: Method
    rows: Mapping[str, Projection | None]
    input_size: int | None = 1
    classes: bool = True


def _compared(candidates: Sequence[Candidate], host: PluginHost, closing: ExitStack) -> Iterator[_Compared]:
    """The candidates, and what always stands beside them. What is opened here is closed with `closing`."""
    for candidate in candidates:
        yield _by_plugin(candidate.name, candidate.embedder, candidate.projection)
    untrained = candidates[0].embedder.random_init()
    if untrained is not None:
        yield _by_plugin(f"{candidates[0].name}, untrained", closing.enter_context(untrained))
    if all(candidate.embedder.info.name != _BASELINE_PLUGIN for candidate in candidates):
        with suppress(PluginError):  # it is a plugin like any other, and may be missing
            opened = open_embedder(host.get(_BASELINE_PLUGIN), device="cpu")
            yield _by_plugin(_BASELINE_PLUGIN, closing.enter_context(opened))
    for method in _BASELINES:
        yield _Compared(method, {method.name: None}, classes=method.name != _HASH)


def _by_plugin(name: str, embedder: GuardedEmbedder, projection: Projection | None = None) -> _Compared:
    method = Method.of_embedder(name, embedder)
    rows: dict[str, Projection | None] = {name: None}
    if projection is not None:
        rows = {f"{name} + {projection.kind}": projection, name: None}
    return _Compared(method, rows, embedder.input_size)


def _shrink_to(decode: str, compared: Sequence[_Compared]) -> int | None:
    """What the decoder may scale down to: as a library would for the one that needs the most."""
    sizes = [one.input_size for one in compared]
    return decode_target(decode, None if None in sizes else max(size for size in sizes if size))


def _measured(
    subject: Subject,
    encoded: Encoded,
    compared: Sequence[_Compared],
    reporter: ProgressReporter,
    **where: Any,
) -> Evaluation:
    """What was found; `where` says how. Raises `EvaluationError` where nothing can be measured."""
    classes = Classes.of([subject.labels[row] for row in encoded.rows])
    instances = len(encoded.sample) if len(encoded.sample) > 1 else 0
    if not (classes.asking or instances):
        first = [f"{display_path(one.path)}: {one.reason}" for one in encoded.failures[:1]]
        reason = "; ".join([*classes.notes(), *first])
        raise EvaluationError(f"nothing can be measured on {len(encoded.rows)} photos: {reason}")
    unseen = [f"{display_path(one.path)} could not be looked into: {one.reason}." for one in subject.problems]
    return Evaluation(
        **where,
        photos=len(encoded.rows),
        classes=len(classes.sizes),
        queries=classes.asking,
        unlabelled=len(encoded.rows) - len(classes.rows),
        instances=instances,
        copies=encoded.copies,
        failures=encoded.failures,
        notes=(*unseen, *classes.notes()),
        methods=tuple(_scores(encoded, compared, classes)),
        seconds=reporter.seconds,
    )


def _scores(encoded: Encoded, compared: Sequence[_Compared], classes: Classes) -> Iterator[MethodScores]:
    own = np.searchsorted(encoded.rows, encoded.sample)
    for one, features, views in zip(compared, encoded.vectors, encoded.views, strict=True):
        asked = classes.asking and one.classes
        for name, projection in one.rows.items():
            vectors = features if projection is None else projection(features)
            queries = views if projection is None else _projected(views, projection)
            if asked or len(own) > 1:
                yield MethodScores(
                    name=name,
                    dimension=vectors.shape[1],
                    neighbours=class_figures(vectors[classes.rows], classes.numbers) if asked else {},
                    instances=instance_figures(vectors[own], queries) if len(own) > 1 else {},
                    duplicates=duplicate_figures(vectors[own], queries) if len(own) > 1 else None,
                )


def _projected(views: NDArray[np.float32], projection: Projection) -> NDArray[np.float32]:
    """(kinds, n, F) to (kinds, n, D)."""
    kinds, count, length = views.shape
    return projection(views.reshape(kinds * count, length)).reshape(kinds, count, projection.dimension)
