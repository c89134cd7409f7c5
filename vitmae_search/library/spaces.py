"""A library's embedding spaces: which one a selection means, and how one is derived from another.

A space of features holds what an embedder gives. A derived space holds a projection of another one's
features; the projection's file lies in the library's folder. `Spaces` puts embedders, projections and the
catalogue's spaces together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from vitmae_search.atomic import write_atomically
from vitmae_search.catalog import Catalog, CatalogWriter, Derivation, SharedValues
from vitmae_search.embedding import (
    EmbedderDescription,
    GuardedEmbedder,
    ProjectedEmbedder,
    Projection,
    derived_fingerprint,
    derived_identity,
    projection_path,
)
from vitmae_search.errors import (
    LibraryDenied,
    ModelError,
    NoText,
    PluginError,
    PluginOptionError,
    SpaceError,
    StorageError,
    VitmaeSearchError,
    display_path,
)
from vitmae_search.library.embedders import (
    DEFAULT_DECODE,
    DEFAULT_PLUGIN,
    Embedders,
    EmbedderSelection,
    LazyEmbedder,
    made_features,
    space_fingerprint,
)
from vitmae_search.records import Space

if TYPE_CHECKING:
    from vitmae_search.indexing import IndexTarget

UNRESOLVED_OPTIONS: Final = "unresolved_options"
"""In a space's provenance: the options whose values the embedder chose itself, as they were given."""
_EARLIER_UNRESOLVED_OPTIONS: Final = "left_options"
"""Its name in libraries that were made before it was called so."""


_SHARED_PROJECTION = "projection/"


class ProjectionFiles:
    """The folder `<library>/projections/`, whose files are named by their digest. Thread-safe.

    Where the catalogue is on a server it has them too, for the folders of other machines.
    """

    def __init__(self, folder: Path, shared: Callable[[], SharedValues | None] = lambda: None) -> None:
        """Nothing is read yet.

        Args:
            folder: The folder.
            shared: Gives what processes with the same catalogue share.
        """
        self.folder, self.shared = folder, shared
        self._read: dict[str, Projection] = {}
        self._compared: set[str] = set()

    def of(self, space: Space) -> Projection:
        """The projection of a derived space.

        Raises:
            SpaceError: Its file is missing or damaged.
        """
        digest = space.projection
        assert digest is not None
        if digest not in self._read:
            try:
                self._fetch(digest)
                self._read[digest] = Projection.read_stored(self.folder, digest)
                self._share(digest)
            except ModelError as error:
                raise SpaceError(
                    f"Space {space.space_id} lacks its projection: {error} `vitmae-search check --repair` "
                    "restores one that came with the model; else put the file back, or "
                    f"`vitmae-search spaces drop {space.space_id}`."
                ) from error
        return self._read[digest]

    def store(self, projection: Projection) -> None:
        """Write a projection's file, in place of a damaged one.

        Raises:
            StorageError: It cannot be written.
        """
        try:
            projection.store(self.folder)
        except OSError as error:
            folder = display_path(self.folder)
            raise StorageError(f"{folder}: a projection cannot be written: {error.strerror}.") from error
        self._share(projection.digest)
        self._read[projection.digest] = projection

    def with_turns(self, projection: Projection, own: Callable[[], Projection | None]) -> Projection:
        """A projection with the turns of the model's own one, if they are the same and it has none yet.

        Args:
            projection: One that was read here.
            own: Reads the one that came with the model; called once for each projection.
        """
        if projection.digest not in self._compared:
            self._compared.add(projection.digest)
            with suppress(ModelError, OSError):
                found = own()
                if found is not None and found.digest == projection.digest and found.turns is not None:
                    self._read[projection.digest] = replace(projection, turns=found.turns)
        return self._read.get(projection.digest, projection)

    def discard(self, digest: str) -> None:
        """Delete a projection's file, if that can be done."""
        self._read.pop(digest, None)
        with suppress(OSError):
            projection_path(self.folder, digest).unlink()
        shared = self.shared()
        if shared is not None:
            shared.delete(_SHARED_PROJECTION + digest)

    def _fetch(self, digest: str) -> None:
        """Write a file that another machine made, where this one has none yet."""
        path, shared = projection_path(self.folder, digest), self.shared()
        found = None if shared is None or path.exists() else shared.get(_SHARED_PROJECTION + digest)
        if found is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with write_atomically(path) as stream:
                stream.write(found.data)
        except OSError as error:
            raise StorageError(f"{display_path(path)} cannot be written: {error.strerror}.") from error

    def _share(self, digest: str) -> None:
        shared = self.shared()
        if shared is not None:
            with suppress(LibraryDenied):  # who may only read needs it here alone
                shared.put_if_absent(
                    _SHARED_PROJECTION + digest, projection_path(self.folder, digest).read_bytes()
                )


