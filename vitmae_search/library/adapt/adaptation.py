"""One adaptation: learn a projection from a person's own photos, and keep it only if it finds them better.

Photos of a folder are drawn. Views of most of them are encoded to learn from. The others are held out:
changed copies of them are searched for, with the projection in use and with the new one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import Projection
from vitmae_search.errors import TrainingError, display_path
from vitmae_search.evaluation import (
    ALL_KINDS,
    INSTANCE_VIEWS,
    SAME_UPRIGHT_PHOTO,
    Figure,
    duplicate_figures,
    figure,
    instance_recall,
    instance_views,
)
from vitmae_search.indexing import DEFAULT_BATCH_SIZE
from vitmae_search.indexing.job import Cancelled, ProgressReporter, raise_if_cancelled
from vitmae_search.library.adapt.fit import AdaptOptions, ProjectionFit, validation_size
from vitmae_search.library.adapt.view_features import USED, MakeViews, ViewFeatures, ViewStore, encode_views
from vitmae_search.library.spaces import ResolvedSelection
from vitmae_search.photos import decode_target
from vitmae_search.records import Failure, ScoreCalibration, Stamp
from vitmae_search.settings import settings
from vitmae_search.vectors import never_cancel

Figures = Mapping[str, Figure]
"""recall@1 by kind of change, and for `ALL_KINDS`: how often a changed photo finds itself first."""

StoredFeatures = Callable[[Iterable[str]], NDArray[np.float32] | None]
"""From digests to a library's features (M, F) without those of these photos, or None."""

SaveProjection = Callable[[Projection], Mapping[str, object]]
"""Saves a projection, and returns fields for the report."""

_REVISION = 1
"""Increased when the same photos would give other views than those stored."""
_MIN_HELD_OUT = 8
"""Fewest photos held out. A folder needs five times as many, and twice as many must be usable to learn."""
_MIN_ENCODED = 8 * _MIN_HELD_OUT
"""Photos that are encoded however little time there is."""
_MAX_ENCODING_SHARE = 0.7
"""Largest share of the person's time for encoding; the rest is for learning and comparing."""
_TURNED_PER_DIMENSION = 3
"""Fewest photos held out for each of the vector's numbers for turns to be fitted. With half of them one in a
hundred turned photos would not be found any more."""
_NO_TIME = 1e-6  # seconds


