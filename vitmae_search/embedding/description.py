"""What is known of an embedder without embedding: enough to say which space its vectors belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitmae_search.embedding.fingerprint import fingerprint
from vitmae_search.embedding.options import OptionValue
from vitmae_search.embedding.plugin import PluginInfo
from vitmae_search.embedding.projection import Projection
from vitmae_search.errors import ModelError, display_path


@dataclass(frozen=True, slots=True)
class EmbedderDescription:
    """The attributes of a `GuardedEmbedder` that are plain values; see there."""

    info: PluginInfo
    model: str
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]
    dimension: int
    options: Mapping[str, OptionValue]
    left_options: Mapping[str, OptionValue]
    projection: str | None

    def fingerprint(self, decode: str) -> str:
        """The fingerprint of the space that its vectors of photos decoded in mode `decode` belong to."""
        return fingerprint(self.identity, self.info, decode)

    def own_projection(self) -> Projection | None:
        """The projection that belongs to the model; None where it has none.

        Raises, naming the file, `ModelNotFound`, `CheckpointError`, and `ModelError` for one that takes
        features of another length.
        """
        if self.projection is None:
            return None
        projection = Projection.read(self.projection)
        try:
            projection.check_fits(self.dimension)
        except ModelError as error:
            raise ModelError(f"{display_path(self.projection)}: {error}") from None
        return projection
