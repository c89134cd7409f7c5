"""Which space a choice means, to index in and to search in, and how one is derived from another.

The projections of a library's derived spaces: files in a folder of it, read when they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vitmae_search.catalog import Catalog, CatalogWriter, Derivation
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
    ModelError,
    PluginError,
    PluginOptionError,
    SpaceError,
    StorageError,
    VitmaeSearchError,
    display_path,
)
from vitmae_search.indexing import Target
from vitmae_search.library.embedders import (
    DEFAULT_DECODE,
    DEFAULT_PLUGIN,
    EmbedderChoice,
    Embedders,
    KnownEmbedder,
    made_features,
    space_fingerprint,
)
from vitmae_search.records import Space


class Projections:
    """The folder `<library>/projections/`, whose files are named by their digest. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, Projection] = {}

    def of(self, space: Space) -> Projection:
        """The projection of a derived space. Raises `SpaceError` where its file is missing or damaged."""
        digest = space.projection
        assert digest is not None
        if digest not in self._read:
            try:
                self._read[digest] = Projection.stored(self.folder, digest)
            except ModelError as error:
                raise SpaceError(
                    f"Space {space.space_id} lacks its projection: {error} `vitmae-search check --repair` "
                    "restores one that came with the model; else put the file back, or "
                    f"`vitmae-search spaces drop {space.space_id}`."
                ) from error
        return self._read[digest]

    def keep(self, projection: Projection) -> None:
        """Store it, in place of a damaged one. Raises `StorageError`."""
        try:
            projection.store(self.folder)
        except OSError as error:
            folder = display_path(self.folder)
            raise StorageError(f"{folder}: a projection cannot be written: {error.strerror}.") from error
        self._read[projection.digest] = projection

    def discard(self, digest: str) -> None:
        """Delete its file, if that can be done."""
        self._read.pop(digest, None)
        with suppress(OSError):
            projection_path(self.folder, digest).unlink()


_LEFT = "left_options"
"""In a space's provenance: the options that left a choice to the embedder, where there were any."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a choice means to embed with: a model, how photos are decoded for it, and what comes after it.

    `space` is the library's space of these features, None where it has none.
    """

    known: KnownEmbedder
    decode: str
    fingerprint: str
    projection: Projection | None
    space: Space | None

    @property
    def embedder(self) -> GuardedEmbedder:
        """The model, which is loaded if it is not open yet."""
        return self.known.open()