@dataclass(frozen=True, slots=True)
class AdaptReport:
    """What an adaptation came to.

    Attributes:
        folder: The photos' folder.
        model: The model whose features were adapted.
        photos: Photos that were learned from.
        views: Views of each of them.
        held_out: Photos that the projections were compared on.
        copies: Photos that were left out because an earlier one has the same content.
        failed: Photos that could not be used.
        failures: Their paths and reasons.
        seconds: How long it took.
        kind: The new projection's kind, such as "whitening".
        dimension: The length of its vectors.
        digest: Its digest.
        before_kind: The kind of the projection in use, None without one.
        before: Figures with the projection in use, or without one.
        after: Figures with the new projection.
        difference: Difference in recall@1 over all kinds of change, paired by photo.
        calibration: What scores mean with the new projection; None with too few photos held out.
        kept: Whether the interval of `difference` lies above zero; only then is the projection saved.
        space: The library's new space.
        output: The file that was written instead.
        interrupted: Whether the run was cancelled.
    """

    folder: str
    model: str
    photos: int
    views: int
    held_out: int
    copies: int
    failed: int
    failures: tuple[Failure, ...]
    seconds: float
    kind: str | None = None
    dimension: int | None = None
    digest: str | None = None
    before_kind: str | None = None
    before: Figures | None = None
    after: Figures | None = None
    difference: Figure | None = None
    calibration: ScoreCalibration | None = None
    kept: bool = False
    space: int | None = None
    output: str | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Adaptation:
    """One run.

    Attributes:
        folder: The photos' folder.
        resolved: The embedder that encodes, and the projection in use.
        options: How to learn.
        reporter: Receives the progress.
        stored_features: Returns a library's features (M, F) without those of the digests given, if any.
        device: Where a head is trained.
        batch_size: Views in a batch.
        cancelled: Asked often; true stops the run.
    """

    folder: str
    resolved: ResolvedSelection
    options: AdaptOptions
    reporter: ProgressReporter
    stored_features: StoredFeatures = lambda digests: None
    device: str = "auto"
    batch_size: int = DEFAULT_BATCH_SIZE
    cancelled: Callable[[], bool] = never_cancel

    def run(self, save: SaveProjection) -> AdaptReport:
        """Learn a projection, compare it with the one in use, and save it if it is better.

        After a cancellation the report says `interrupted`. What was encoded stays in the cache folder, and
        the same run resumes with it.

        Args:
            save: Called with a better projection.

        Raises:
            TrainingError: There are too few photos.
            PluginError: The embedder fails for every image.
        """
        empty = AdaptReport(
            self.folder, self.resolved.embedder.model, 0, self.options.views, 0, 0, 0, (), 0.0
        )
        try:
            report, projection = self._learn_and_compare(empty)
            if report.kept:
                report = replace(report, **save(projection))  # type: ignore[arg-type]
        except Cancelled:
            report = replace(empty, interrupted=True)
        self.reporter.report("done", report.photos, report.photos, failed=report.failed)
        return replace(report, seconds=self.reporter.seconds)

    def _learn_and_compare(self, empty: AdaptReport) -> tuple[AdaptReport, Projection]:
        self.reporter.report("scanning", 0)
        held_out, photos = draw_photos(self.folder, self.options)
        with _cache_folder(self._cache_key(held_out, photos)) as folder:
            held, sample = self._encode(folder, held_out, photos)
            projection = self._fit(sample, held.digests)
            self.reporter.report("finishing", len(held.views))
            before, after = _measure(held, self.resolved.projection), _measure(held, projection)
            turns = _fit_turns(held, projection)
            projection = replace(projection, calibration=after.calibration, turns=turns)
            raise_if_cancelled(self.cancelled)
        difference = figure(after.hits - before.hits)
        failures = (*held.failures, *sample.failures)
        return (
            replace(
                empty,
                photos=len(sample.views),
                held_out=len(held.views),
                copies=held.copies + sample.copies,
                failed=len(failures),
                failures=failures,
                kind=projection.kind,
                dimension=projection.dimension,
                digest=projection.digest,
                before_kind=None if self.resolved.projection is None else self.resolved.projection.kind,
                before=before.figures,
                after=after.figures,
                difference=difference,
                calibration=projection.calibration,
                kept=difference.low > 0,
            ),
            projection,
        )

    def _encode(
        self, folder: Path, held_out: Sequence[Stamp], photos: Sequence[Stamp]
    ) -> tuple[ViewFeatures, ViewFeatures]:
        """Encode the photos held out in the evaluation's views, and those to learn from in random ones."""
        from vitmae_search.training.adaptation import training_view

        seed, dimension = self.options.seed, self.resolved.embedder.dimension

        def evaluation_views(image: Image.Image, digest: str) -> Iterator[Image.Image]:
            yield image
            yield from (view for _, view in instance_views(image, [seed, int(digest[:16], 16)]))

        def random_views(image: Image.Image, digest: str) -> Iterator[Image.Image]:
            number = int(digest[:16], 16)
            return (training_view(image, seed=seed, photo=number, view=i) for i in range(self.options.views))

        total = len(held_out) + len(photos)
        work = (1 + len(INSTANCE_VIEWS)) * len(held_out), self.options.views * len(photos)
        store = ViewStore(folder / "photos", self.options.views, dimension)
        # Photos that a stopped run learned from are not held out in this one.
        learned = [digest for digest, outcome in store.outcomes if outcome == USED]
        held_store = ViewStore(folder / "held-out", 1 + len(INSTANCE_VIEWS), dimension)
        share = work[0] / sum(work)
        held = self._encode_views(
            held_out, evaluation_views, held_store, 0, total, known=learned, time_share=share
        )
        sample = self._encode_views(photos, random_views, store, len(held_out), total, known=held.digests)
        for found, least in ((held, _MIN_HELD_OUT), (sample, 2 * _MIN_HELD_OUT)):
            if len(found.views) < least:
                first = f": {found.failures[0].path}: {found.failures[0].reason}" if found.failures else ""
                raise TrainingError(
                    f"only {len(found.views)} different photos of {display_path(self.folder)} could be used, "
                    f"and it takes {least}{first}"
                )
        return held, sample

    def _encode_views(
        self,
        files: Sequence[Stamp],
        make_views: MakeViews,
        store: ViewStore,
        done_before: int,
        total: int,
        *,
        known: Sequence[str] = (),
        time_share: float = 1.0,
    ) -> ViewFeatures:
        def on_done(count: int, failed: int) -> None:
            raise_if_cancelled(self.cancelled)
            self.reporter.report("encoding", done_before + count, total, failed=failed)

        return encode_views(
            files,
            self.resolved.embedder,
            make_views,
            store,
            shrink_to=decode_target(self.resolved.decode, self.resolved.embedder.input_size),
            batch_size=self.batch_size,
            known=known,
            on_done=on_done,
            stop_early=lambda used: (
                used >= _MIN_ENCODED and self._seconds_left(time_share * _MAX_ENCODING_SHARE) == _NO_TIME
            ),
        )

    def _fit(self, sample: ViewFeatures, held_out: Sequence[str]) -> Projection:
        # Photos that projections are compared on must not be known to them.
        unseen = (*held_out, *sample.digests[: validation_size(len(sample.views))])

        def on_epoch(done: int, total: int) -> None:
            raise_if_cancelled(self.cancelled)
            self.reporter.report("training", done, total)

        projection = ProjectionFit(
            sample.views,
            self.options,
            self.stored_features(unseen),
            self.device,
            self._seconds_left(0.95),
            on_epoch,
        ).fit()
        embedder = self.resolved.embedder
        defaults = embedder.info.options
        chosen = {name: str(v) for name, v in embedder.options.items() if v != defaults.get(name)}
        source = {
            **chosen,  # such as layers and pooling: a plugin sees by them whether the projection fits
            "plugin": embedder.info.name,
            "model": embedder.model,
            "features": self.resolved.fingerprint,
        }
        return replace(projection, provenance={**source, **projection.provenance})

    def _seconds_left(self, share: float) -> float | None:
        """Seconds left of this share of the person's minutes, `_NO_TIME` if none; None without a limit."""
        if self.options.minutes is None:
            return None
        return max(_NO_TIME, 60 * self.options.minutes * share - self.reporter.seconds)

    def _cache_key(self, *groups: Sequence[Stamp]) -> str:
        """A name for the features of these files: another one if a file or an option changes."""
        header = f"{_REVISION} {self.resolved.fingerprint} {self.options.views} {self.options.seed}\n"
        key = hashlib.sha256(header.encode())
        for stamp in (stamp for files in groups for stamp in files):
            key.update(f"{display_path(stamp.path)}\0{stamp.size}\0{stamp.mtime_ns}\n".encode())
        return key.hexdigest()[:32]