@dataclass(frozen=True, slots=True)
class ResolvedSelection:
    """What a selection means to embed with in this library.

    Attributes:
        lazy: The embedder, which need not be open.
        decode: How photos are decoded for it, "scaled" or "exact".
        fingerprint: That of the space of its features.
        projection: The projection applied to its features, or None.
        space: The library's space of these features, None where it has none yet.
    """

    lazy: LazyEmbedder
    decode: str
    fingerprint: str
    projection: Projection | None
    space: Space | None

    @property
    def embedder(self) -> GuardedEmbedder:
        """The embedder, which is loaded if it is not open yet."""
        return self.lazy.open()


class Spaces:
    """Resolves selections to embedders and spaces, and derives spaces by projections."""

    def __init__(self, embedders: Embedders, projections: ProjectionFiles) -> None:
        self._embedders, self._projections = embedders, projections

    def resolve(self, selection: EmbedderSelection, catalog: Catalog | None) -> ResolvedSelection:
        """What `index` would embed with now. Nothing is written.

        Args:
            selection: What was chosen; the current space fills in what it leaves open.
            catalog: The library's catalogue, None for a library that is not there yet.

        Raises:
            SpaceError: The current space's projection is missing or damaged.
            PluginError: The plugin is not there or does not work.
            ModelError: The model cannot be loaded.
        """
        current = None if catalog is None else catalog.current_space()
        lazy, decode = self._resolve_embedder(selection, current, catalog)
        fingerprint = space_fingerprint(lazy.description, decode)
        space = None if catalog is None else catalog.space_of(fingerprint)
        projection = self._resolve_projection(selection, current, lazy.description, space)
        return ResolvedSelection(lazy, decode, fingerprint, projection, space)

    def target(self, selection: EmbedderSelection, catalog: CatalogWriter) -> IndexTarget:
        """What `index` embeds with and writes to; its spaces are made if they are new.

        Args:
            selection: What was chosen to embed with.
            catalog: The library's catalogue.
        """
        from vitmae_search.indexing import IndexTarget

        resolved = self.resolve(selection, catalog)
        # A new space records the provenance of the embedder as it is opened now, not as it was cached.
        embedder = resolved.lazy.description if resolved.space else resolved.embedder.description
        derivation = None
        provenance = dict(embedder.provenance)
        if embedder.unresolved_options:
            provenance[UNRESOLVED_OPTIONS] = embedder.unresolved_options
        if embedder.knows_words:
            provenance["words"] = True
        if resolved.projection is not None:
            derivation = self._derivation(resolved.fingerprint, embedder.dimension, resolved.projection)
        searched = catalog.ensure_space(
            fingerprint=resolved.fingerprint,
            plugin=embedder.info.name,
            model=embedder.model,
            dimension=embedder.dimension,
            decode=resolved.decode,
            options=embedder.options,
            identity=embedder.identity,
            provenance=provenance,
            derivation=derivation,
        )
        derived = catalog.derived_spaces(searched.features_id)
        projections = [self._projections.of(space) for space in derived]
        features = catalog.space(searched.features_id)
        return IndexTarget(
            resolved.lazy.open,
            features,
            searched,
            {one.digest: one for one in projections},
            self._embedders.host.code_digest(embedder.info.name) or "",
        )

    def selected(self, selection: EmbedderSelection, catalog: Catalog) -> Space | None:
        """The newest space that a selection means to search in; None if it says nothing of spaces.

        Args:
            selection: What was chosen to search in.
            catalog: The library's catalogue.

        Raises:
            SpaceError: The library has spaces, but none that fits.
        """
        spaces, current = catalog.spaces(), catalog.current_space()
        if selection.explicit:
            fitting = [space for space in spaces if self._fits(selection, space)]
            if spaces and not fitting:
                # The weights may have another name by now, or the options may not matter for the vectors.
                fitting = self._made_by(selection, current, spaces)
        elif selection.projection is not None and current is not None:
            fitting = [space for space in spaces if space.features_id == current.features_id]
        else:
            return None
        if selection.projection is not None:
            fitting = [space for space in fitting if space.projection == selection.digest]
        if spaces and not fitting:
            raise SpaceError(
                "nothing is indexed with this model, these options and this projection yet; "
                "run `index` with them"
            )
        return max(fitting, key=lambda space: space.space_id, default=None)

    def embedder(self, catalog: Catalog, space: Space) -> GuardedEmbedder | ProjectedEmbedder:
        """An embedder that makes the vectors of a space, a derived one too.

        Args:
            catalog: The library's catalogue.
            space: The space.

        Raises:
            SpaceError: The model has changed since, or the projection is missing or damaged.
        """
        if space.projection is None:
            return self._embedders.for_space(catalog.space(space.features_id))
        projection = self._projections.of(space)
        embedder = self._embedders.for_space(catalog.space(space.features_id))
        if projection.turns is None:
            projection = self._projections.with_turns(projection, embedder.own_projection)
        return ProjectedEmbedder(embedder, projection)

    def text_space(self, catalog: Catalog, space: Space) -> Space:
        """The space in which words are compared in place of another one: that of its features.

        Args:
            catalog: The library's catalogue.
            space: The space to search in.

        Raises:
            NoText: Its model does not know words. The message names what does.
        """
        features = catalog.space(space.features_id)
        if features.knows_words or self._embedders.lazy_for_space(features).description.knows_words:
            return features
        others = [other for other in catalog.spaces() if other.knows_words]
        there = (
            f"search in space {others[-1].space_id}, whose model does"
            if others
            else ("index with one that does, such as --model hub:openai/clip-vit-base-patch32")
        )
        raise NoText(f"the model {space.model!r} does not know words; {there}")

    def features_embedder(self, features: Space) -> GuardedEmbedder:
        """The embedder of a space of features.

        Raises:
            SpaceError: The model has changed since.
        """
        return self._embedders.for_space(features)

    def derive(
        self, catalog: CatalogWriter, features: Space, projection: Projection, *, use: bool = False
    ) -> Space:
        """The space that a projection makes of stored features; see `CatalogWriter.derive_space`.

        Args:
            catalog: The library's catalogue.
            features: A space of features.
            projection: The projection, whose file is written.
            use: Make the new space the current one.
        """
        derivation = self._derivation(features.fingerprint, features.dimension, projection)
        return catalog.derive_space(features.space_id, derivation, use=use)

    def own_projection(self, features: Space) -> Projection:
        """The projection that came with the model that made these features; nothing is embedded.

        Raises:
            SpaceError: The model has none.
        """
        found = self._embedders.lazy_for_space(features).description.own_projection()
        if found is None:
            own = f"the model {features.model!r} has no projection of its own for these features"
            raise SpaceError(f"{own}; name a file, or index with a model that has one")
        return found

    def read_projection(self, space: Space) -> Projection:
        """The projection of a derived space, read from its file anew.

        Raises:
            SpaceError: The file is missing or damaged.
        """
        return ProjectionFiles(self._projections.folder, self._projections.shared).of(space)

    def restore_projection(self, catalog: Catalog, space: Space) -> Projection | None:
        """Write the projection of a derived space again, from its model.

        Args:
            catalog: The library's catalogue.
            space: The derived space.

        Returns:
            The projection, or None where it did not come with the model.
        """
        try:
            own = self.own_projection(catalog.space(space.features_id))
        except VitmaeSearchError:
            return None
        if own.digest != space.projection:
            return None
        self._projections.store(own)
        return own

    def _resolve_embedder(
        self, selection: EmbedderSelection, current: Space | None, catalog: Catalog | None
    ) -> tuple[LazyEmbedder, str]:
        """The selected embedder and how photos are decoded for it; by default those of the current space.

        Where the current space's model has changed, the options that it chose itself are left to it again.
        """
        if current is None or catalog is None or selection.explicit:
            plugin, options, decode = _with_defaults(selection, current)
            return self._embedders.lazy(plugin, options), decode
        features = catalog.space(current.features_id)
        try:
            return self._embedders.lazy_for_space(features), features.decode
        except (SpaceError, PluginOptionError):
            options = {**features.options, **_unresolved_options(features)}
            return self._embedders.lazy(features.plugin, options), features.decode

    def _resolve_projection(
        self,
        selection: EmbedderSelection,
        current: Space | None,
        embedder: EmbedderDescription,
        features: Space | None,
    ) -> Projection | None:
        """The selected projection; else the current space's, for its features; else the model's own."""
        if selection.projection is not None:
            return selection.projection if isinstance(selection.projection, Projection) else None
        if current is None or selection.explicit:
            return embedder.own_projection()
        if features is None or features.space_id != current.features_id:  # the model has changed
            return embedder.own_projection()
        return None if current.projection is None else self._projections.of(current)

    def _derivation(self, features: str, dimension: int, projection: Projection) -> Derivation:
        """How the projection makes a space of the features with this fingerprint and dimension.

        Its file is written first, so that no space is ever without its projection.
        """
        projection.check_fits(dimension)
        self._projections.store(projection)
        provenance: dict[str, object] = {**projection.provenance, "kind": projection.kind}
        if projection.calibration is not None:
            provenance["calibration"] = asdict(projection.calibration)
        return Derivation(
            derived_fingerprint(features, projection.digest),
            projection.digest,
            projection,
            projection.dimension,
            derived_identity(features, projection.digest),
            provenance,
        )

    def _fits(self, selection: EmbedderSelection, space: Space) -> bool:
        """Whether the selection names the plugin, the decode mode and the options of a space."""
        named = selection.plugin or (DEFAULT_PLUGIN if selection.model else None)
        if named not in (None, space.plugin) or selection.decode not in (None, space.decode):
            return False
        try:
            wanted = self._embedders.resolve_options(space.plugin, selection.all_options())
        except PluginError:
            return False
        return all(space.options.get(key) == wanted[key] for key in selection.all_options())

    def _made_by(
        self, selection: EmbedderSelection, current: Space | None, spaces: Sequence[Space]
    ) -> list[Space]:
        """The spaces that the selected embedder made, whatever it was called then, and those derived."""
        plugin, options, _ = _with_defaults(selection, current)
        alike = [s for s in spaces if s.plugin == plugin and selection.decode in (None, s.decode)]
        if not alike:
            return []
        embedder = self._embedders.lazy(plugin, options).description
        made = {s.space_id for s in alike if s.parent_id is None and made_features(embedder, s)}
        return [space for space in alike if space.features_id in made]


def _with_defaults(selection: EmbedderSelection, current: Space | None) -> tuple[str, dict[str, object], str]:
    """Plugin, options and decode mode to index with.

    A selected plugin or model begins with that plugin's defaults; anything else with the current space's
    options, so that `-o` and `--decode` alone change only what they name.
    """
    options = selection.all_options()
    if current is None or selection.plugin or selection.model:
        return selection.plugin or DEFAULT_PLUGIN, options, selection.decode or DEFAULT_DECODE
    return current.plugin, {**current.options, **options}, selection.decode or current.decode


def _unresolved_options(space: Space) -> Mapping[str, object]:
    """The options of a space of features whose values its embedder chose, as they were given."""
    earlier = space.provenance.get(_EARLIER_UNRESOLVED_OPTIONS, {})
    return cast(Mapping[str, object], space.provenance.get(UNRESOLVED_OPTIONS, earlier))