class Spaces:
    """Puts a library's embedders, projections and spaces together."""

    def __init__(self, embedders: Embedders, projections: Projections) -> None:
        self._embedders, self._projections = embedders, projections

    def target(self, choice: EmbedderChoice, catalog: CatalogWriter) -> Target:
        """What `index` embeds with, and its spaces, made if they are new."""
        wanted = self.features(choice, catalog)
        # A new space tells how it came about, from the embedder itself.
        embedder = wanted.known.description if wanted.space else wanted.embedder.description
        derivation = None
        provenance = dict(embedder.provenance)
        if embedder.unresolved_options:
            provenance[_LEFT] = embedder.unresolved_options
        if wanted.projection is not None:
            derivation = self._derivation(wanted.fingerprint, embedder.dimension, wanted.projection)
        searched = catalog.ensure_space(
            fingerprint=wanted.fingerprint,
            plugin=embedder.info.name,
            model=embedder.model,
            dimension=embedder.dimension,
            decode=wanted.decode,
            options=embedder.options,
            identity=embedder.identity,
            provenance=provenance,
            derivation=derivation,
        )
        derived = catalog.derived_spaces(searched.features_id)
        projections = [self._projections.of(space) for space in derived]
        features = catalog.space(searched.features_id)
        return Target(wanted.known.open, features, searched, {one.digest: one for one in projections})

    def features(self, choice: EmbedderChoice, catalog: Catalog | None) -> Features:
        """What `index` would embed with now; nothing is made. None is a library that is not there yet."""
        current = None if catalog is None else catalog.current_space()
        known, decode = self._wanted_embedder(choice, current, catalog)
        fingerprint = space_fingerprint(known.description, decode)
        space = None if catalog is None else catalog.space_of(fingerprint)
        projection = self._wanted_projection(choice, current, known.description, space)
        return Features(known, decode, fingerprint, projection, space)

    def derive(
        self, catalog: CatalogWriter, features: Space, projection: Projection, *, use: bool = False
    ) -> Space:
        """The space that the projection makes of `features`; see `CatalogWriter.derive_space`."""
        derivation = self._derivation(features.fingerprint, features.dimension, projection)
        return catalog.derive_space(features.space_id, derivation, use=use)

    def chosen(self, choice: EmbedderChoice, catalog: Catalog) -> Space | None:
        """The newest space that fits a choice; None without one. Raises `SpaceError`."""
        spaces, current = catalog.spaces(), catalog.current_space()
        if choice.explicit:
            fitting = [space for space in spaces if self._fits(choice, space)]
            if spaces and not fitting:
                # The weights may have another name by now, or the options change no vector.
                fitting = self._of_same_making(choice, current, spaces)
        elif choice.projection is not None and current is not None:
            fitting = [space for space in spaces if space.features_id == current.features_id]
        else:
            return None
        if choice.projection is not None:
            fitting = [space for space in fitting if space.projection == choice.digest]
        if spaces and not fitting:
            raise SpaceError(
                "nothing is indexed with this model, these options and this projection yet; "
                "run `index` with them"
            )
        return max(fitting, key=lambda space: space.space_id, default=None)

    def embedder(self, catalog: Catalog, space: Space) -> GuardedEmbedder | ProjectedEmbedder:
        """What makes the vectors of a space, a derived one too. Raises `SpaceError` where it cannot."""
        projection = None if space.projection is None else self._projections.of(space)
        embedder = self._embedders.of_space(catalog.space(space.features_id))
        return embedder if projection is None else ProjectedEmbedder(embedder, projection)

    def own_projection(self, features: Space) -> Projection:
        """The projection that came with the model that made the features; nothing is embedded.

        Raises `SpaceError` where it has none, and what opening the model raises.
        """
        found = self._embedders.known_of_space(features).description.own_projection()
        if found is None:
            own = f"the model {features.model!r} has no projection of its own for these features"
            raise SpaceError(f"{own}; name a file, or index with a model that has one")
        return found

    def read_projection(self, space: Space) -> Projection:
        """The projection of a derived space as its file has it now. Raises `SpaceError`."""
        return Projections(self._projections.folder).of(space)

    def restore_projection(self, catalog: Catalog, space: Space) -> Projection | None:
        """Store the projection of a derived space again; None where it is not its model's own."""
        try:
            own = self.own_projection(catalog.space(space.features_id))
        except VitmaeSearchError:
            return None
        if own.digest != space.projection:
            return None
        self._projections.keep(own)
        return own

    def _wanted_embedder(
        self, choice: EmbedderChoice, current: Space | None, catalog: Catalog | None
    ) -> tuple[KnownEmbedder, str]:
        """What was asked for, and how photos are decoded for it; else what goes on with the current space.

        Where the model of that has changed, what had been left to it is left to it again.
        """
        if current is None or catalog is None or choice.explicit:
            plugin, options, decode = _wanted(choice, current)
            return self._embedders.known(plugin, options), decode
        features = catalog.space(current.features_id)
        try:
            return self._embedders.known_of_space(features), features.decode
        except (SpaceError, PluginOptionError):
            left = cast(Mapping[str, object], features.provenance.get(_LEFT, {}))
            return self._embedders.known(features.plugin, {**features.options, **left}), features.decode

    def _derivation(self, features: str, dimension: int, projection: Projection) -> Derivation:
        """How the projection makes a space of those features. It is kept first: a space is never without."""
        projection.check_fits(dimension)
        self._projections.keep(projection)
        return Derivation(
            derived_fingerprint(features, projection.digest),
            projection.digest,
            projection,
            projection.dimension,
            derived_identity(features, projection.digest),
            {**projection.provenance, "kind": projection.kind},
        )

    def _wanted_projection(
        self,
        choice: EmbedderChoice,
        current: Space | None,
        embedder: EmbedderDescription,
        features: Space | None,
    ) -> Projection | None:
        """The one that was asked for; else the current space's, for its features; else the model's own."""
        if choice.projection is not None:
            return choice.projection if isinstance(choice.projection, Projection) else None
        if current is None or choice.explicit:
            return embedder.own_projection()
        if features is None or features.space_id != current.features_id:  # the model has changed
            return embedder.own_projection()
        return None if current.projection is None else self._projections.of(current)

    def _fits(self, choice: EmbedderChoice, space: Space) -> bool:
        named = choice.plugin or (DEFAULT_PLUGIN if choice.model else None)
        if named not in (None, space.plugin) or choice.decode not in (None, space.decode):
            return False
        try:
            wanted = self._embedders.resolved(space.plugin, choice.all_options())
        except PluginError:
            return False
        return all(space.options.get(key) == wanted[key] for key in choice.all_options())

    def _of_same_making(
        self, choice: EmbedderChoice, current: Space | None, spaces: Sequence[Space]
    ) -> list[Space]:
        plugin, options, _ = _wanted(choice, current)
        alike = [s for s in spaces if s.plugin == plugin and choice.decode in (None, s.decode)]
        if not alike:
            return []
        embedder = self._embedders.known(plugin, options).description
        made = {s.space_id for s in alike if s.parent_id is None and made_features(embedder, s)}
        return [space for space in alike if space.features_id in made]


def _wanted(choice: EmbedderChoice, current: Space | None) -> tuple[str, dict[str, object], str]:
    """Plugin, options and decode mode to index with.

    A plugin or model that was named begins from that plugin's defaults; anything else from the current
    space, so that `-o` and `--decode` alone change only what they say.
    """
    if current is None or choice.plugin or choice.model:
        return choice.plugin or DEFAULT_PLUGIN, choice.all_options(), choice.decode or DEFAULT_DECODE
    return current.plugin, {**current.options, **choice.all_options()}, choice.decode or current.decode
