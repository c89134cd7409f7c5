"""The projections of a library's derived spaces: files in a folder of it, read when they are needed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from vitmae_search.embedding import Projection, projection_path
from vitmae_search.errors import ModelError, SpaceError, StorageError, display_path
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
