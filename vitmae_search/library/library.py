"""`Library`, the front door: it puts the rooms together and owns what is open.

One `Library` serves many threads. The catalogue is read by anyone at any time; it is written only inside
`index`, `classify`, `adapt`, `derive_space`, `use_space`, `drop_space` and a repairing `check`, each of which
holds the writer's lock. A model is loaded when something first needs it.

What the catalogue of a library tells by itself: photos, tags, failures, spaces, runs.

Everything that a library answers without writing to its catalogue. Any thread may ask at any time.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.embedding import Projection
from vitmae_search.errors import (
    LibraryEmpty,
    LibraryError,
    PhotoError,
    SpaceError,
    StorageError,
    display_path,
)
from vitmae_search.indexing import LEAST_BATCH, TagOptions, classify_photos, index_folders
from vitmae_search.library import jobs
from vitmae_search.library.embedders import (
    DEFAULT_DECODE,
    DEFAULT_PLUGIN,
    EmbedderChoice,
    Embedders,
    absolute_model,
    chosen_projection,
)
from vitmae_search.library.model_speeds import measure_models, with_speeds
from vitmae_search.library.spaces import Projections, Spaces
from vitmae_search.photos import THUMBNAIL_SIDE, ThumbnailStore, decode, digest, encode_thumbnail, read_photo
from vitmae_search.records import (
    CheckReport,
    ClassifyReport,
    Failure,
    IndexListing,
    IndexProgress,
    IndexReport,
    LibraryStatus,
    ModelListing,
    Photo,
    PluginListing,
    Reconstruction,
    Run,
    SearchFilter,
    SearchResult,
    Space,
    Tag,
)
from vitmae_search.search import (
    Embedded,
    Query,
    embed_image,
    query_image,
    query_vector,
    require_file,
    retrieve,
)
from vitmae_search.vectors import VectorCache, VectorIndex

if TYPE_CHECKING:
    from vitmae_search.evaluation import Evaluation
    from vitmae_search.library.adapt.adaptation import AdaptReport
    from vitmae_search.library.adapt.fit import AdaptOptions


EVERYTHING = SearchFilter()


class LibraryListing:
    """Lists and counts, and the handles that they are read by. An absent library answers as an empty one."""

    def __init__(
        self, folder: Path, choice: EmbedderChoice, embedders: Embedders, *, background: bool = False
    ) -> None:
        self.folder = folder
        self.thumbnails = ThumbnailStore(folder / "thumbnails")
        self._choice = choice
        self._embedders = embedders
        self._projections = Projections(folder / "projections")
        self._spaces = Spaces(embedders, self._projections)
        self._vectors = VectorCache(folder / "vectors", background=background)
        self._embedded = Embedded()
        self._lock = threading.Lock()
        self._reader: Catalog | None = None

    def status(self) -> LibraryStatus:
        """Counts, folders and spaces; all zero for a library that is not there yet."""
        catalog = self._catalog_or_none()
        if catalog is None:
            return LibraryStatus(os.fspath(self.folder), 0, 0, 0, 0, (), ())
        return catalog.status()

    def photo(self, photo_id: int) -> Photo | None:
        """The photo with this id."""
        catalog = self._catalog_or_none()
        return catalog.photo(photo_id) if catalog else None

    def photos(
        self, where: SearchFilter = EVERYTHING, *, offset: int = 0, limit: int | None = None
    ) -> list[Photo]:
        """Photos on disk, newest first."""
        catalog = self._catalog_or_none()
        return catalog.photos(where, offset=offset, limit=limit) if catalog else []

    def count_photos(self, where: SearchFilter = EVERYTHING) -> int:
        """How many photos on disk pass the filter."""
        catalog = self._catalog_or_none()
        return catalog.count_photos(where) if catalog else 0

    def tags(self, photo_id: int) -> list[Tag]:
        """What classifiers say of the photo: one classifier after the other, each with its surest first."""
        return self._catalog().tags(self._photo(photo_id).content_id)

    def tag_counts(self) -> dict[str, int]:
        """Every tag of a photo on disk, and how many photos have it, the most frequent first."""
        catalog = self._catalog_or_none()
        return catalog.tag_counts() if catalog else {}

    def failures(self, space: int | None = None) -> list[Failure]:
        """Files without a vector in this space (default: the current one), with reasons."""
        catalog = self._catalog_or_none()
        if catalog is None or not catalog.spaces():
            return []
        return catalog.failures(self._space(space).space_id)

    def thumbnail(self, photo_id: int) -> bytes | None:
        """JPEG bytes: from the cache, else made from the file. None where neither can be had."""
        photo = self._photo(photo_id)
        stored = self.thumbnails.get(photo.digest)
        if stored is not None:
            return stored
        try:
            data = read_photo(photo.path)
            image = decode(data, path=photo.path, shrink_to=THUMBNAIL_SIDE).image
        except PhotoError:
            return None
        name = digest(data)  # of what was read: the file may have changed since it was indexed
        with suppress(StorageError):
            self.thumbnails.put(name, image)
        return self.thumbnails.get(name) or encode_thumbnail(image)

    def index_of(self, space: int | None = None) -> IndexListing:
        """Which index a space (default: the current one) is searched with, and why."""
        return self._vectors.describe(self._catalog().vector_source(self._space(space).space_id))

    def spaces(self) -> list[Space]:
        """The embedding spaces, oldest first."""
        catalog = self._catalog_or_none()
        return catalog.spaces() if catalog else []

    def runs(self, limit: int = 20) -> list[Run]:
        """The newest long jobs, from any process."""
        catalog = self._catalog_or_none()
        return catalog.runs(limit) if catalog else []

    def run(self, key: str) -> Run | None:
        """The job with this key, once it has begun."""
        catalog = self._catalog_or_none()
        return catalog.run(key) if catalog else None

    def close(self) -> None:
        """Give the models' memory and the catalogue back."""
        try:
            self._vectors.close()
            self._embedders.close()
        finally:
            with self._lock:
                reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _catalog(self) -> Catalog:
        with self._lock:
            if self._reader is not None and self._reader.replaced:
                replaced, self._reader = self._reader, None
                replaced.close()
                self._vectors = self._vectors.renewed()
            if self._reader is None:
                self._reader = Catalog.open(self.folder)
            return self._reader

    def _catalog_or_none(self) -> Catalog | None:
        try:
            return self._catalog()
        except LibraryEmpty:
            return None

    def _current_space_or_none(self) -> Space | None:
        catalog = self._catalog_or_none()
        return catalog.current_space() if catalog else None

    def _space(self, space_id: int | None) -> Space:
        catalog = self._catalog()
        if space_id is not None:
            return catalog.space(space_id)
        chosen = self._spaces.chosen(self._choice, catalog) or catalog.current_space()
        if chosen is None:
            raise LibraryEmpty("nothing is indexed yet; begin with `vitmae-search index FOLDER`")
        return chosen

    def _photo(self, photo_id: int) -> Photo:
        photo = self._catalog().photo(photo_id)
        if photo is None:
            raise LibraryError(f"the library has no photo with id {photo_id}")
        return photo


