"""Which features a person gets: those that the options say, or that the model's projection was fitted to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.embedding import Projection
from vitmae_search.embedding.contract import Options
from vitmae_search.errors import ModelError
from vitmae_search.vitmae import pooled_width

from .choices import AUTO, parse_layers


@dataclass(frozen=True, slots=True)
class Features:
    """Layers and pooling, and the absolute path of a projection that was fitted to them."""

    layers: tuple[int, ...]
    pooling: str
    projection: str | None

    def in_options(self, options: Options) -> Options:
        """The options with these layers and this pooling spelled out."""
        return {**options, "layers": ",".join(map(str, self.layers)), "pooling": self.pooling}


def features_of(options: Options, depth: int, width: int, file: Path | None) -> Features:
    """What the options mean for a model of `depth` layers and `width`, with the projection in `file`.

    A projection may say in its provenance to which "layers" and "pooling" it was fitted: "auto" means
    these, and other features go without it. Without one "auto" means the mean of the last layer. Raises
    `PluginOptionError`.
    """
    projection = _read(file)
    said = projection.provenance if projection else {}
    pooling = _chosen(options["pooling"], said.get("pooling"), "mean")
    layers = parse_layers(_chosen(options["layers"], said.get("layers"), "last"), depth, pooling)
    if projection is not None and not (
        projection.input_dimension == pooled_width(width, len(layers), pooling)
        and said.get("pooling", pooling) == pooling
        and ("layers" not in said or parse_layers(said["layers"], depth, pooling) == layers)
    ):
        file = None
    return Features(layers, pooling, None if file is None else os.path.abspath(file))


def _read(file: Path | None) -> Projection | None:
    try:
        return None if file is None else Projection.read(file)
    except ModelError:
        return None  # the host reads it as well, and tells, where a person wants it


def _chosen(option: object, said: str | None, otherwise: str) -> str:
    return str(option) if option != AUTO else said or otherwise
