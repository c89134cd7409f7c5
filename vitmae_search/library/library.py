"""`Library`: the one object that command line, web app and Python users work with."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.address import absolute_path, is_address
from vitmae_search.catalog import HIGHEST_RATING, Catalog, CatalogWriter, SharedValues, database_name
from vitmae_search.embedding import GuardedEmbedder, Projection
from vitmae_search.errors import (
    LibraryEmpty,
    LibraryError,
    PhotoError,
    SpaceError,
    display_path,
)
from vitmae_search.inspection import explain_match
from vitmae_search.inspection.space import NeighbourChange, Neighbourhood, SpaceStatistics
from vitmae_search.library import jobs
from vitmae_search.library.coverage import space_coverage
from vitmae_search.library.duplicates import DuplicateFinder, space_vectors
from vitmae_search.library.embedders import (
    DEFAULT_DECODE,
    DEFAULT_PLUGIN,
    Embedders,
    EmbedderSelection,
    absolute_model,
    read_projection_option,
    split_model,
)
from vitmae_search.library.export import Embeddings, photo_columns, place_columns, write_links, write_table
from vitmae_search.library.index_lag import index_lag
from vitmae_search.library.model_speeds import measure_models, with_speeds
from vitmae_search.library.named_models import NamedModels
from vitmae_search.library.photo_map import inside, make_map, map_groups, photo_map
from vitmae_search.library.picture_search import PictureSearch, WantedHits, least_score, require_photo
from vitmae_search.library.region_search import QUERY_SIDE, RegionSearch, read_box
from vitmae_search.library.space_inspection import (
    ComparedSpace,
    SpaceChoice,
    SpaceInspector,
    Vector,
    neighbour_change,
    neighbourhood,
    space_statistics,
    try_views,
)
from vitmae_search.library.spaces import ProjectionFiles, Spaces
from vitmae_search.notebook import MOST_TILES, Tile, gallery
from vitmae_search.photos import (
    PHOTO_PROCESSES,
    THUMBNAIL_SIDE,
    ThumbnailStore,
    decode_target,
    file_system,
    find_moving_part,
    path_on_disk,
)
from vitmae_search.photos.video import NEEDS_AV, can_be_decoded
from vitmae_search.records import (
    Box,
    Change,
    CheckReport,
    ClassifyReport,
    Coverage,
    DuplicateReport,
    Failure,
    GeoBox,
    GeoCircle,
    Hit,
    IndexLag,
    IndexListing,
    IndexReport,
    Inspection,
    JobProgress,
    JobRecord,
    LibraryStatus,
    MapGrouping,
    MapGroups,
    MapMethod,
    MapReport,
    Marks,
    MatchExplanation,
    MinScore,
    ModelListing,
    MovingPart,
    Photo,
    PhotoKind,
    PhotoMap,
    PhotoOrder,
    PlaceCount,
    PluginListing,
    Reconstruction,
    RegionExplanation,
    RemovalReport,
    SavedSearch,
    SearchFilter,
    SearchResult,
    Space,
    Tag,
    WatchReport,
    WholePhoto,
    Words,
)
from vitmae_search.search import (
    Example,
    Query,
    QueryCache,
    QueryVectors,
    embed_images,
    find_whole,
    neighbour_scores,
    query_image,
    query_picture,
    require_file,
    weighted,
)
from vitmae_search.search.regions import TokenCache
from vitmae_search.search.variants import is_clear
from vitmae_search.vectors import VectorCache, VectorIndex, VectorStore, open_store
from vitmae_search.vectors.map_cache import MapCache

if TYPE_CHECKING:
    from vitmae_search.evaluation import Evaluation
    from vitmae_search.library.adapt.adaptation import AdaptReport
    from vitmae_search.library.adapt.fit import AdaptOptions

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)
"""How an address begins; as a path it has one slash. One letter before the colon is a drive."""

EVERYTHING = SearchFilter()

LONGEST_NAME = 200
"""Characters in the name of an album or a saved search."""

IDENTITY_LENGTH = 8
"""Hexadecimal digits of a library's identity: it is a part of addresses."""


