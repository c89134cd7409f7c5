"""Which features a person gets: those that the options say, or that the model's projection was fitted to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.embedding import Projection
from vitmae_search.embedding.contract import Options
from vitmae_search.errors import CheckpointError, ModelError, PluginOptionError, display_path
from vitmae_search.vitmae import pooled_width

from .choices import AUTO, NAME, check_pooling, parse_layers


@dataclass(frozen=True, slots=True)
class Features:
    """Layers and pooling, and the absolute path of a projection that was fitted to them."""

    layers: tuple[int, ...]
    pooling: str
    projection: str | None

    def chosen_options(self, options: Options) -> Options:
        """What stands for "auto" among these options."""
        spelled = {"layers": ",".join(map(str, self.layers)), "pooling": self.pooling}
        return {name: value for name, value in spelled.items() if options[name] == AUTO}


def features_of(options: Options, depth: int, width: int, file: Path | None) -> Features:
    """What the options mean for a model of `depth` layers and `width`, with the projection in `file`.

    A projection may say in its provenance to which "layers" and "pooling" it was fitted: "auto" means
    these, and other features go without it. Without one "auto" means the mean of the last layer. Raises
    `PluginOptionError`, and `CheckpointError` where "auto" would mean what this model does not have.
    """
    projection = _read(file)
    try:
        said = {} if projection is None else _said(projection, depth, width)
    except PluginOptionError as error:
        if AUTO in (options["layers"], options["pooling"]):
            raise CheckpointError(
                f"{display_path(file or '')} was fitted to other features than this model has: "
                f"{error.message}. Take it away, or choose layers and pooling yourself."
            ) from error
        said, projection, file = {}, None, None
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


def _said(projection: Projection, depth: int, width: int) -> dict[str, str]:
    """The layers and pooling of its provenance. Raises `PluginOptionError` for those of another model."""
    said = {
        name: projection.provenance[name] for name in ("layers", "pooling") if name in projection.provenance
    }
    pooling = said.get("pooling", "mean")
    check_pooling(pooling)
    layers = parse_layers(said.get("layers", "last"), depth, pooling)
    length, takes = pooled_width(width, len(layers), pooling), projection.input_dimension
    if len(said) == 2 and length != takes:
        rule = f"have length {length}, and it takes {takes}"
        raise PluginOptionError(NAME, f"layers={said['layers']!r} with pooling={pooling!r} {rule}")
    return said


def _chosen(option: object, said: str | None, otherwise: str) -> str:
    return str(option) if option != AUTO else said or otherwise
