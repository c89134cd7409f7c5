"""`adapt`: a projection learned from a person's own photos, kept only if it finds them better.

Photos of a folder are drawn. Views of some are encoded to learn from, and others, held out, are changed and
looked for with the projection that is in use and with the new one.
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
    Figure,
    figure,
    instance_recall,
    instance_views,
)
from vitmae_search.indexing.progress import Cancelled, ProgressReporter, raise_if_cancelled
from vitmae_search.library.adapt.fit import AdaptOptions, Fitting, set_aside
from vitmae_search.library.adapt.view_features import USED, MakeViews, ViewFeatures, ViewStore, encode_views
from vitmae_search.library.spaces import ResolvedSelection
from vitmae_search.photos import decode_target
from vitmae_search.records import Failure, Stamp
from vitmae_search.settings import settings

Figures = Mapping[str, Figure]
"""recall@1 by kind of change, and `ALL_KINDS`: how often a changed photo finds itself first."""

_REVISION = 1  # of what is stored: goes up when the same photos would give other views
_LEAST = 8  # photos held out; four times as many to learn from
_NO_TIME = 1e-6  # seconds
_ENOUGH = 8 * _LEAST  # photos, however little time there is
_ENCODING = 0.7  # of the time that a person gives, at most: the rest is for learning and comparing


@dataclass(frozen=True, slots=True)
class AdaptReport:
    """What came of it. `photos` were learned from, `held_out` compared with; copies count once.

    `before` is with the projection in use, a `before_kind`, or none, and `after` with the new one, a `kind`
    with `dimension`. `difference` is that of recall@1 over all kinds of change, photo by photo; `kept` says
    that its interval lies above zero, and only then is there a `space`, or the file `output`.
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
    kept: bool = False
    space: int | None = None
    output: str | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Adaptation:
    """One run: `features` say what encodes, and what is in use.

    `stored` gives a library's features (M, F), if any, without the photos of these digests.
    """

    folder: str
    features: ResolvedSelection
    options: AdaptOptions
    reporter: ProgressReporter
    stored: Callable[[Iterable[str]], NDArray[np.float32] | None] = lambda digests: None
    device: str = "auto"
    batch_size: int = 32
    cancelled: Callable[[], bool] = lambda: False

    def run(self, keep: Callable[[Projection], Mapping[str, object]]) -> AdaptReport:
        """Learn, compare, and `keep` what is better, which gives the report's further fields.

        After a cancellation the report says `interrupted`, and what was encoded waits in the cache folder for
        another run. Raises `TrainingError` where there are too few photos, and what the plugin raises for
        every picture.
        """
        empty = AdaptReport(
            self.folder, self.features.embedder.model, 0, self.options.views, 0, 0, 0, (), 0.0
        )
        try:
            report, projection = self._learned(empty)
            if report.kept:
                report = replace(report, **keep(projection))  # type: ignore[arg-type]
        except Cancelled:
            report = replace(empty, interrupted=True)
        self.reporter.report("done", report.photos, report.photos, failed=report.failed)
        return replace(report, seconds=self.reporter.seconds)

    def _learned(self, empty: AdaptReport) -> tuple[AdaptReport, Projection]:
        self.reporter.report("scanning", 0)
        chosen = draw_photos(self.folder, self.options)
        with _workplace(self._key(chosen)) as place:
            held, sample = self._encode(place, *chosen)
            projection = self._fit(sample, held.digests)
            self.reporter.report("finishing", len(held.views))
            before, after = _measured(held, self.features.projection), _measured(held, projection)
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
                before_kind=None if self.features.projection is None else self.features.projection.kind,
                before=before.figures,
                after=after.figures,
                difference=difference,
                kept=difference.low > 0,
            ),
            projection,
        )

    def _encode(
        self, place: Path, held_out: Sequence[Stamp], photos: Sequence[Stamp]
    ) -> tuple[ViewFeatures, ViewFeatures]:
        """The photos held out in the views that are looked for, then those to learn from in random ones."""
        from vitmae_search.training.adaptation import training_view

        seed, width = self.options.seed, self.features.embedder.dimension

        def fixed(image: Image.Image, digest: str) -> Iterator[Image.Image]:
            yield image
            yield from (view for _, view in instance_views(image, [seed, int(digest[:16], 16)]))

        def drawn(image: Image.Image, digest: str) -> Iterator[Image.Image]:
            number = int(digest[:16], 16)
            return (training_view(image, seed=seed, photo=number, view=i) for i in range(self.options.views))

        total = len(held_out) + len(photos)
        work = (1 + len(INSTANCE_VIEWS)) * len(held_out), self.options.views * len(photos)
        store = ViewStore(place / "photos", self.options.views, width)
        known = [name for name, outcome in store.outcomes if outcome == USED]  # by a run that was stopped
        fixed_store = ViewStore(place / "held-out", 1 + len(INSTANCE_VIEWS), width)
        share = work[0] / sum(work)
        held = self._views(held_out, fixed, fixed_store, 0, total, known=known, share=share)
        sample = self._views(photos, drawn, store, len(held_out), total, known=held.digests)
        for found, least in ((held, _LEAST), (sample, 2 * _LEAST)):
            if len(found.views) < least:
                first = f": {found.failures[0].path}: {found.failures[0].reason}" if found.failures else ""
                raise TrainingError(
                    f"only {len(found.views)} different photos of {display_path(self.folder)} could be used, "
                    f"and it takes {least}{first}"
                )
        return held, sample

    def _views(
        self,
        files: Sequence[Stamp],
        make_views: MakeViews,
        store: ViewStore,
        before: int,
        total: int,
        *,
        known: Sequence[str] = (),
        share: float = 1.0,
    ) -> ViewFeatures:
        def done(count: int, failed: int) -> None:
            raise_if_cancelled(self.cancelled)
            self.reporter.report("encoding", before + count, total, failed=failed)

        return encode_views(
            files,
            self.features.embedder,
            make_views,
            store,
            shrink_to=decode_target(self.features.decode, self.features.embedder.input_size),
            batch_size=self.batch_size,
            known=known,
            on_done=done,
            enough=lambda: len(store.outcomes) >= _ENOUGH and self._left(share * _ENCODING) == _NO_TIME,
        )

    def _fit(self, sample: ViewFeatures, held_out: Sequence[str]) -> Projection:
        judges = (*held_out, *sample.digests[: set_aside(len(sample.views))])

        def on_pass(done: int, total: int) -> None:
            raise_if_cancelled(self.cancelled)
            self.reporter.report("training", done, total)

        made = Fitting(
            sample.views, self.options, self.stored(judges), self.device, self._left(0.95), on_pass
        ).projection()
        embedder = self.features.embedder
        defaults = embedder.info.options
        chosen = {name: str(v) for name, v in embedder.options.items() if v != defaults.get(name)}
        source = {
            **chosen,  # such as layers and pooling, by which a plugin knows what the projection fits
            "plugin": embedder.info.name,
            "model": embedder.model,
            "features": self.features.fingerprint,
        }
        return replace(made, provenance={**source, **made.provenance})

    def _left(self, share: float) -> float | None:
        """Seconds of this share of the person's minutes that are left; hardly any when they are over."""
        if self.options.minutes is None:
            return None
        return max(_NO_TIME, 60 * self.options.minutes * share - self.reporter.seconds)

    def _key(self, chosen: Sequence[Sequence[Stamp]]) -> str:
        told = f"{_REVISION} {self.features.fingerprint} {self.options.views} {self.options.seed}\n"
        key = hashlib.sha256(told.encode())
        for files in chosen:
            for stamp in files:
                key.update(f"{display_path(stamp.path)}\0{stamp.size}\0{stamp.mtime_ns}\n".encode())
        return key.hexdigest()[:32]