_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Not part of a name: a page cannot show them, and PostgreSQL stores no NUL."""


class Library:
    """A photo library: a folder with a catalogue (SQLite), vector indexes (FAISS) and thumbnails.

    Open one with `Library.open`, best in a `with` block. Opening creates nothing on disk; the first `index`
    does, and until then the library answers as an empty one. A model is loaded when something first needs it.

    One `Library` serves many threads. Any thread may read at any time; `index`, `classify`, `adapt`,
    `derive_space`, `use_space`, `drop_space`, `prune`, `forget`, `relocate`, a repairing `check`, and what
    changes marks, albums, saved searches and decisions on duplicates write to the catalogue, and each holds
    its lock while it does. Whichever of these is called while another process writes raises `LibraryBusy`.

    Every error that a person can act on is a `vitmae_search.errors.VitmaeSearchError`.

    Attributes:
        folder: The library's folder, absolute.
        thumbnails: The small JPEGs that the app shows, by content digest.
    """

    def __init__(
        self,
        folder: Path,
        selection: EmbedderSelection,
        embedders: Embedders,
        batch_size: int | None = None,
        *,
        background: bool = False,
        vectors: str | None = None,
        catalog: str | None = None,
    ) -> None:
        """Put the parts together; `Library.open` is the way to make one."""
        self.folder = folder
        self._address = catalog
        self.thumbnails = ThumbnailStore(folder / "thumbnails")
        self._selection = selection
        self._embedders = embedders
        self._named_models = NamedModels(embedders)
        self._projections = ProjectionFiles(folder / "projections", self._shared_values)
        self._spaces = Spaces(embedders, self._projections)
        self._vectors: VectorStore = open_store(vectors, folder / "vectors", background=background)
        self._maps = self._map_files()
        self._query_cache = QueryCache()
        self._token_cache = TokenCache()
        self._duplicates = DuplicateFinder()
        self._space_inspector = SpaceInspector()
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._reader: Catalog | None = None

    # Opening and closing

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
        vectors: str | None = None,
        catalog: str | None = None,
    ) -> Self:
        """Open the library in a folder, which need not exist yet.

        `embedder`, `model`, `options` and `decode` select what `index` embeds with and what `search` searches
        in. Without any of them that is the library's current space, or the bundled model in a new library.

        Args:
            path: The library's folder. None is the environment's (`VITMAE_SEARCH_LIBRARY`), else the one in
                the user-data folder.
            embedder: The name of an embedding plugin, such as "vitmae" or "color_layout".
            model: A bundled model's name, a folder or weights file, or a hub id; "hub:" before it is the same
                as `embedder="hub"`, and so for other plugins' names.
            options: Further options of the plugin, by name.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            precision: The encoder's arithmetic: "auto", "fp32", "bf16", or "int8", which is an option
                of the plugin, `quantization`, and makes a space of its own.
            decode: "scaled" lets the JPEG decoder scale large photos down, "exact" decodes every pixel.
                None is the current space's mode, else "scaled".
            projection: A projection or its file, which turns features into the vectors that are searched;
                "none" searches the features themselves. None or "auto" is the current space's projection
                where nothing else is selected, else the model's own if it has one.
            batch_size: Photos that are encoded and recorded at once. None is what suits the model and its
                device, 32 or more.
            plugin_folders: Folders with plugins of your own.
            background: Let a thread check vector indexes and build faster ones until `close`, as the app
                does; without it, `index` does this.
            vectors: The address of a vector database that searches, such as `postgresql://host/database`.
                None is the environment's (`VITMAE_SEARCH_VECTORS`), else files in the library's folder.
            catalog: The address of a PostgreSQL database that holds the catalogue, for several machines.
                None is the environment's (`VITMAE_SEARCH_CATALOG`), else a file in the library's folder.

        Returns:
            The open library; it is a context manager that closes itself.

        Raises:
            ModelError: `projection` is a file that is none.
            VectorIndexError: `vectors` is no such address.

        Examples:
            >>> from vitmae_search import Library
            >>> with Library.open("a-new-folder", embedder="color_layout") as library:
            ...     library.status().photos
            0
        """
        from vitmae_search.settings import catalog_address, settings, vectors_address

        if path is None:
            path = settings().library
        if _ADDRESS.match(os.fspath(path)):
            written = display_path(_ADDRESS.sub(r"\1://", os.fspath(path), count=1))  # not a Path's one slash
            raise LibraryError(f"{written} is an address; a library is a folder of this machine")
        chosen = dict(options or {})
        if precision == "int8":
            chosen["quantization"], precision = precision, "auto"
        embedder, model = split_model(embedder, model)
        selection = EmbedderSelection(embedder, model, chosen, decode, read_projection_option(projection))
        embedders = Embedders([Path(folder) for folder in plugin_folders], device, precision)
        return cls(
            Path(_absolute(path)),
            selection,
            embedders,
            batch_size,
            background=background,
            vectors=vectors or vectors_address(),
            catalog=catalog or catalog_address(),
        )

    def close(self) -> None:
        """Free the models' memory, stop the background thread, and close the catalogue."""
        try:
            self._vectors.close()
            self._named_models.close()
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

    def __repr__(self) -> str:
        status = self.status()
        return f"<Library {os.fspath(self.folder)!r}: {status.photos} photos, {len(status.spaces)} spaces>"

    def _repr_html_(self) -> str:
        """The newest photos, for notebooks."""
        newest = self.photos(limit=MOST_TILES)
        tiles = (
            Tile(
                photo.path,
                f"{photo.metadata.width} × {photo.metadata.height}",
                self.thumbnails.get(photo.digest),
            )
            for photo in newest
        )
        total = self.status().photos
        return gallery(f"{total:,} photos in {display_path(os.fspath(self.folder))}", tiles, total)

    # Index, classify, adapt

    def index(
        self,
        folders: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
        *,
        exclude: Sequence[str] = (),
        retry_failed: bool = False,
        rescan: bool = False,
        videos: bool = False,
        workers: int | None = None,
        ray: str | None = None,
        on_progress: Callable[[JobProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        run_key: str | None = None,
    ) -> IndexReport:
        """Bring the library up to date with the photos in one or several folders.

        Only new and changed photos are read and embedded. To run it again is to resume: whatever was
        finished is kept. A photo that cannot be used is reported with its reason and stops no other.

        Args:
            folders: A folder, or several. Those inside them are included, hidden ones are not.
            exclude: Glob patterns of names or paths to skip.
            retry_failed: Try files again that failed before and would fail again: neither they nor what reads
                them has changed.
            rescan: Read all files again, also those whose size and times say that they have not changed.
            videos: Index frames of videos, too, with the package av. Later runs look by themselves at the
                videos of a folder that has some in the library.
            workers: Photos that are read and decoded at a time. None is one for each core.
            ray: Read and embed on a Ray cluster, with the package ray: "local" starts one on this machine,
                "auto" joins the one that runs here, and HOST:PORT one that this machine is a node of. This
                process records.
            on_progress: Called at each step.
            cancelled: Asked again and again; once it returns True the run ends after its batch.
            run_key: The key of the job in `jobs`. None makes a new one.

        Returns:
            Counts of what was found and done, and the failures with their reasons.

        Raises:
            LibraryBusy: Another process writes to the library.
            LibraryError: A folder is not there and never was, `videos` needs av, which is not installed, or
                there is no such cluster.
            StorageError: The disk is full, or the library's folder cannot be written.
            PluginError: The embedder is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there, was lost, or lacks memory.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> for color in ("red", "green", "blue"):
            ...     Image.new("RGB", (64, 48), color).save(photos / f"{color}.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     first, second = library.index(photos), library.index(photos)
            >>> first.added, second.added, second.unchanged
            (3, 0, 3)
            >>> temporary.cleanup()
        """
        from vitmae_search.indexing import RAY_VARIABLES, ClusterOptions, index_folders, require_ray

        if videos and not can_be_decoded():
            raise LibraryError(NEEDS_AV)
        paths = [_absolute(folder) for folder in _listed(folders)]
        if (
            ray is None
            and run_key is None
            and self._catalog_or_none() is None
            and any(file_system(path).is_folder(path) for path in paths)
        ):
            # Load the model before the catalogue is made: if that fails, no empty library stays behind.
            self._spaces.resolve(self._selection, None).lazy.open()
        with ExitStack() as stack:
            spaces, cluster = self._spaces, None
            if ray is not None:
                from vitmae_search.settings import set_defaults

                require_ray()
                set_defaults(RAY_VARIABLES)
                cluster = ClusterOptions(ray, self._embedders.device, self._embedders.elsewhere())
                described = stack.enter_context(closing(self._embedders.on_cpu()))
                spaces = Spaces(described, self._projections)
            catalog = stack.enter_context(CatalogWriter.open_writer(self.folder, self._address))
            return index_folders(
                catalog,
                paths,
                open_target=lambda: spaces.target(self._selection, catalog),
                vectors=self._vectors,
                thumbnails=self.thumbnails,
                batch_size=self._batch_size,
                workers=workers,
                exclude=exclude,
                retry_failed=retry_failed,
                rescan=rescan,
                videos=videos,
                cluster=cluster,
                on_progress=on_progress,
                cancelled=cancelled,
                run_key=run_key or uuid.uuid4().hex,
            )

    def watch(
        self,
        folders: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
        *,
        on_report: Callable[[IndexReport], None],
        cancelled: Callable[[], bool],
        exclude: Sequence[str] = (),
        videos: bool = False,
        on_progress: Callable[[JobProgress], None] | None = None,
        run_key: str | None = None,
    ) -> WatchReport:
        """Index folders, and again after each burst of changes in them, until cancelled.

        The package watchfiles says what changes; network drives are looked through every ten seconds. The
        library can be written by others while nothing changes; while they do, this waits.

        Args:
            folders: A folder, or several; they have to be there.
            on_report: Called after each run.
            cancelled: Asked again and again; once it returns True this ends.
            exclude: As for `index`.
            videos: As for `index`.
            on_progress: As for `index`.
            run_key: The key of the job in `jobs`. None makes no job of the watching, only of each run.

        Returns:
            What all runs came to.

        Raises:
            LibraryError: watchfiles is not installed, or a folder is not there or cannot be watched.
            VitmaeSearchError: As for `index`.
        """
        from vitmae_search.library.watch import watch_folders

        paths = [_absolute(folder) for folder in _listed(folders)]
        stored = next(filter(is_address, paths), None)
        if stored is not None:
            raise LibraryError(
                f"{display_path(stored)} cannot be watched, as a storage reports no changes; run `index` "
                "again now and then"
            )
        for path in paths:
            _require_folder(path)

        def watch(stop: Callable[[], bool]) -> WatchReport:
            return watch_folders(paths, lambda: index(stop), on_report, stop)

        def index(stop: Callable[[], bool]) -> IndexReport:
            return self.index(paths, exclude=exclude, videos=videos, on_progress=on_progress, cancelled=stop)

        return jobs.recorded_job(
            self.folder,
            run_key,
            "watch",
            {"folders": paths, "exclude": list(exclude)},
            watch,
            cancelled,
            catalog=self._address,
        )

    def classify(
        self,
        model: str | os.PathLike[str],
        *,
        plugin: str = DEFAULT_PLUGIN,
        top: int = 3,
        min_confidence: float = 0.2,
        under: str | os.PathLike[str] | None = None,
        again: bool = False,
        on_progress: Callable[[JobProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        run_key: str | None = None,
    ) -> ClassifyReport:
        """Give the library's photos tags, with a classifier.

        Photos that this classifier has seen with the same `top` and `min_confidence` are passed over, so to
        run it again is to resume.

        Args:
            model: A folder that `vitmae-search finetune` wrote, any `ViTForImageClassification` checkpoint,
                or a hub id.
            plugin: The name of the plugin that opens the model.
            top: Tags a photo gets at most.
            min_confidence: Least confidence of a tag, 0 to 1.
            under: Only photos in this folder. None is all.
            again: Classify photos anew that this classifier has seen.
            on_progress: Called at each step.
            cancelled: Asked again and again; once it returns True the run ends after its batch.
            run_key: The key of the job in `jobs`. None makes a new one.

        Returns:
            Counts of what was done, and the failures with their reasons.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
            PluginError: The plugin is not there, or cannot classify.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there, was lost, or lacks memory.
            StorageUnreachable: Nothing can be read of a bucket that photos are in.
        """
        from vitmae_search.indexing import TagOptions, classify_photos

        self._catalog()
        source = absolute_model(os.fspath(model))
        options = TagOptions(
            source,
            top=top,
            min_confidence=min_confidence,
            under=None if under is None else _absolute(under),
            again=again,
            decode=self._selection.decode or DEFAULT_DECODE,
            batch_size=self._batch_size,
        )
        with CatalogWriter.open_writer(self.folder, self._address) as catalog:
            report = classify_photos(
                catalog,
                options,
                open_classifier=lambda: self._embedders.open_classifier(plugin, source),
                on_progress=on_progress,
                cancelled=cancelled,
                run_key=run_key or uuid.uuid4().hex,
            )
        self._refresh_filters()
        return report

    def adapt(
        self,
        folder: str | os.PathLike[str],
        options: AdaptOptions | None = None,
        *,
        output: str | os.PathLike[str] | None = None,
        on_progress: Callable[[JobProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        run_key: str | None = None,
    ) -> AdaptReport:
        """Learn a projection from a folder's photos, and use it if it finds photos held out better.

        Only a sample of the folder is read. The new space is made of the library's stored features, so none
        of the library's own photos is read.

        Args:
            folder: Photos to learn from, without labels. They need not be in the library.
            options: How much to learn and how. None is the defaults.
            output: Write the projection to this file instead; then no library is needed, and none changes.
            on_progress: Called at each step.
            cancelled: Asked again and again; once it returns True the run ends and changes nothing.
            run_key: The key of the job in `jobs`. None makes a new one.

        Returns:
            What was learned from, and how often changed photos were found before and after.

        Raises:
            TrainingError: The folder has too few photos.
            ConfigError: An option is out of range.
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: Nothing is indexed with this model.
            LibraryBusy: Another process writes to the library.
            StorageError: `output` cannot be written.
            PluginError: The embedder is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there, was lost, or lacks memory.
        """
        from vitmae_search.indexing import DEFAULT_BATCH_SIZE
        from vitmae_search.library.adapt.fit import AdaptOptions
        from vitmae_search.library.adapt.save import AdaptRequest, adapt_library, adapt_to_file

        request = AdaptRequest(
            _absolute(folder),
            options or AdaptOptions(),
            self._selection,
            self._spaces,
            self._embedders.device,
            self._batch_size or DEFAULT_BATCH_SIZE,
            on_progress,
            cancelled,
        )
        if output is not None:
            file = Path(os.path.expanduser(output)).absolute()
            return adapt_to_file(request, self._catalog_or_none(), file)
        self._catalog()
        with CatalogWriter.open_writer(self.folder, self._address) as catalog:
            return adapt_library(request, catalog, self._vectors, run_key or uuid.uuid4().hex)

    # Search

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        offset: int = 0,
        min_score: MinScore = None,
        variants: bool = True,
        stacks: bool = True,
    ) -> SearchResult:
        """The photos that look most like a picture, best first.

        A file whose digest the catalogue knows is found by its stored vector, and no model runs. Any other
        picture is also tried without its uniform borders and, if its best hit is not clearly the same photo,
        turned by 90, 180 and 270°; the result says which of these its hits are for.

        Args:
            query: A file's path, a file's bytes, or a PIL image.
            k: Hits wanted, 1 or more.
            space: The id of the space to search in. None is the selected one, else the current one.
            where: Which photos may be hits.
            offset: Hits to skip, for the next page.
            min_score: Leave out hits with a lower score; "same" and "alike" are those of the space's
                calibration.
            variants: Try the picture in these ways; False compares it as it is.
            stacks: Return near-identical photos, such as the frames of a burst, as one hit, with the others
                in `Hit.stacked`; only where the space's scores are calibrated. `k` and `offset` count such
                hits.

        Returns:
            Up to `k` hits with scores (cosines, 1 is the same picture), one for each distinct content.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space, its model has changed since, or `min_score` is a word and what
                its scores mean was not measured.
            PhotoError: The query cannot be read or decoded.
            PluginError: The embedder is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there, was lost, or lacks memory.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> for color in ("red", "green", "blue"):
            ...     Image.new("RGB", (64, 48), color).save(photos / f"{color}.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     hits = library.search(Image.new("RGB", (32, 32), "crimson"), k=2).hits
            >>> [(hit.rank, Path(hit.photo.path).name) for hit in hits][0]
            (1, 'red.png')
            >>> temporary.cleanup()
        """
        wanted = WantedHits(k, where, offset, min_score, stacks)
        return self._search(space).by_picture(query, wanted, variants=variants)

    def fetch_picture(self, address: str) -> bytes:
        """The file of a picture that is named by its address on the web, as a query for `search`.

        It is fetched only where the setting `VITMAE_SEARCH_WEB_PICTURES` is on, only by http or https, from
        public servers, in half a minute and 64 MiB at most. Nothing else is sent than the address.

        Raises:
            LibraryError: The setting is off.
            PhotoError: The address is none that is fetched, or what is there cannot be had.
        """
        from vitmae_search.library.web_pictures import fetch

        return fetch(address)

    def find_whole(
        self,
        query: Query,
        *,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        among: int = 100,
    ) -> WholePhoto | None:
        """The photo that a picture is a part of, such as a detail that someone cut out of it.

        The best hits of a search for it are compared with it pixel by pixel, by their thumbnails. Nothing is
        looked for where the first hit is clearly the same photo.

        Args:
            query: A file's path, a file's bytes, or a PIL image.
            space: As for `search`.
            where: Which photos may be found.
            among: How many hits are compared, 1 or more.

        Returns:
            The photo, or None where the picture fits none of them.

        Raises:
            VitmaeSearchError: As for `search`.
        """
        found = self.search(query, k=among, space=space, where=where, stacks=False)
        if found.known or not found.hits or is_clear(found.hits[0].score, found.calibration):
            return None
        thumbnails = [self.thumbnail(hit.photo.photo_id) for hit in found.hits]
        candidates = [(hit, data) for hit, data in zip(found.hits, thumbnails, strict=True) if data]
        part = query_image(query, decode_target("scaled", THUMBNAIL_SIDE))
        whole = find_whole(part, [data for _, data in candidates])
        return None if whole is None else WholePhoto(candidates[whole[0]][0], whole[1])

    def search_region(
        self,
        picture: Query | int,
        box: Box | Sequence[float],
        *,
        k: int = 10,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        offset: int = 0,
        among: int = 200,
        on_progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> SearchResult:
        """The photos that have something like a part of a picture, each with the place where it is.

        Candidates are the nearest by the vectors of the part, cut out, and of the whole picture. They are
        looked through patch by patch, by their thumbnails; what the model sees of them is kept in memory, so
        that the next box takes less time. A plugin without `patch_tokens` finds what is near the part, cut
        out, and no places (`SearchResult.region` says so).

        Args:
            picture: A file's path, a file's bytes, a PIL image, or the id of a photo of the library. A photo
                of the library is itself left out.
            box: The part: left, top, width and height, as shares of the picture's sides (0 to 1), or in
                pixels of the upright picture where one of them is above 1.
            k: Hits wanted, 1 or more.
            space: The id of the space to search in. None is the selected one, else the current one.
            where: Which photos may be hits.
            offset: Hits to skip, for the next page; there are no more than `among`.
            among: How many candidates are looked through, which decides how long it takes.
            on_progress: Called with how many photos are looked through, and of how many.
            cancelled: Asked again and again; once it returns True, the hits are those found so far.

        Returns:
            Up to `k` hits, best first. A score says how much better patches agree than in the other
            candidates; it is no cosine of vectors.

        Raises:
            LibraryError: The box is no part of the picture.
            VitmaeSearchError: As for `search`.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> for color in ("red", "green", "blue"):
            ...     Image.new("RGB", (64, 48), color).save(photos / f"{color}.png")
            >>> two = Image.new("RGB", (64, 48), "red")
            >>> two.paste("blue", (32, 0, 64, 48))
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     found = library.search_region(two, (0.5, 0, 0.5, 1))
            >>> Path(found.hits[0].photo.path).name, found.region.by_patches
            ('blue.png', False)
            >>> temporary.cleanup()
        """
        asked = self._search(space)
        source, vectors, own, search = self._region_search(picture, asked)
        image, size = query_picture(source, QUERY_SIDE)
        hits, region = search.run(
            image,
            read_box(box, size),
            vectors.as_it_is,
            k=k,
            offset=offset,
            where=where,
            without=set() if own is None else {own},
            among=among,
            on_progress=on_progress,
            cancelled=cancelled,
        )
        return asked.result(hits, vectors.known, region=region)

    def similar(
        self,
        photo_id: int,
        *,
        k: int = 10,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        offset: int = 0,
        min_score: MinScore = None,
        stacks: bool = True,
    ) -> SearchResult:
        """The photos that look most like one of the library's, which is itself left out. No model runs.

        Args:
            photo_id: The photo's id.
            k: Hits wanted, 1 or more.
            space: The id of the space to search in. None is the selected one, else the current one.
            where: Which photos may be hits.
            offset: Hits to skip, for the next page.
            min_score: As for `search`.
            stacks: As for `search`.

        Returns:
            Up to `k` hits, as from `search`.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            LibraryError: The library has no photo with this id.
            SpaceError: There is no such space, the photo has no vector in it, or `min_score` is a word and
                what the space's scores mean was not measured.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> for color in ("red", "tomato", "blue"):
            ...     Image.new("RGB", (64, 48), color).save(photos / f"{color}.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     red = next(photo for photo in library.photos() if photo.path.endswith("red.png"))
            ...     hits = library.similar(red.photo_id).hits
            >>> [Path(hit.photo.path).name for hit in hits]
            ['tomato.png', 'blue.png']
            >>> temporary.cleanup()
        """
        return self.search_examples(
            [photo_id], k=k, space=space, where=where, offset=offset, min_score=min_score, stacks=stacks
        )

    def search_examples(
        self,
        more: Sequence[Example],
        less: Sequence[Example] = (),
        *,
        k: int = 10,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        offset: int = 0,
        min_score: MinScore = None,
        variants: bool = True,
        stacks: bool = True,
    ) -> SearchResult:
        """The photos that look most like several pictures, and less like others.

        An example is a picture, as for `search`, or the id of a photo of the library, which is itself left
        out of the hits, or `Words` where the model knows words. With a weight, `(picture, 2.0)`, it counts
        more or less than the others. A hit's score is the cosine with the mean of `more`, less a quarter of
        the mean of `less`.

        Args:
            more: What hits should look like, at least one.
            less: What they should look less like.
            k: Hits wanted, 1 or more.
            space: The id of the space to search in. None is the selected one, else the current one.
            where: Which photos may be hits.
            offset: Hits to skip, for the next page.
            min_score: As for `search`; a number, unless there is one example alone.
            variants: As for `search`.
            stacks: As for `search`.

        Returns:
            Up to `k` hits, as from `search`.

        Raises:
            LibraryError: There is nothing in `more`, a weight is not above 0, the pictures cancel each other
                out, words are blank, or the library has no photo with an id.
            NoText: There are words, and the model does not know any.
            VitmaeSearchError: As for `search`.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> for color in ("purple", "red", "blue", "green"):
            ...     Image.new("RGB", (64, 48), color).save(photos / f"{color}.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     mixed = library.search_examples(
            ...         [Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")],
            ...         less=[Image.new("RGB", (9, 9), "green")],
            ...     )
            >>> [Path(hit.photo.path).stem for hit in mixed.hits][-1]
            'green'
            >>> temporary.cleanup()
        """
        wanted = WantedHits(k, where, offset, min_score, stacks)
        return self._search(space).by_examples(more, less, wanted, variants=variants)

    def search_text(
        self,
        text: str,
        *,
        k: int = 10,
        space: int | None = None,
        where: SearchFilter = EVERYTHING,
        offset: int = 0,
        min_score: MinScore = None,
        stacks: bool = True,
    ) -> SearchResult:
        """The photos that fit words best, where the space's model learned from texts, as CLIP did.

        Words are compared with the model's own features: for a derived space its features are searched.

        Args:
            text: What is on the photos, such as "a red bicycle".
            k: Hits wanted, 1 or more.
            space: The id of the space to search in. None is the selected one, else the current one.
            where: Which photos may be hits.
            offset: Hits to skip, for the next page.
            min_score: Leave out hits with a lower score, a number: scores of words are lower than those of
                pictures.
            stacks: As for `search`.

        Returns:
            Up to `k` hits, as from `search`.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            LibraryError: The text is blank, or too long.
            NoText: The model does not know words; the message names one that does.
            VitmaeSearchError: As for `search`.
        """
        return self.search_examples(
            [Words(text)],
            k=k,
            space=space,
            where=where,
            offset=offset,
            min_score=min_score,
            stacks=stacks,
        )

    def text_space(self, space: int | None = None) -> Space | None:
        """The space that words are compared in; None where its model does not know words.

        No model is opened: it was written down when the space was made.

        Args:
            space: The id of the space to search in. None is the selected one, else the current one.
        """
        catalog = self._catalog_or_none()
        if catalog is None or catalog.current_space() is None:
            return None
        features = catalog.space(self._space(space).features_id)
        return features if features.knows_words else None

    # Browse

    def status(self) -> LibraryStatus:
        """Counts, folders and spaces; all zero for a library that is not there yet."""
        catalog = self._catalog_or_none()
        if catalog is None:
            return LibraryStatus(os.fspath(self.folder), 0, 0, 0, 0, (), (), database_name(self._address))
        return replace(catalog.status(), database=database_name(self._address))

    @property
    def identity(self) -> str | None:
        """Names the library, as it is now, in addresses of its photos; None while it has no vectors.

        It changes as photos are indexed; `has_identity` knows all that it ever was.
        """
        catalog = self._catalog_or_none()
        identity = catalog.history_identity() if catalog else None
        return None if identity is None else identity[:IDENTITY_LENGTH]

    @property
    def has_several_writers(self) -> bool:
        """Whether processes may write to the catalogue at the same time: on a server, and not in a file."""
        return self._address is not None

    def has_identity(self, identity: str) -> bool:
        """Whether the library's `identity` is or was this: else its photos' ids mean other photos."""
        catalog = self._catalog_or_none()
        return catalog is not None and len(identity) == IDENTITY_LENGTH and catalog.is_in_history(identity)

    def photo(self, photo_id: int) -> Photo | None:
        """The photo with this id, None where there is none."""
        catalog = self._catalog_or_none()
        return catalog.photo(photo_id) if catalog else None

    def around(self, photo_id: int, km: float) -> GeoCircle:
        """What lies around the place where a photo was taken, for `SearchFilter.near`.

        Args:
            photo_id: The photo's id.
            km: The greatest distance.

        Raises:
            LibraryError: The library has no photo with this id, or it does not say where it was taken.
        """
        photo = self._photo(photo_id)
        latitude, longitude = photo.metadata.latitude, photo.metadata.longitude
        if latitude is None or longitude is None:
            raise LibraryError(f"{display_path(photo.path)} does not say where it was taken")
        return GeoCircle(latitude, longitude, km)

    def photos(
        self, where: SearchFilter = EVERYTHING, *, offset: int = 0, limit: int | None = None
    ) -> list[Photo]:
        """The photos on disk, newest first.

        Args:
            where: Which of them.
            offset: Photos to skip, for the next page.
            limit: Photos to list at most. None is all.
        """
        catalog = self._catalog_or_none()
        return catalog.photos(where, offset=offset, limit=limit) if catalog else []

    def browse(
        self,
        where: SearchFilter = EVERYTHING,
        *,
        order: PhotoOrder = "newest",
        after: int | None = None,
        limit: int = 100,
    ) -> list[Photo]:
        """A batch of the photos on disk, in an order; later batches are as quick as the first.

        Args:
            where: Which of them.
            order: The order.
            after: The `photo_id` that the batch before ended with. None begins at the first photo.
            limit: Photos to list at most.
        """
        catalog = self._catalog_or_none()
        return catalog.browse(where, order, after=after, limit=limit) if catalog else []

    def count_by(self, kind: PhotoKind, where: SearchFilter = EVERYTHING) -> dict[str, int]:
        """How many photos on disk are in each folder, of each month ("2024-03"), camera, lens, and so on.

        Folders, months and sizes are in their own order, other kinds begin with the most frequent. Sizes are
        classes in MB ("1-5"), a place is known ("on") or not ("off").

        Args:
            kind: What they are counted by. A folder's number is without its sub-folders.
            where: Which of them.
        """
        catalog = self._catalog_or_none()
        return catalog.count_by(kind, where) if catalog else {}

    def has_any(self, kind: PhotoKind) -> bool:
        """Whether any photo on disk has a "lens", "place", "tag" or "rating", or is a "favourite".

        This takes a millisecond, while `count_by` reads all photos.
        """
        catalog = self._catalog_or_none()
        return catalog is not None and catalog.has_any(kind)

    def count_places(
        self, where: SearchFilter = EVERYTHING, *, view: GeoBox | None = None, most: int = 5000
    ) -> list[PlaceCount]:
        """How many photos on disk were taken at each place, for a map.

        Places are rounded, to a thousandth of a degree or more, so that there are few enough.

        Args:
            where: Which photos.
            view: Only places in this box.
            most: How many places there may be.
        """
        catalog = self._catalog_or_none()
        return catalog.count_places(where, view=view, most=most) if catalog else []

    def count_photos(self, where: SearchFilter = EVERYTHING) -> int:
        """How many photos on disk pass the filter."""
        catalog = self._catalog_or_none()
        return catalog.count_photos(where) if catalog else 0

    def thumbnail(self, photo_id: int | Photo) -> bytes | None:
        """A photo as a small JPEG: from the cache, else made from its file.

        Args:
            photo_id: The photo's id, or the photo, which then is not looked up.

        Returns:
            The JPEG's bytes, or None where the cache has none and the file cannot be read.

        Raises:
            LibraryError: The library has no photo with this id.
        """
        photo = photo_id if isinstance(photo_id, Photo) else self._photo(photo_id)
        stored = self.thumbnails.get(photo.digest)
        if stored is not None:
            return stored
        try:
            return PHOTO_PROCESSES.thumbnail(photo.path, self.thumbnails)
        except PhotoError:
            return None

    def moving_part(self, photo_id: int) -> MovingPart | None:
        """The video of a Live photo, which lies beside it, or of a motion photo, which is in its file.

        Returns:
            Where it is; None where the photo has none, or cannot be read.

        Raises:
            LibraryError: The library has no photo with this id.
        """
        return find_moving_part(self._photo(photo_id).path)

    def tags(self, photo_id: int) -> list[Tag]:
        """A photo's tags, classifier by classifier, each with its surest first.

        Raises:
            LibraryError: The library has no photo with this id.
        """
        return self._catalog().tags(self._photo(photo_id).content_id)

    def tag_counts(self) -> dict[str, int]:
        """Every tag of a photo on disk, and how many photos have it, the most frequent first."""
        catalog = self._catalog_or_none()
        return catalog.tag_counts() if catalog else {}

    # What you say of photos

    def mark(
        self, photo_ids: Sequence[int], *, favourite: bool | None = None, rating: int | None = None
    ) -> int:
        """Make photos favourites, or give them a rating. None leaves the one or the other as it is.

        It belongs to the photo's content: copies share it, a photo that is moved, renamed or indexed again
        keeps it, and so does one whose file is edited where it lies.

        Args:
            photo_ids: The photos; ids that no photo has are passed over.
            favourite: Whether they are favourites.
            rating: 1 to 5, 0 for none.

        Returns:
            How many distinct contents they are.

        Raises:
            LibraryError: The rating is not 0 to 5.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> from vitmae_search.records import SearchFilter
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> for color in ("red", "green"):
            ...     Image.new("RGB", (64, 48), color).save(photos / f"{color}.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     first = library.photos()[0].photo_id
            ...     marked = library.mark([first], favourite=True, rating=4)
            ...     marks = library.marks(first)
            ...     counts = library.count_photos(SearchFilter(min_rating=4)), library.count_photos()
            ...     undone = library.undo()
            >>> marks.favourite, marks.rating, counts, undone
            (True, 4, (1, 2), '1 photo: favourite, rating 4')
            >>> temporary.cleanup()
        """
        values: dict[str, bool | int] = {}
        if favourite is not None:
            values["favourite"] = bool(favourite)
        if rating is not None:
            if rating not in range(HIGHEST_RATING + 1):
                raise LibraryError(f"a rating is 0 to {HIGHEST_RATING}, not {rating}")
            values["rating"] = int(rating)
        words = {"favourite": "favourite" if favourite else "no favourite", "rating": f"rating {rating}"}
        count = "1 photo" if len(set(photo_ids)) == 1 else f"{len(set(photo_ids)):,} photos"
        with self._writer() as catalog:
            return catalog.mark(photo_ids, values, f"{count}: {', '.join(words[name] for name in values)}")

    def marks(self, photo_id: int) -> Marks:
        """Whether a photo is a favourite, its rating, and its albums.

        Raises:
            LibraryError: The library has no photo with this id.
        """
        digest = self._photo(photo_id).digest
        return self.marks_of([digest])[digest]

    def marks_of(self, digests: Iterable[str]) -> dict[str, Marks]:
        """As `marks`, for many contents at once, by their digests (`Photo.digest`)."""
        wanted = dict.fromkeys(digests, Marks())
        catalog = self._catalog_or_none()
        return wanted | catalog.marks(list(wanted)) if catalog else wanted

    def albums(self) -> dict[str, int]:
        """The albums, A to Z, and how many photos on disk each has; copies count once."""
        catalog = self._catalog_or_none()
        return catalog.albums() if catalog else {}

    def add_to_album(self, name: str, photo_ids: Sequence[int], *, make: bool = True) -> int:
        """Put photos into an album.

        Args:
            name: The album, at most 200 characters.
            photo_ids: The photos; ids that no photo has are passed over.
            make: Make the album if there is none.

        Returns:
            How many distinct contents they are.

        Raises:
            LibraryError: The name is empty or too long, or there is no such album and none is to be made.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
        """
        with self._writer() as catalog:
            return catalog.add_to_album(_valid_name(name), photo_ids, make=make)

    def remove_from_album(self, name: str, photo_ids: Sequence[int]) -> int:
        """Take photos out of an album; nothing else happens to them.

        Args:
            name: The album.
            photo_ids: The photos.

        Returns:
            How many distinct contents they are.

        Raises:
            LibraryError: There is no such album.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
        """
        with self._writer() as catalog:
            return catalog.remove_from_album(name, photo_ids)

    def rename_album(self, name: str, new_name: str) -> None:
        """Give an album another name.

        Args:
            name: The album.
            new_name: Its new name.

        Raises:
            LibraryError: There is no such album, or one of the new name.
            LibraryBusy: Another process writes to the library.
        """
        with self._writer() as catalog:
            catalog.rename_album(name, _valid_name(new_name))

    def delete_album(self, name: str) -> None:
        """Delete an album. Its photos stay, and are not touched.

        Raises:
            LibraryError: There is no such album.
            LibraryBusy: Another process writes to the library.
        """
        with self._writer() as catalog:
            catalog.delete_album(name)

    def saved_searches(self) -> list[SavedSearch]:
        """The saved searches, A to Z."""
        catalog = self._catalog_or_none()
        return catalog.saved_searches() if catalog else []

    def saved_search(self, name: str) -> SavedSearch:
        """A saved search; its fields are the arguments of `search_examples`, or of `photos` without `more`.

        Raises:
            LibraryError: There is none of this name.
        """
        found = next((search for search in self.saved_searches() if search.name == name), None)
        if found is None:
            names = ", ".join(display_path(search.name) for search in self.saved_searches()) or "none"
            raise LibraryError(f"there is no saved search {display_path(name)!r}; there are: {names}")
        return found

    def save_search(self, search: SavedSearch) -> None:
        """Save a search under its name, in place of another one of this name.

        Raises:
            LibraryError: The name is empty or too long, or the library has no photo with an id.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
        """
        for photo_id, weight in (*search.more, *search.less):
            self._photo(photo_id)
            weighted((photo_id, weight))
        with self._writer() as catalog:
            catalog.save_search(replace(search, name=_valid_name(search.name)))

    def delete_search(self, name: str) -> None:
        """Delete a saved search.

        Raises:
            LibraryError: There is none of this name.
            LibraryBusy: Another process writes to the library.
        """
        with self._writer() as catalog:
            catalog.delete_search(name)

    @property
    def last_change(self) -> Change | None:
        """What `undo` would undo; None where there is nothing."""
        catalog = self._catalog_or_none()
        return catalog.last_change() if catalog else None

    def undo(self, expected: Change | None = None) -> str | None:
        """Undo the last change to favourites, ratings, albums, saved searches or decisions on duplicates.

        The last twenty changes can be undone, one after the other, whoever made them.

        Args:
            expected: The change that is meant, from `last_change`, where others may make changes meanwhile;
                None for the newest, whichever it is.

        Returns:
            What the change did, in words; None where there is nothing to undo.

        Raises:
            LibraryError: Another change than the expected one is the newest. Nothing is changed.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
        """
        with self._writer() as catalog:
            return catalog.undo(expected)

    def photo_ids(self, names: Sequence[str | os.PathLike[str] | int]) -> list[int]:
        """The ids of photos that are named by their paths or ids.

        Raises:
            LibraryError: The library has no photo at a path, or with an id.
        """
        paths = {name: _absolute(name) for name in names if not isinstance(name, int)}
        catalog = self._catalog()
        found = catalog.photo_ids_at(list(paths.values()))
        for name in names:
            if isinstance(name, int):
                self._photo(name)
            elif paths[name] not in found:
                raise LibraryError(f"the library has no photo {display_path(paths[name])}")
        return [name if isinstance(name, int) else found[paths[name]] for name in names]

    # Near-duplicates and unusual photos

    def unusual(
        self,
        where: SearchFilter = EVERYTHING,
        *,
        k: int = 24,
        neighbours: int = 3,
        space: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> SearchResult:
        """The photos that are least like any other one: those with the lowest scores with their neighbours.

        All vectors are compared with each other, as for `duplicates`.

        Args:
            where: Which photos are compared.
            k: How many are returned.
            neighbours: How many of the nearest others count, 1 or more.
            space: The id of the space. None is the selected one, else the current one.
            cancelled: Asked again and again; once it returns True the rest is left out.

        Returns:
            The photos, the most unusual first. A hit's score is its mean cosine with its neighbours.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space.
        """
        started = time.perf_counter()
        catalog, searched = self._catalog(), self._space(space)
        ids = catalog.searchable_ids(searched.space_id, where)
        scores = neighbour_scores(space_vectors(catalog, searched, ids), neighbours, cancelled)
        order = np.argsort(scores, kind="stable")[:k]
        found = catalog.photos_of(ids[order])
        hits: list[Hit] = []
        for place in order.tolist():
            photos = [photo for photo in found.get(int(ids[place]), []) if not photo.missing]
            if photos:
                copies = tuple(photo.path for photo in photos[1:])
                hits.append(Hit(len(hits) + 1, float(scores[place]), photos[0], copies))
        return SearchResult(
            tuple(hits),
            searched,
            True,
            time.perf_counter() - started,
            examples=0,
            thumbnail=self.thumbnails.get,
        )

    def badly_reconstructed(
        self,
        where: SearchFilter = EVERYTHING,
        *,
        k: int = 24,
        sample: int | None = None,
        mask_ratio: float = 0.75,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> SearchResult:
        """The photos that the model guesses worst from a part of their patches: what it has seldom seen.

        Thumbnails are reconstructed, with the same patches hidden in each; a photo without one is left out.

        Args:
            where: Which photos are looked at.
            k: How many are returned.
            sample: How many are looked at, drawn at random, always the same; None for all. Each takes some 20
                milliseconds with the bundled model.
            mask_ratio: The share of patches to hide, 0 < r < 1.
            cancelled: Asked before each photo; once it returns True the rest is left out.

        Returns:
            The photos, the worst first. A hit's score is its loss.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            NoDecoder: The model is an encoder alone.
            PluginError: The plugin is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there, was lost, or lacks memory.
        """
        started = time.perf_counter()
        catalog, searched = self._catalog(), self._space(None)
        ids = catalog.searchable_ids(searched.space_id, where)
        if sample is not None and sample < len(ids):
            ids = np.random.default_rng(0).choice(ids, sample, replace=False)
        losses: list[tuple[float, Photo, tuple[str, ...]]] = []
        for copies in catalog.photos_of(ids).values():
            photos = [photo for photo in copies if not photo.missing]
            if cancelled():
                break
            if photos and (thumbnail := self.thumbnails.get(photos[0].digest)) is not None:
                loss = self.reconstruct(thumbnail, mask_ratio=mask_ratio).loss
                losses.append((loss or 0.0, photos[0], tuple(photo.path for photo in photos[1:])))
        losses.sort(key=lambda found: -found[0])
        return SearchResult(
            tuple(Hit(rank, *found) for rank, found in enumerate(losses[:k], 1)),
            searched,
            True,
            time.perf_counter() - started,
            examples=0,
            thumbnail=self.thumbnails.get,
        )

    def duplicates(
        self,
        where: SearchFilter = EVERYTHING,
        *,
        min_score: MinScore = "same",
        space: int | None = None,
        ignored: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> DuplicateReport:
        """Groups of photos that are nearly the same, over the whole library. No photo is changed or deleted.

        Every vector is compared with every other one, block by block, so that memory grows with the number
        of photos only. The comparison is kept until photos, filter or score change.

        Args:
            where: Which photos are compared.
            min_score: The least score of a near-duplicate with the first photo of its group.
            space: The id of the space. None is the selected one, else the current one.
            ignored: Include groups that were ignored.
            cancelled: Asked again and again; once it returns True the rest is left out.

        Returns:
            The groups, the photo to keep first in each, and how many there would be at other scores.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space, or what `min_score` means in it was not measured.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> photo = Image.linear_gradient("L").convert("RGB")
            >>> photo.save(photos / "large.png")
            >>> photo.resize((64, 64)).save(photos / "small.jpg")
            >>> Image.new("RGB", (64, 64), "blue").save(photos / "blue.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     (group,) = library.duplicates(min_score=0.98).groups
            >>> [Path(shown.photo.path).name for shown in group.photos]
            ['large.png', 'small.jpg']
            >>> temporary.cleanup()
        """
        searched = self._space(space)
        if min_score is None:
            raise SpaceError("near-duplicates need a least score")
        score = least_score(min_score, searched)
        catalog = self._catalog()
        return self._duplicates.find(
            catalog, searched, self.thumbnails, where, score, ignored=ignored, cancelled=cancelled
        )

    def keep(self, photo_ids: Sequence[int], keep: bool = True) -> int:
        """Choose photos as those to keep of their near-duplicates: they come first in their groups.

        Args:
            photo_ids: The photos.
            keep: False takes the choice back.

        Returns:
            How many distinct contents they are.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
        """
        words = "kept of their near-duplicates" if keep else "no longer chosen to be kept"
        with self._writer() as catalog:
            return catalog.mark(photo_ids, {"keep": keep}, f"{len(set(photo_ids))} photos {words}")

    def ignore_duplicates(self, photo_ids: Sequence[int]) -> int:
        """Ignore a group of near-duplicates as it is: it comes back if it gets another photo.

        Args:
            photo_ids: The group's photos, its first one first.

        Returns:
            How many pairs were decided.

        Raises:
            LibraryError: The library has no photo with an id.
            LibraryBusy: Another process writes to the library.
        """
        return self._decide(photo_ids[0], photo_ids[1:], "ignored", "a group of near-duplicates ignored")

    def not_duplicates(self, photo_id: int, others: Sequence[int]) -> int:
        """Say that a photo is no duplicate of others. It holds for good, also after indexing anew.

        Args:
            photo_id: The photo.
            others: The other photos of its group.

        Returns:
            How many pairs were decided.

        Raises:
            LibraryError: The library has no photo with an id.
            LibraryBusy: Another process writes to the library.
        """
        return self._decide(photo_id, others, "different", "a photo said to be no duplicate")

    def _decide(
        self, photo_id: int, others: Sequence[int], decision: Literal["different", "ignored"], text: str
    ) -> int:
        for known in (photo_id, *others):
            self._photo(known)
        with self._writer() as catalog:
            return catalog.decide_pairs(photo_id, others, decision, text)

    # The map

    def map(
        self, where: SearchFilter = EVERYTHING, *, method: MapMethod = "pca", space: int | None = None
    ) -> PhotoMap:
        """A map of the library: two coordinates for each photo, and clusters of photos that look alike.

        It is kept beside the vector indexes. Photos that were indexed after it was made are placed on it
        without moving the others. "pca" is made at once where there is none, "tsne" by `make_map`.

        Args:
            where: Which photos are shown; the others lie where they lie.
            method: How the map is laid out.
            space: The id of the space. None is the selected one, else the current one.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            LibraryError: The map was not made yet.
            SpaceError: There is no such space.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> for color in ("red", "tomato", "blue", "navy"):
            ...     Image.new("RGB", (64, 48), color).save(photos / f"{color}.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     found = library.map()
            >>> len(found), found.coordinates.shape, sum(cluster.size for cluster in found.clusters)
            (4, (4, 2), 4)
            >>> temporary.cleanup()
        """
        mapped = self._space(space)
        found = photo_map(self._catalog(), self._maps, mapped, method, where)
        if found is None:
            raise LibraryError(
                f"there is no {method} map of space {mapped.space_id} yet; make it with `vitmae-search map "
                f"--method {method}`"
            )
        return replace(found, thumbnail=self.thumbnail)

    def has_map(self, method: MapMethod, *, space: int | None = None) -> bool:
        """Whether a map was made.

        Args:
            method: How it is laid out.
            space: The id of the space. None is the selected one, else the current one.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space.
        """
        return self._maps.exists(self._catalog().vector_source(self._space(space).space_id), method)

    def make_map(
        self,
        method: MapMethod = "tsne",
        *,
        space: int | None = None,
        on_progress: Callable[[JobProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        run_key: str | None = None,
    ) -> MapReport:
        """Lay out the map anew, with all photos there are. Others may write to the library meanwhile.

        Args:
            method: How; "tsne" takes minutes for 100,000 photos, and needs the extra `map`.
            space: The id of the space. None is the selected one, else the current one.
            on_progress: Called at each step.
            cancelled: Asked again and again; once it returns True this ends, and the old map stays.
            run_key: The key of its row among the jobs. None records nothing.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            LibraryError: openTSNE is not installed.
            LibraryBusy: Another process writes to the library as this begins, and `run_key` is given.
            SpaceError: There is no such space.
        """
        return make_map(
            self._catalog(),
            self._maps,
            self._space(space),
            method,
            on_progress=on_progress,
            cancelled=cancelled,
            run_key=run_key,
        )

    def map_groups(self, shown: PhotoMap, by: MapGrouping) -> MapGroups:
        """The photos of a map in groups, such as those to colour them by.

        Args:
            shown: The map.
            by: Clusters; the largest folders or tags; or months or years.
        """
        return map_groups(self._catalog(), shown, by)

    def map_area(self, shown: PhotoMap, corners: Sequence[tuple[float, float]]) -> NDArray[np.int64]:
        """The ids of the photos inside a polygon on a map: `SearchFilter.photo_ids` searches among them.

        Args:
            shown: The map.
            corners: The polygon's corners; the last one is joined with the first.

        Raises:
            LibraryError: There are fewer than three corners.
        """
        return inside(shown, corners)

    # Export

    def embeddings(self, where: SearchFilter = EVERYTHING, *, space: int | None = None) -> Embeddings:
        """The vectors of photos on disk, as one array, for NumPy, pandas or scikit-learn.

        Args:
            where: Which photos.
            space: The id of the space. None is the selected one, else the current one.

        Returns:
            Ids, paths, digests and (N, D) float32 vectors of unit length, one row for each photo, newest
            first. Photos without a vector in the space are left out.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> for color in ("red", "green", "blue"):
            ...     Image.new("RGB", (64, 48), color).save(photos / f"{color}.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     found = library.embeddings()
            >>> len(found.paths), found.vectors.shape, found.vectors.dtype
            (3, (3, 268), dtype('float32'))
            >>> temporary.cleanup()
        """
        return self._embeddings(self.photos(where), self._space(space))

    def export(
        self,
        output: str | os.PathLike[str],
        *,
        where: SearchFilter = EVERYTHING,
        space: int | None = None,
        hits: Sequence[Hit] | None = None,
        vectors: bool = True,
        places: bool = False,
    ) -> int:
        """Write photos with their dates, sizes, marks and vectors to a file for other programs.

        Args:
            output: The file; it ends in `.parquet`, `.npz`, `.csv` or `.json`. An older one is replaced.
            where: Which photos.
            space: The id of the space that the vectors are of. None is the selected one, else the current
                one.
            hits: Write these, with rank and score, in place of photos that pass `where`.
            vectors: Whether to write vectors; photos without one in the space are then left out.
            places: Whether to write where photos were taken, which may say where someone lives.

        Returns:
            How many rows there are.

        Raises:
            LibraryError: The end of `output` is none of these.
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space.
            StorageError: The file cannot be written.
        """
        catalog, exported = self._catalog(), self._space(space)
        photos = self.photos(where) if hits is None else [hit.photo for hit in hits]
        ranked = {hit.photo.photo_id: hit for hit in hits or ()}
        found = self._embeddings(photos, exported) if vectors else None
        if found is not None:
            by_id = {photo.photo_id: photo for photo in photos}
            photos = [by_id[photo_id] for photo_id in found.photo_ids.tolist()]
        columns = photo_columns(photos, catalog.marks([photo.digest for photo in photos]))
        if places:
            columns |= place_columns(photos)
        if hits is not None:
            columns["rank"] = [ranked[photo.photo_id].rank for photo in photos]
            columns["score"] = [ranked[photo.photo_id].score for photo in photos]
        write_table(Path(_absolute(output)), columns, None if found is None else found.vectors)
        return len(photos)

    def export_links(self, folder: str | os.PathLike[str], photos: Sequence[Photo]) -> int:
        """Fill a new or empty folder with symbolic links to photos, numbered in their order.

        Args:
            folder: The folder.
            photos: The photos, such as those of hits. No file is copied or touched, but one on an object
                storage is copied. Frames of one video are one link.

        Returns:
            How many links there are.

        Raises:
            LibraryError: The folder holds something.
            StorageError: The folder cannot be written.
        """
        files = list(dict.fromkeys(photo.file for photo in photos))
        write_links(Path(_absolute(folder)), files)
        return len(files)

    def _embeddings(self, photos: Sequence[Photo], space: Space) -> Embeddings:
        catalog = self._catalog()
        ids = catalog.searchable_ids(space.space_id)
        contents = {some[0].content_id: number for number, some in catalog.photos_of(ids).items()}
        photos = [photo for photo in photos if photo.content_id in contents]
        rows = catalog.vectors(space.space_id, [contents[photo.content_id] for photo in photos])
        return Embeddings(
            np.array([photo.photo_id for photo in photos], np.int64),
            tuple(photo.path for photo in photos),
            tuple(photo.digest for photo in photos),
            rows,
            space.space_id,
        )

    def failures(self, space: int | None = None) -> list[Failure]:
        """Files without a vector in a space (its id; None is the selected or current one), with reasons.

        Raises:
            SpaceError: There is no such space.
        """
        catalog = self._catalog_or_none()
        if catalog is None or not catalog.spaces():
            return []
        return catalog.failures(self._space(space).space_id)

    # Spaces

    def spaces(self) -> list[Space]:
        """The embedding spaces, oldest first; one of them is current.

        A space holds the vectors that one model with one set of options made. Vectors of different spaces
        are never compared.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> Image.new("RGB", (64, 48), "red").save(photos / "red.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     spaces = library.spaces()
            >>> [(space.space_id, space.plugin, space.vectors, space.current) for space in spaces]
            [(1, 'color_layout', 1, True)]
            >>> temporary.cleanup()
        """
        catalog = self._catalog_or_none()
        return catalog.spaces() if catalog else []

    def space_named(self, name: str) -> Space:
        """The space with this id, or the newest one of the model with this name.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is none.
        """
        if name.isdecimal():
            return self._space(int(name))
        self._catalog()
        found = [space for space in self.spaces() if name in (space.model, os.path.basename(space.model))]
        if not found:
            models = ", ".join(sorted({display_path(space.model) for space in self.spaces()}))
            raise SpaceError(f"no space is of the model {display_path(name)!r}; there are: {models}")
        return found[-1]

    def coverage(self, space: int | None = None) -> Coverage | None:
        """How much of the library a space (its id; None is the current one) covers; None where it is all.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space.
        """
        return space_coverage(self._catalog(), self._space(space))

    def fill_space(self, plugin: str, options: Mapping[str, object]) -> str:
        """Index all folders of the library with another model, in a child process.

        Its vectors go to a space of their own, while searches go on with the current one; `use_space`
        changes over. To call it again goes on with what is missing.

        Args:
            plugin: The embedding plugin, as of `models` or of a space that is to be filled.
            options: Options of the plugin, such as {"model": NAME}.

        Returns:
            The key of the job, as from `start_job`.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            LibraryError: None of the folders is there, or the child failed at once.
            StorageError: The child could not be started.
        """
        paths = [
            root.path
            for root in self._catalog().status().roots
            if file_system(root.path).is_folder(root.path)
        ]
        if not paths:
            raise LibraryError("none of the library's folders is there; is a drive away?")
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return self.start_job("index", paths[0], "--embedder", plugin, *words, *paths[1:])

    def use_space(self, space_id: int) -> None:
        """Make a space the current one, which searches use.

        Raises:
            SpaceError: There is no such space.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
        """
        self._catalog()
        with CatalogWriter.open_writer(self.folder, self._address) as catalog:
            catalog.use_space(space_id)

    def derive_space(
        self,
        projection: Projection | str | os.PathLike[str] | None,
        *,
        parent: int | None = None,
        use: bool = True,
    ) -> Space:
        """Make a space of stored features by a projection; no photo is read.

        Args:
            projection: A projection, or its file. None is the model's own, for which the model is opened.
            parent: The id of the space of features. None is the one that the current space comes from.
            use: Make the new space the current one.

        Returns:
            The space, which may have been there before.

        Raises:
            ModelError: The file is no projection, or does not fit the features.
            SpaceError: There is no such space of features, or its model has no projection of its own.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
            StorageError: The disk is full, or the library's folder cannot be written.
        """
        features = self._catalog().features_space(self._space(None).features_id if parent is None else parent)
        if projection is None:
            projection = self._spaces.own_projection(features)
        elif not isinstance(projection, Projection):
            projection = Projection.read(os.path.expanduser(projection))
        with CatalogWriter.open_writer(self.folder, self._address) as catalog:
            made = self._spaces.derive(catalog, features, projection, use=use)
        if use:
            source = self._catalog().vector_source(made.space_id)
            self._vectors.save(source)
            self._vectors.speed_up(source)
        return made

    def drop_space(self, space_id: int, *, even_current: bool = True) -> None:
        """Delete a space with its vectors, and its projection if no other space has it. Photos stay.

        Args:
            space_id: The space.
            even_current: Whether it may be the current one. Searches then use another one.

        Raises:
            SpaceError: There is no such space, another one is derived from it, or it is current against
                `even_current`.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
        """
        space, source = self._catalog().space(space_id), self._catalog().vector_source(space_id)
        with CatalogWriter.open_writer(self.folder, self._address) as catalog:
            catalog.drop_space(space_id, even_current=even_current)
            left = {other.projection for other in catalog.spaces()}
            if space.projection is not None and space.projection not in left:
                self._projections.discard(space.projection)
        self._vectors.discard(source)
        self._maps.discard(space.fingerprint)

    def index_info(self, space: int | None = None) -> IndexListing:
        """Which kind of vector index a space (its id; None is the current one) is searched with, and why.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space.
        """
        return self._vectors.describe(self._catalog().vector_source(self._space(space).space_id))

    def index_lag(self, space: int | None = None) -> IndexLag:
        """How far a space's vector index (None is the current space's) lags behind the catalogue.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space.
        """
        catalog, of = self._catalog(), self._space(space)
        return index_lag(catalog, of, self._vectors.describe(catalog.vector_source(of.space_id)))

    def shared_values(self) -> SharedValues | None:
        """What all processes with this catalogue share; None where the catalogue is a file.

        A new database gets its tables first.
        """
        if self._address is not None and self._catalog_or_none() is None:
            CatalogWriter.open_writer(self.folder, self._address).close()
        return self._shared_values()

    # Jobs

    def start_job(self, command: str, folder: str | os.PathLike[str], *options: str) -> str:
        """Run `vitmae-search COMMAND FOLDER` on this library in a child process.

        The child goes on when this process ends. `job` shows its progress; `cancel_job` stops it.

        Args:
            command: "index", "adapt", "classify" or "pretrain".
            folder: The folder that the command works on.
            *options: Further words of its command line.

        Returns:
            The key of the job, as soon as it is in `jobs`.

        Raises:
            LibraryError: The folder is not there, or the child failed at once; the message is the child's.
            StorageError: The child could not be started.
        """
        path = _absolute(folder)
        _require_folder(path)
        return self._start(command, "--json", *options, "--", path)

    def start_map_job(self, method: MapMethod = "tsne") -> str:
        """Run `vitmae-search map` in a child process, as `start_job` runs others.

        Returns:
            The key of the job, as soon as it is in `jobs`.

        Raises:
            LibraryError: The child failed at once; the message is the child's.
            StorageError: The child could not be started.
        """
        return self._start("map", "--json", "--again", "--method", method)

    def _start(self, command: str, *words: str) -> str:
        key, process = jobs.start(self.folder, command, words, catalog=self._address)
        jobs.wait_until_recorded(self.folder, key, process, lambda: self.job(key) is not None)
        return key

    def jobs(self, limit: int = 20) -> list[JobRecord]:
        """The newest long jobs of any process, at most `limit`."""
        catalog = self._catalog_or_none()
        return catalog.runs(limit) if catalog else []

    def job(self, key: str) -> JobRecord | None:
        """The job with this key, None before it has begun."""
        catalog = self._catalog_or_none()
        return catalog.run(key) if catalog else None

    def cancel_job(self, key: str) -> None:
        """Ask a running job to stop after its batch, on whichever machine it runs; what is finished is kept.

        It asks once a second whether it is to stop, and says so in its row.

        Raises:
            LibraryError: There is no such job, or it has ended.
            LibraryBusy: A long change of the catalogue is being written; ask again.
            StorageError: This user may not write to the catalogue.
        """
        record = self.job(key)
        if record is None:
            raise LibraryError("there is no such run")
        jobs.cancel(self.folder, record, catalog=self._address)

    # Inspect

    def reconstruct(
        self,
        query: Query | int,
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        mask: NDArray[np.bool_] | None = None,
        model: str | None = None,
    ) -> Reconstruction:
        """Hide patches of a picture and let the model fill them in.

        The model is the selected one, else the current space's if it can reconstruct, else the bundled one.

        Args:
            query: A file's path, a file's bytes, a PIL image, or the id of a photo of the library.
            mask_ratio: The share of patches to hide, 0 ≤ r < 1.
            seed: Which ones are hidden; equal seeds hide the same.
            mask: (gh, gw) bool, True where a patch is hidden, in place of `mask_ratio` and `seed`.
            model: Another model for this call, as `open` takes it: any ViTMAE, such as a training's folder,
                whose newest checkpoint is used.

        Returns:
            The original, masked and reconstructed pictures, (H, W, 3) uint8 at the model's size, with the
            error of each patch.

        Raises:
            PhotoError: The picture cannot be read or decoded.
            NoDecoder: The model is an encoder alone.
            PluginError: The plugin is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there, was lost, or lacks memory.

        Examples:
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> with Library.open("a-new-folder") as library:
            ...     made = library.reconstruct(Image.new("RGB", (64, 64), "red"), mask_ratio=0.5, seed=0)
            >>> made.reconstruction.shape, made.mask.shape, int(made.mask.sum())
            ((64, 64, 3), (8, 8), 32)
        """
        image = query_image(self._picture(query))
        with self._looking_with(model, "reconstruct") as embedder:
            return embedder.reconstruct(image, mask_ratio=mask_ratio, seed=seed, mask=mask)

    def inspect(self, query: Query | int, *, model: str | None = None) -> Inspection:
        """What the model computes for a whole picture: tokens after each layer, attention, shares of patches.

        `vitmae_search.inspection` makes maps and colors of it. The model is chosen as for `reconstruct`.

        Args:
            query: As for `reconstruct`.
            model: As for `reconstruct`.

        Raises:
            PhotoError: The picture cannot be read or decoded.
            InspectionError: The model's plugin does not show its inside.
            PluginError: The plugin is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there, was lost, or lacks memory.

        Examples:
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> from vitmae_search.inspection import attention_map, mean_attention
            >>> with Library.open("a-new-folder") as library:
            ...     made = library.inspect(Image.new("RGB", (64, 64), "red"))
            >>> made.tokens.shape, attention_map(made, mean_attention(made, layer=12)).shape
            ((13, 65, 192), (8, 8))
        """
        current = self._current_space_or_none()
        with self._looking_with(model, "inspect") as embedder:
            return self._inspect(query, embedder, DEFAULT_DECODE if current is None else current.decode)

    def explain(
        self,
        query: Query | int,
        hit: Query | int,
        *,
        space: int | None = None,
        layer: int | None = None,
        model: str | None = None,
    ) -> MatchExplanation:
        """Why two pictures match: what each patch adds to the score, and which patches correspond.

        Args:
            query: The picture that was searched for, as for `reconstruct`.
            hit: The other one.
            space: The id of the space whose score it is. None is the selected one, else the current one.
            layer: Whose patches are compared, 0 to the model's depth; None for the last.
            model: As for `reconstruct`; the score is then that of its vectors, with its own projection if it
                has one. Nothing need be indexed with it.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space, or its model has changed since.
            PhotoError: A picture cannot be read or decoded.
            InspectionError: The model's plugin does not show its inside, or it has no such layer.
            PluginError: The plugin is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there, was lost, or lacks memory.
        """
        searched = None if model is not None else self._space_or_model(space)
        if searched is None:
            with self._looking_with(model, "inspect") as named:
                projection = named.own_projection()
                one, two = (self._inspect(each, named, DEFAULT_DECODE) for each in (query, hit))
            return explain_match(one, two, () if projection is None else projection.maps, layer)
        embedder = self._embedders.for_space(self._catalog().space(searched.features_id))
        maps = () if searched.projection is None else self._spaces.read_projection(searched).maps
        one, two = (self._inspect(each, embedder, searched.decode) for each in (query, hit))
        return explain_match(one, two, maps, layer)

    def explain_region(
        self,
        query: Query | int,
        box: Box | Sequence[float],
        hit: Query | int,
        *,
        space: int | None = None,
        among: int = 200,
    ) -> RegionExplanation:
        """Why a photo is found for a part of a picture: what each patch adds to the score of `search_region`.

        Args:
            query: The picture, as for `search_region`.
            box: The part, as for `search_region`.
            hit: The photo of the library, by its path or id.
            space: As for `search_region`.
            among: As for `search_region`: the score depends on which photos it is compared with.

        Raises:
            LibraryError: The box is no part of the picture, or the library has no such photo.
            InspectionError: The model's plugin does not compare patches.
            VitmaeSearchError: As for `search`.
        """
        photo = self._own_photo(hit)
        if photo is None:
            raise LibraryError("a part is explained for a photo of the library; name one by its path or id")
        source, vectors, own, search = self._region_search(query, self._search(space))
        image, size = query_picture(source, QUERY_SIDE)
        return search.explain(
            image,
            read_box(box, size),
            vectors.as_it_is,
            photo,
            without=set() if own is None else {own},
            among=among,
        )

    def space_statistics(
        self,
        space: SpaceChoice = None,
        *,
        k: int = 10,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> SpaceStatistics:
        """A space as a whole: distances of neighbours, hubs, and in how many directions vectors differ.

        Of more than 10,000 photos the neighbours of 5,000 drawn at random are looked for, among all.

        Args:
            space: The id of the space. None is the selected one, else the current one; "features" are the
                current space's features, "whitened" these whitened, as `adapt` with whitening does it.
            k: How many neighbours of each photo count, 1 or more.
            on_progress: Called with how many photos are done, and of how many.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            SpaceError: There is no such space, or its features cannot be whitened.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> for color in ("red", "tomato", "blue", "navy"):
            ...     Image.new("RGB", (64, 48), color).save(photos / f"{color}.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     found = library.space_statistics(k=1)
            >>> found.photos, int(found.occurrences.sum()), found.distances.shape
            (4, 4, (1, 5))
            >>> temporary.cleanup()
        """
        compared = self._compared(space, k, on_progress)
        norms = self._space_inspector.norms(self._catalog(), compared, self._projection_of(compared))
        return space_statistics(self._catalog(), compared, norms)

    def neighbourhood(
        self,
        query: Query | int,
        *,
        space: SpaceChoice = None,
        k: int = 10,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Neighbourhood:
        """A photo among its neighbours: how far they are beside what is usual, and who has it as a neighbour.

        Args:
            query: A file's path, a file's bytes, a PIL image, or the id of a photo of the library. One whose
                content the library has is that photo, and not a neighbour of itself.
            space: As for `space_statistics`.
            k: How many neighbours count, 1 or more.
            on_progress: As for `space_statistics`; only the first question about a space takes long.

        Raises:
            VitmaeSearchError: As for `space_statistics` and `search`.
        """
        compared = self._compared(space, k, on_progress)
        photo, vector = self._place_among(query, compared)
        return neighbourhood(self._catalog(), compared, photo, vector)

    def compare_neighbours(
        self,
        query: Query | int,
        before: SpaceChoice = "features",
        after: SpaceChoice = None,
        *,
        k: int = 10,
        views: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> NeighbourChange:
        """The neighbours of a photo in two spaces, such as before and after `adapt`.

        Args:
            query: As for `neighbourhood`.
            before: The one space, as for `space_statistics`.
            after: The other one.
            k: How many neighbours count, 1 or more.
            views: Search for changed copies of the photo, too (crops, turns, a screenshot): does it come
                first? For photos of the library, in two spaces of the same features; where they cannot be
                tried, `without_views` says why.
            on_progress: As for `space_statistics`.

        Raises:
            VitmaeSearchError: As for `space_statistics` and `search`.
        """
        spaces = [self._compared(each, k, on_progress) for each in (before, after)]
        places = [self._place_among(query, each) for each in spaces]
        photo = next((found for found, _ in places if found is not None), None)
        vectors = [vector for _, vector in places]
        catalog, open_embedder = self._catalog(), self._embedders.for_space
        tried, amiss = (
            try_views(catalog, spaces, photo, open_embedder, self._projection_of) if views else ([], "")
        )
        return neighbour_change(catalog, spaces, photo, vectors, tried, amiss)

    # Evaluate

    def evaluate(
        self,
        folder: str | os.PathLike[str],
        *,
        labels: str | os.PathLike[str] | None = None,
        instances: int = 1000,
        limit: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        variants: bool = True,
        on_progress: Callable[[JobProgress], None] | None = None,
    ) -> Evaluation:
        """Measure how good searches are on a folder of photos, with what `index` would embed with now.

        The photos need not be in the library, which is not written to.

        Args:
            folder: The photos; the first folder below it is a photo's class.
            labels: A CSV file with the columns path and label, in place of folders as classes.
            instances: How many photos are changed and looked for, at most; 0 measures classes alone.
            limit: Draw so many of the photos. None takes all.
            seed: What is drawn.
            batch_size: Photos embedded at once. None is what suits the model.
            variants: Search for changed photos as `search` does, without their borders and turned.
            on_progress: Called at each step.

        Returns:
            The scores of the model and of simple baselines, each with its 95 % interval.

        Raises:
            EvaluationError: Nothing can be measured on these photos.
            LabelsError: The CSV file is wrong.
            PluginError: The embedder is not there or does not work.
            ModelError: The model cannot be loaded.
            DeviceError: The device is not there, was lost, or lacks memory.
        """
        from vitmae_search.library.evaluation import Candidate, evaluate_folder

        selected = self._spaces.resolve(self._selection, self._catalog_or_none())
        return evaluate_folder(
            folder,
            [Candidate.of(selected.embedder, selected.projection)],
            labels=labels,
            instances=instances,
            limit=limit,
            decode=selected.decode,
            batch_size=batch_size,
            variants=variants,
            seed=seed,
            host=self._embedders.host,
            on_progress=on_progress,
        )

    # Plugins and models

    def plugins(self) -> list[PluginListing]:
        """Every plugin that was found, broken ones with their error."""
        return self._embedders.host.listings()

    def models(self) -> list[ModelListing]:
        """Every model that a plugin can name, with its speed where `measure_models` measured it."""
        return with_speeds(self._embedders.models())

    def measure_models(self, on_model: Callable[[str], None] | None = None) -> list[ModelListing]:
        """As `models`, but first measure how fast each one on this machine embeds, and store the figure.

        Each takes a few seconds, on the library's device and in its precision.

        Args:
            on_model: Called with each model's name before it is measured.

        Returns:
            The models; one that could not be opened says why in its note.

        Raises:
            DeviceError: None could be measured, because of the device.
        """
        return measure_models(self._embedders, on_model)

    # Maintenance

    def check(self, *, repair: bool = False) -> CheckReport:
        """Look for damage in the catalogue, projections and index files; with `repair`, mend what can be.

        Raises:
            LibraryEmpty: Nothing is indexed yet.
            LibraryDamaged: The catalogue cannot be read at all.
            LibraryBusy: Another process writes to the library, and there is something to mend.
        """
        from vitmae_search.library.check import check_library

        return check_library(self._catalog(), self._vectors, self._spaces, repair=repair)

    def prune(self, expected: int | None = None) -> RemovalReport:
        """Remove missing photos from the library, with their vectors and thumbnails.

        Photos of a folder that is offline are not missing, and stay. A photo that comes back later is new.

        Args:
            expected: How many there may be at most; None for any number.

        Raises:
            LibraryError: More photos are missing than expected. Nothing is removed.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
            StorageError: The library's folder cannot be written.
        """
        from vitmae_search.library.removal import prune_missing

        self._catalog()
        with CatalogWriter.open_writer(self.folder, self._address) as catalog:
            return prune_missing(catalog, self._vectors, self.thumbnails, expected)

    def forget(self, folder: str | os.PathLike[str]) -> RemovalReport:
        """Remove a folder from the library: its photos, their vectors and thumbnails. No file is touched.

        The folder need not be there. If it lies in another one that is indexed, the next `index` of that one
        adds its photos again, unless they are excluded.

        Raises:
            LibraryError: The library knows nothing in this folder.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
            StorageError: The library's folder cannot be written.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from PIL import Image
            >>> from vitmae_search import Library
            >>> temporary = tempfile.TemporaryDirectory()
            >>> photos = Path(temporary.name) / "photos"
            >>> photos.mkdir()
            >>> Image.new("RGB", (64, 48), "red").save(photos / "red.png")
            >>> with Library.open(Path(temporary.name) / "library", embedder="color_layout") as library:
            ...     report = library.index(photos)
            ...     library.forget(photos)
            RemovalReport(photos=1, vectors=1, thumbnails=1)
            >>> (photos / "red.png").exists()
            True
            >>> temporary.cleanup()
        """
        from vitmae_search.library.removal import forget_folder

        self._catalog()
        with CatalogWriter.open_writer(self.folder, self._address) as catalog:
            return forget_folder(catalog, self._vectors, self.thumbnails, _absolute(folder))

    def relocate(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> int:
        """Tell the library that a folder has another path now, such as a drive under another name.

        Photos keep their ids, vectors, tags and marks, and no file is read. The next `index` of the new
        folder says what has changed in it.

        Args:
            old: The folder's path as it was.
            new: Its path now; the folder has to be there.

        Returns:
            How many photos were relocated.

        Raises:
            LibraryError: The library knows nothing in `old`, or something in `new`; `new` is no folder; or
                one is inside the other.
            LibraryEmpty: Nothing is indexed yet.
            LibraryBusy: Another process writes to the library.
        """
        before, now = absolute_path(old), _absolute(new)
        _require_folder(now)
        with self._writer() as catalog:
            relocated = catalog.relocate(before, now)
        if relocated is None:
            raise LibraryError(
                f"nothing in {display_path(before)} is in the library; `vitmae-search status` lists its "
                "folders"
            )
        self._refresh_filters()
        return relocated

    def preload(self, *, model: bool = False) -> None:
        """Open the vector index that the first search would, and with `model` load and run the model once.

        Does nothing in an empty library. Raises what `search` raises.
        """
        if self._current_space_or_none() is None:
            return
        space = self._space(None)
        self._vector_index(space)
        if model:
            embed_images([Image.new("RGB", (64, 64))], self._spaces.embedder(self._catalog(), space))

    def offload(self, *, after: float = 0.0) -> int:
        """Move open models out of their device's memory until they are next used.

        Args:
            after: Only those that were not used for so many seconds.

        Returns:
            How many were offloaded. A model at work, or whose plugin cannot offload, stays.
        """
        return self._embedders.offload(after=after) + self._named_models.offload(after=after)

    # Helpers

    def copy_catalog(self) -> dict[str, int]:
        """Copy the catalogue from the library's file into the database that the library was opened with.

        The database has to be empty. All keep their ids, and no photo is read. The file stays as it is.

        Returns:
            How many rows each table has, by its name ("photos", "embeddings", "tags", "marks").

        Raises:
            LibraryError: The library was opened without `catalog`, or the database has a catalogue.
            LibraryEmpty: The library's folder has no catalogue.
            LibraryBusy: Another process writes to the file.
            StorageError: The server does not answer.
        """
        if self._address is None:
            raise LibraryError("name the empty database to copy to: --catalog postgresql://HOST/DATABASE")
        Catalog.open(self.folder).close()
        with CatalogWriter.open_writer(self.folder) as catalog:
            return catalog.copy_to(self._address)

    def _writer(self) -> CatalogWriter:
        """The catalogue for writing, of a library that is there."""
        self._catalog()
        return CatalogWriter.open_writer(self.folder, self._address)

    def _catalog(self) -> Catalog:
        """The catalogue for reading, opened anew where its file was replaced. Raises `LibraryEmpty`."""
        with self._lock:
            if self._reader is not None and self._reader.replaced:
                replaced, self._reader = self._reader, None
                replaced.close()
                self._vectors = self._vectors.reopened()
                self._maps = self._map_files()
            if self._reader is None:
                self._reader = Catalog.open(self.folder, self._address)
            return self._reader

    def _catalog_or_none(self) -> Catalog | None:
        try:
            return self._catalog()
        except LibraryEmpty:
            return None

    def _shared_values(self) -> SharedValues | None:
        catalog = None if self._address is None else self._catalog_or_none()
        return None if catalog is None else catalog.shared_values

    def _picture(self, query: Query | int) -> Query:
        """A picture to decode; an id is that of a photo of the library."""
        return require_file(self._photo(query).path) if isinstance(query, int) else query

    @contextmanager
    def _looking_with(self, model: str | None, capability: str) -> Iterator[GuardedEmbedder]:
        """The embedder to reconstruct with, or to inspect; None is the library's."""
        if model is not None:
            with self._named_models.opened(model) as named:
                yield named
            return
        current = self._current_space_or_none()
        yield self._embedders.with_capability(capability, self._selection, current)

    def _inspect(self, query: Query | int, embedder: GuardedEmbedder, decode: str) -> Inspection:
        shrink_to = decode_target(decode, embedder.input_size)
        return embedder.inspect(query_image(self._picture(query), shrink_to))

    def _space(self, space_id: int | None) -> Space:
        """The space with this id; None is the selected one, else the current one."""
        catalog = self._catalog()
        if space_id is not None:
            return catalog.space(space_id)
        selected = self._spaces.selected(self._selection, catalog) or catalog.current_space()
        if selected is None:
            raise LibraryEmpty("nothing is indexed yet; begin with `vitmae-search index FOLDER`")
        return selected

    def _space_or_model(self, space_id: int | None) -> Space | None:
        """As `_space`; None where a model was selected with which nothing is indexed."""
        try:
            return self._space(space_id)
        except (LibraryEmpty, SpaceError):
            if space_id is None and self._selection.explicit and self._selection.projection is None:
                return None
            raise

    def _current_space_or_none(self) -> Space | None:
        catalog = self._catalog_or_none()
        return catalog.current_space() if catalog else None

    def _photo(self, photo_id: int) -> Photo:
        return require_photo(self._catalog(), photo_id)

    def _search(self, space: Space | int | None) -> PictureSearch:
        """A search that begins now, in a space or in the one with this id, as for `_space`."""
        started = time.perf_counter()
        catalog, searched = self._catalog(), space if isinstance(space, Space) else self._space(space)
        return PictureSearch(
            catalog, searched, self._spaces, self._vector_index, self._query_cache, self.thumbnails, started
        )

    def _compared(
        self, choice: SpaceChoice, k: int, on_progress: Callable[[int, int], None]
    ) -> ComparedSpace:
        """All vectors of the chosen space, with neighbours."""
        catalog, space = self._catalog(), self._space(None if isinstance(choice, str) else choice)
        if isinstance(choice, str):
            space = catalog.space(space.features_id)
        return self._space_inspector.compare(
            catalog, space, k, whitened=choice == "whitened", on_progress=on_progress
        )

    def _own_photo(self, query: Query | int) -> Photo | None:
        """The photo of the library that a query is; None for another picture."""
        if isinstance(query, str | os.PathLike):
            query = self._catalog().photo_ids_at([path := _absolute(query)]).get(path, query)
        return self._photo(query) if isinstance(query, int) else None

    def _place_among(self, query: Query | int, compared: ComparedSpace) -> tuple[Photo | None, Vector]:
        """The photo with a picture's content, if there is one, and its vector, whitened if those are."""
        search, photo = self._search(compared.space), self._own_photo(query)
        if photo is not None:
            vector = search.stored_vector(photo)
        else:
            assert not isinstance(query, int)  # `_own_photo` knows it
            vectors = search.query_vectors(query)
            known = [] if vectors.content_id is None else self._catalog().copies(vectors.content_id)
            photo, vector = next(iter(known), None), vectors.as_it_is()
        return photo, vector if compared.projection is None else compared.projection(vector[None])[0]

    def _projection_of(self, compared: ComparedSpace) -> Projection | None:
        """What makes a space's vectors of its features."""
        if compared.projection is not None:
            return compared.projection
        derived = compared.space.projection is not None
        return self._spaces.read_projection(compared.space) if derived else None

    def _region_search(
        self, picture: Query | int, asked: PictureSearch
    ) -> tuple[Query, QueryVectors, int | None, RegionSearch]:
        """A picture, its vectors, its own content if it is in the library, and what searches by a part."""
        catalog, space, source = asked.catalog, asked.space, self._picture(picture)
        vectors = asked.query_vectors(source)
        search = RegionSearch(
            catalog,
            self._vector_index(space),
            space,
            lambda: self._spaces.embedder(catalog, space),
            lambda: self._embedders.for_space(catalog.space(space.features_id)),
            self.thumbnail,
            self._token_cache,
        )
        own = self._photo(picture).content_id if isinstance(picture, int) else vectors.content_id
        return source, vectors, own, search

    def _refresh_filters(self) -> None:
        """Let a vector database filter by what changed; files do not filter."""
        space = None if isinstance(self._vectors, VectorCache) else self._current_space_or_none()
        if space is not None:
            self._vectors.save(self._catalog().vector_source(space.space_id))

    def _map_files(self) -> MapCache:
        """The maps, which are laid out from files of vectors on this machine."""
        store = self._vectors
        return MapCache(store if isinstance(store, VectorCache) else VectorCache(self.folder / "vectors"))

    def _vector_index(self, space: Space) -> VectorIndex:
        return self._vectors.open(self._catalog().vector_source(space.space_id))


def _valid_name(name: str) -> str:
    """A name that a person gave: one line that can be stored and shown. Raises `LibraryError`."""
    text = name.encode("utf-8", "replace").decode("utf-8")
    text = " ".join(_CONTROL_CHARACTERS.sub(" ", text).split())
    if not 0 < len(text) <= LONGEST_NAME:
        raise LibraryError(f"a name has 1 to {LONGEST_NAME} characters")
    return text


def _listed(
    folders: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
) -> Sequence[str | os.PathLike[str]]:
    return [folders] if isinstance(folders, str | os.PathLike) else folders


def _require_folder(path: str) -> None:
    """Raise `LibraryError` where there is no such folder, or none that can be looked into."""
    files = file_system(path)
    if not files.is_folder(path):
        reason = files.why_no_folder(path) if is_address(path) else "is not a folder on this machine"
        raise LibraryError(f"{display_path(path)} {reason}")


def _absolute(path: str | os.PathLike[str]) -> str:
    return path_on_disk(absolute_path(path))
