"""Fingerprints: one digest for everything that decides a vector, so that only comparable vectors are mixed.

`EmbedderDescription` is what is known of an embedder in plain values, enough to tell its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from vitmae_search.embedding.options import OptionValue
from vitmae_search.embedding.plugin import PluginInfo
from vitmae_search.embedding.projection import Projection
from vitmae_search.errors import ModelError, display_path


def fingerprint(identity: Mapping[str, object], info: PluginInfo, decode: str) -> str:
    """The fingerprint of an embedder's space: SHA-256 in hex.

    Args:
        identity: The embedder's, plain JSON (see `canonical_json`).
        info: Its plugin's; name and vector revision count.
        decode: How photos are decoded for it.

    Raises:
        TypeError: Where `identity` is not plain JSON.
        ValueError: Where a number in it is not finite.
    """
    space = {
        "plugin": info.name,
        "vector_revision": info.vector_revision,
        "identity": identity,
        "decode": decode,
    }
    return hashlib.sha256(canonical_json(space).encode("ascii")).hexdigest()


def derived_identity(features: str, projection: str) -> dict[str, str]:
    """What decides the vectors of a derived space.

    Args:
        features: The fingerprint of the space that the features are from.
        projection: The digest of the projection.
    """
    return {"features": features, "projection": projection}


def derived_fingerprint(features: str, projection: str) -> str:
    """The fingerprint of a derived space: SHA-256 in hex of its `derived_identity`.

    Args:
        features: The fingerprint of the space that the features are from.
        projection: The digest of the projection.
    """
    identity = canonical_json(derived_identity(features, projection))
    return hashlib.sha256(identity.encode("ascii")).hexdigest()


def canonical_json(value: object, name: str = "value") -> str:
    """`value` as JSON in one spelling: keys sorted, no spaces, ASCII, floats exact (shortest repr).

    Args:
        value: Plain values only: dict with str keys, list or tuple, str, int, finite float, bool, None.
        name: What errors call it.

    Raises:
        TypeError: Something in it is of another type, such as a NumPy number. The message says where.
        ValueError: A float is infinite or NaN.
    """
    return json.dumps(_plain(value, name), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: object, place: str) -> object:
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{place} is {value}, which JSON does not have")
        return value
    if isinstance(value, Mapping):
        return {_key(key, place): _plain(item, f"{place}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_plain(item, f"{place}[{i}]") for i, item in enumerate(value)]  # type: ignore[var-annotated, arg-type]
    raise TypeError(f"{place} is of type {type(value).__name__}{_advice(value)}")


def _advice(value: object) -> str:
    """How to turn a NumPy scalar into a plain value, or that there is no way."""
    for kind, plain in ((Integral, "int"), (Real, "float"), (str, "str")):
        if isinstance(value, kind):
            return f"; use {plain}(…)"
    return "; use bool(…)" if type(value).__name__.startswith("bool") else ", which is not plain JSON"


def _key(key: object, place: str) -> str:
    if type(key) is not str:
        raise TypeError(f"{place} has the key {key!r}, which is not a str")
    return key


@dataclass(frozen=True, slots=True)
class EmbedderDescription:
    """The attributes of a `GuardedEmbedder` that are plain values; see there."""

    info: PluginInfo
    model: str
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]
    dimension: int
    options: Mapping[str, OptionValue]
    unresolved_options: Mapping[str, OptionValue]
    projection: str | None
    knows_words: bool = False

    def fingerprint(self, decode: str) -> str:
        """The fingerprint of the space that its vectors of photos decoded in mode `decode` belong to."""
        return fingerprint(self.identity, self.info, decode)

    def own_projection(self) -> Projection | None:
        """The projection that comes with the model; None where it has none.

        Raises:
            ModelNotFound: Where its file is not there.
            CheckpointError: Where its file is damaged.
            ModelError: Where it takes features of another dimension.
        """
        if self.projection is None:
            return None
        projection = Projection.read(self.projection)
        try:
            projection.check_fits(self.dimension)
        except ModelError as error:
            raise ModelError(f"{display_path(self.projection)}: {error}") from None
        return projection