def draw_photos(folder: str, options: AdaptOptions) -> tuple[list[Stamp], list[Stamp]]:
    """The photos held out, at most a fifth of the folder's, and those to learn from: drawn by the seed.

    Raises `TrainingError` for a folder with too few.
    """
    from vitmae_search.training.data.packed_photos import list_photos

    found = list_photos(folder)
    order = np.random.default_rng(options.seed).permutation(len(found))
    held = min(options.held_out, len(found) // 5)
    if held < _LEAST:
        there = f"there are {len(found)} photos under {display_path(folder)}"
        raise TrainingError(f"{there}, and it takes {5 * _LEAST} to learn from")
    drawn = [found[row] for row in order[: held + options.photos]]
    return drawn[:held], drawn[held:]


@contextmanager
def _workplace(key: str) -> Iterator[Path]:
    """A folder of the cache: deleted when the block ends well, kept for the next run after an error.

    Raises `TrainingError` where another process is at the same.
    """
    from vitmae_search.training.run_folder import locked_folder

    place = settings().cache / "adapting" / key
    with locked_folder(place, remember=False):
        yield place
    shutil.rmtree(place, ignore_errors=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """`hits` (N,) float64: for each photo the share of its changed copies that find it first."""

    figures: Figures
    hits: NDArray[np.float64]


def _measured(held: ViewFeatures, projection: Projection | None) -> _Measured:
    """Look for each changed photo among the originals."""
    count, views, _ = held.views.shape
    vectors = held.views.reshape(count * views, -1).astype(np.float32)
    if projection is not None:
        vectors = projection(vectors)
    originals, *changed = vectors.reshape(count, views, -1).transpose(1, 0, 2)
    hits = [instance_recall(originals, view).hits(1) for view in changed]
    names = [name for name, _ in INSTANCE_VIEWS]
    figures = {name: figure(own) for name, own in zip(names, hits, strict=True)}
    mean = np.mean(hits, axis=0)
    return _Measured({**figures, ALL_KINDS: figure(mean)}, mean)