class LibraryReader(LibraryListing):
    """The reading half of `Library`. A library that is not there yet answers as an empty one."""

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        offset: int = 0,
    ) -> SearchResult:
        """The `k` photos most like `query` (a path, a file's bytes, or a PIL image), best first.

        A file whose digest the catalogue knows is found by its stored vector, without a model. Raises
        `LibraryEmpty`, `SpaceError`, `PhotoError`, `PluginError`, `ModelError`.
        """
        started = time.perf_counter()
        catalog = self._catalog()
        chosen = self._space(space)
        asked = query_vector(
            query, catalog, chosen, lambda: self._spaces.embedder(catalog, chosen), self._embedded
        )
        hits = retrieve(
            catalog,
            self._index(chosen),
            chosen,
            asked.vector,
            k=k,
            where=where,
            offset=offset,
            own=asked.content_id,
        )
        return SearchResult(hits, chosen, asked.known, time.perf_counter() - started)

    def similar(
        self,
        photo_id: int,
        *,
        k: int = 10,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        offset: int = 0,
    ) -> SearchResult:
        """The `k` photos most like one of the library's, which is itself left out. No model runs."""
        started = time.perf_counter()
        catalog = self._catalog()
        chosen = self._space(space)
        photo = self._photo(photo_id)
        vector = catalog.vector(chosen.space_id, photo.content_id)
        if vector is None:
            raise SpaceError(
                f"{display_path(photo.path)} has no vector in space {chosen.space_id} yet; "
                "index its folder again"
            )
        hits = retrieve(
            catalog,
            self._index(chosen),
            chosen,
            vector,
            k=k,
            where=where,
            offset=offset,
            without=photo.content_id,
        )
        return SearchResult(hits, chosen, True, time.perf_counter() - started)

    def warm(self, *, model: bool = False) -> None:
        """Open what the first search would: the vector index, and with `model` the model, which runs once.

        Does nothing in an empty library. Raises what `search` raises.
        """
        if self._current_space_or_none() is None:
            return
        space = self._space(None)
        self._index(space)
        if model:
            embed_image(Image.new("RGB", (64, 64)), self._spaces.embedder(self._catalog(), space))

    def offload(self, *, idle_seconds: float = 0.0) -> int:
        """Let open models that were idle for `idle_seconds` give their device's memory back.

        The next call of a model takes it again. Only models whose plugins can do it, and that are not
        running. Returns how many did.
        """
        return self._embedders.offload(idle_seconds=idle_seconds)

    def reconstruct(
        self,
        query: Query | int,
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        mask: NDArray[np.bool_] | None = None,
    ) -> Reconstruction:
        """Hide patches of a picture, or of the photo with this id, and let the model fill them in.

        `mask_ratio` 0 ≤ r < 1 and `seed` choose the patches, or `mask` (gh, gw) bool, True = hidden.
        The model is the chosen one, else the current space's if it can, else the bundled one.
        """
        picture = require_file(self._photo(query).path) if isinstance(query, int) else query
        reconstructor = self._embedders.reconstructor(self._choice, self._current_space_or_none())
        return reconstructor.reconstruct(query_image(picture), mask_ratio=mask_ratio, seed=seed, mask=mask)

    def evaluate(
        self,
        folder: str | os.PathLike[str],
        *,
        labels: str | os.PathLike[str] | None = None,
        instances: int = 1000,
        limit: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        on_progress: Callable[[IndexProgress], None] | None = None,
    ) -> Evaluation:
        """How good searches are on the photos of `folder`, with what `index` would embed with now.

        The photos need not be in the library, which is not written to. See `evaluating.evaluate_folder`.
        """
        from vitmae_search.library.evaluation import Candidate, evaluate_folder

        chosen = self._spaces.features(self._choice, self._catalog_or_none())
        return evaluate_folder(
            folder,
            [Candidate.of(chosen.embedder, chosen.projection)],
            labels=labels,
            instances=instances,
            limit=limit,
            decode=chosen.decode,
            batch_size=batch_size,
            seed=seed,
            host=self._embedders.host,
            on_progress=on_progress,
        )

    def plugins(self) -> list[PluginListing]:
        """Every plugin found, broken ones with their error."""
        return self._embedders.host.listings()

    def models(self) -> list[ModelListing]:
        """Every model that a plugin can name, with the speed that this machine remembers of it."""
        return with_speeds(self._embedders.models())

    def measure_models(self, on_model: Callable[[str], None] | None = None) -> list[ModelListing]:
        """As `models`, but measure first how fast each one on this machine embeds, and remember it.

        On the library's device and in its precision. `on_model` is told each one's name before its turn of
        a few seconds. One that does not open says why in its note. Raises `DeviceError` where that is why
        none was measured.
        """
        return measure_models(self._embedders, on_model)

    def _index(self, space: Space) -> VectorIndex:
        return self._vectors.open(self._catalog().vector_source(space.space_id))


