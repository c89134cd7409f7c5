"""`Library`, the front door: it puts the rooms together and owns what is open.

One `Library` serves many threads. The catalogue is read by anyone at any time; it is written only inside
`index`, `classify`, `adapt`, `derive_space`, `use_space`, `drop_space` and a repairing `check`, each of which
holds the writer's lock. A model is loaded when something first needs it.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vitmae_search.catalog import CatalogWriter
from vitmae_search.embedding import Projection
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.indexing import LEAST_BATCH, TagOptions, classify_photos, index_folders
from vitmae_search.library import jobs
from vitmae_search.library.choice import EmbedderChoice, absolute_model, chosen_projection
from vitmae_search.library.embedders import DEFAULT_DECODE, DEFAULT_PLUGIN, Embedders
from vitmae_search.library.reading import LibraryReader
from vitmae_search.records import (
    CheckReport,
    ClassifyReport,
    IndexProgress,
    IndexReport,
    Space,
)

if TYPE_CHECKING:
    from vitmae_search.library.adapt.adaptation import AdaptReport
    from vitmae_search.library.adapt.fit import AdaptOptions


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