def draw_photos(folder: str, options: AdaptOptions) -> tuple[list[Stamp], list[Stamp]]:
    """Draw photos of a folder.

    Args:
        folder: The photos' folder.
        options: Its `held_out`, `photos` and `seed` are used.

    Returns:
        The photos held out, at most a fifth of the folder's, and those to learn from.

    Raises:
        TrainingError: The folder has too few photos.
    """
    from vitmae_search.training.data.packed_photos import list_photos

    found = list_photos(folder)
    order = np.random.default_rng(options.seed).permutation(len(found))
    held = min(options.held_out, len(found) // 5)
    if held < _MIN_HELD_OUT:
        there = f"there are {len(found)} photos under {display_path(folder)}"
        raise TrainingError(f"{there}, and it takes {5 * _MIN_HELD_OUT} to learn from")
    drawn = [found[row] for row in order[: held + options.photos]]
    return drawn[:held], drawn[held:]


@contextmanager
def _cache_folder(key: str) -> Iterator[Path]:
    """A folder of the cache, which is deleted at the end, and kept for the next run after an error.

    Raises `TrainingError` where another process uses it.
    """
    from vitmae_search.training.run_folder import locked_folder

    folder = settings().cache / "adapting" / key
    with locked_folder(folder, remember=False):
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Accuracy:
    """Recall of changed photos. `hits` (N,) float64: share of a photo's changed copies that find it first.

    `calibration` is what the scores mean, by the changes that a search does not undo before it compares.
    """

    figures: Figures
    hits: NDArray[np.float64]
    calibration: ScoreCalibration | None


def _measure(held: ViewFeatures, projection: Projection | None) -> _Accuracy:
    """Search for each changed photo among the originals."""
    count, views, _ = held.views.shape
    vectors = held.views.reshape(count * views, -1).astype(np.float32)
    if projection is not None:
        vectors = projection(vectors)
    originals, changed = np.split(vectors.reshape(count, views, -1).transpose(1, 0, 2), [1])
    originals = originals[0]
    hits = [instance_recall(originals, view).hits(1) for view in changed]
    names = [name for name, _ in INSTANCE_VIEWS]
    figures = {name: figure(own) for name, own in zip(names, hits, strict=True)}
    mean = np.mean(hits, axis=0)
    calibration = duplicate_figures(originals, changed, SAME_UPRIGHT_PHOTO).calibration
    return _Accuracy({**figures, ALL_KINDS: figure(mean)}, mean, calibration)


def _fit_turns(held: ViewFeatures, projection: Projection) -> NDArray[np.float16] | None:
    """The maps that guess turned pictures' vectors, by the quarter turns of the photos held out.

    None where these are too few. The vectors, and so what was compared, do not depend on the maps.
    """
    from vitmae_search.training.adaptation import fit_turns

    if len(held.views) < _TURNED_PER_DIMENSION * projection.dimension:
        return None
    names = [name for name, _ in INSTANCE_VIEWS]
    rows = {0: 0, 90: 1 + names.index("rotated+90"), 270: 1 + names.index("rotated-90")}
    return fit_turns(
        {angle: projection(held.views[:, row].astype(np.float32)) for angle, row in rows.items()}
    )