class Library(LibraryReader):
    """A folder with a catalogue (SQLite), vector indexes (FAISS) and thumbnails.

    Open it with `Library.open`; it is a context manager. Opening creates nothing on disk.
    """

    def __init__(
        self,
        folder: Path,
        choice: EmbedderChoice,
        embedders: Embedders,
        batch_size: int | None,
        *,
        background: bool = False,
    ) -> None:
        super().__init__(folder, choice, embedders, background=background)
        self._batch_size = batch_size

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        embedder: str | None = None,
        model: str | None = None,
        options: Mapping[str, str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        decode: str | None = None,
        projection: str | os.PathLike[str] | Projection | None = None,
        batch_size: int | None = None,
        plugin_folders: Sequence[str | os.PathLike[str]] = (),
        background: bool = False,
    ) -> Self:
        """Open the library in folder `path` (default: the environment's, see `settings`).

        `embedder`, `model`, `options` and `decode` choose what `index` embeds with and `search` searches
        in; without any of them that is the library's current space, or the bundled model in a new library.
        `projection` is a file (or what was read from it), "none" to search in the features themselves, or
        None: the current space's where nothing else is chosen, and otherwise the model's own if it has one.
        A batch has `batch_size` photos; None is what suits the model and its device, 32 or more.
        With `background`, as in the app, a thread checks the indexes that are searched and makes faster
        ones, until `close`; without it `index` does.
        Raises `ModelError` for a file that is no projection.
        """
        if path is None:
            from vitmae_search.settings import settings

            path = settings().library
        folder = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
        choice = EmbedderChoice(embedder, model, dict(options or {}), decode, chosen_projection(projection))
        embedders = Embedders([Path(folder) for folder in plugin_folders], device, precision)
        return cls(folder, choice, embedders, batch_size, background=background)

    def index(
        self,
        folders: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
        *,
        exclude: Sequence[str] = (),
        retry_failed: bool = False,
        workers: int | None = None,
        on_progress: Callable[[IndexProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        run_key: str | None = None,
    ) -> IndexReport:
        """Bring the catalogue up to date with what is in `folders` (one, or several).

        `workers` photos are read at a time (default: one for each core). To run again is to resume. Raises
        `LibraryBusy` while another process writes, and `LibraryError` for a folder that is not there and
        never was.
        """
        if isinstance(folders, str | os.PathLike):
            folders = [folders]
        paths = [os.path.abspath(os.path.expanduser(os.fspath(folder))) for folder in folders]
        if run_key is None and self._catalog_or_none() is None and any(map(os.path.isdir, paths)):
            self._spaces.features(self._choice, None).known.open()  # what fails leaves no empty library
        with CatalogWriter.open_writer(self.folder) as catalog:
            return index_folders(
                catalog,
                paths,
                open_target=lambda: self._spaces.target(self._choice, catalog),
                vectors=self._vectors,
                thumbnails=self.thumbnails,
                batch_size=self._batch_size,
                workers=workers,
                exclude=exclude,
                retry_failed=retry_failed,
                on_progress=on_progress,
                cancelled=cancelled,
                run_key=run_key or uuid.uuid4().hex,
            )

    def classify(
        self,
        model: str | os.PathLike[str],
        *,
        plugin: str = DEFAULT_PLUGIN,
        k: int = 3,
        min_confidence: float = 0.2,
        under: str | os.PathLike[str] | None = None,
        again: bool = False,
        on_progress: Callable[[IndexProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        run_key: str | None = None,
    ) -> ClassifyReport:
        """Give the photos on disk (in the folder `under`) tags, with the classifier that `model` names.

        At most `k` tags a photo, none below `min_confidence`. Photos that this classifier has seen, asked
        for the same, are passed over; `again` classifies them anew. To run again is to resume. Raises
        `LibraryEmpty`, `LibraryBusy`, `PluginError`, `ModelError`, `DeviceError`.
        """
        self._catalog()
        source = absolute_model(os.fspath(model))
        options = TagOptions(
            source,
            top=k,
            min_confidence=min_confidence,
            under=None if under is None else os.path.abspath(os.path.expanduser(os.fspath(under))),
            again=again,
            decode=self._choice.decode or DEFAULT_DECODE,
            batch_size=self._batch_size,
        )
        with CatalogWriter.open_writer(self.folder) as catalog:
            return classify_photos(
                catalog,
                options,
                open_classifier=lambda: self._embedders.open_classifier(plugin, source),
                on_progress=on_progress,
                cancelled=cancelled,
                run_key=run_key or uuid.uuid4().hex,
            )

    def adapt(
        self,
        folder: str | os.PathLike[str],
        options: AdaptOptions | None = None,
        *,
        output: str | os.PathLike[str] | None = None,
        on_progress: Callable[[IndexProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        run_key: str | None = None,
    ) -> AdaptReport:
        """Learn a projection from photos of `folder`, and use it if it finds photos held out better.

        Only a sample of the folder is read, and none of the library's photos: the new space is made of its
        stored features. With `output` the projection is written to that file instead, and no library is
        needed. Raises `TrainingError` for too few photos, `ConfigError`, `LibraryEmpty`, `LibraryBusy`,
        `SpaceError` where nothing is indexed with the model, `PluginError`, `ModelError`, `DeviceError`.
        """
        from vitmae_search.library.adapt.fit import AdaptOptions
        from vitmae_search.library.adapt.save import AdaptJob, adapt_library, adapt_to_file

        job = AdaptJob(
            os.path.abspath(os.path.expanduser(os.fspath(folder))),
            options or AdaptOptions(),
            self._choice,
            self._spaces,
            self._embedders.device,
            self._batch_size or LEAST_BATCH,
            on_progress,
            cancelled,
        )
        if output is not None:
            return adapt_to_file(job, self._catalog_or_none(), Path(os.path.expanduser(output)).absolute())
        self._catalog()
        with CatalogWriter.open_writer(self.folder) as catalog:
            return adapt_library(job, catalog, self._vectors, run_key or uuid.uuid4().hex)

    def start_index(self, folder: str | os.PathLike[str], *options: str) -> str:
        """Index `folder` in a child process; see `start_job`."""
        return self.start_job("index", folder, *options)

    def start_job(self, command: str, folder: str | os.PathLike[str], *options: str) -> str:
        """Run `vitmae-search COMMAND FOLDER` in a child process, and return its run key.

        It returns as soon as the job's `runs` row is there. `options` are those of the command. Raises
        `LibraryError` with the child's own words if it ends before that.
        """
        path = os.path.abspath(os.path.expanduser(os.fspath(folder)))
        if not os.path.isdir(path):
            raise LibraryError(f"{display_path(path)} is not a folder on this machine")
        key, process = jobs.start(self.folder, command, ["--json", *options, "--", path])
        deadline = time.monotonic() + jobs.START_SECONDS
        while self.run(key) is None and time.monotonic() < deadline:
            if process.poll() not in (None, 0):
                raise LibraryError(jobs.last_words(self.folder, key))
            time.sleep(0.05)
        return key

    def cancel_run(self, key: str) -> None:
        """Ask a running job to stop after its batch; what is finished is kept. Raises `LibraryError`."""
        run = self.run(key)
        if run is None:
            raise LibraryError("there is no such run")
        jobs.cancel(run)

    def derive_space(
        self,
        projection: Projection | str | os.PathLike[str] | None,
        *,
        parent: int | None = None,
        use: bool = True,
    ) -> Space:
        """The space that a projection makes of stored features, made where there is none. No photo is read.

        `projection` is one, or its file; None is the model's own, for which alone the model is opened.
        `parent` is the space of features (default: those of the current space). The new space becomes the
        current one, unless `use` is false. Raises `ModelError` for a projection that is none or does not
        fit, `SpaceError`, `LibraryEmpty`, `LibraryBusy`, `StorageError`.
        """
        features = self._catalog().features_space(self._space(None).features_id if parent is None else parent)
        if projection is None:
            projection = self._spaces.own_projection(features)
        elif not isinstance(projection, Projection):
            projection = Projection.read(os.path.expanduser(projection))
        with CatalogWriter.open_writer(self.folder) as catalog:
            made = self._spaces.derive(catalog, features, projection, use=use)
        if use:
            source = self._catalog().vector_source(made.space_id)
            self._vectors.save(source)
            self._vectors.speed_up(source)
        return made

    def use_space(self, space_id: int) -> None:
        """Make this the current space. Raises `SpaceError`."""
        self._catalog()
        with CatalogWriter.open_writer(self.folder) as catalog:
            catalog.use_space(space_id)

    def drop_space(self, space_id: int) -> None:
        """Delete a space and its vectors; photos stay. Raises `SpaceError`, for features in use as well."""
        space = self._catalog().space(space_id)
        with CatalogWriter.open_writer(self.folder) as catalog:
            catalog.drop_space(space_id)
            left = {other.projection for other in catalog.spaces()}
            if space.projection is not None and space.projection not in left:
                self._projections.discard(space.projection)
        self._vectors.discard(space.fingerprint)

    def check(self, *, repair: bool = False) -> CheckReport:
        """Look for damage in the catalogue, projections and index files, and mend what can be mended."""
        from vitmae_search.library.check import check_library

        return check_library(self._catalog(), self._vectors, self._spaces, repair=repair)
