"""Which features a person gets: those that the options say, or that the model's projection was fitted to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.embedding import Options, Projection
from vitmae_search.errors import CheckpointError, ModelError, PluginOptionError, display_path
from vitmae_search.vitmae import pooled_width

from .options import AUTO, NAME, check_pooling, parse_layers


@dataclass(frozen=True, slots=True)
class Features:
    """Layers and pooling, and the absolute path of a projection that was fitted to them."""

    layers: tuple[int, ...]
    pooling: str
    projection: str | None
    resolved_options: Options
    """What stands for "auto"."""


def features_of(options: Options, depth: int, width: int, file: Path | None) -> Features:
    """What the options mean for a model of `depth` layers and `width`, with the projection in `file`.

    A projection may say in its provenance to which "layers" and "pooling" it was fitted: "auto" means
    these. Where a person chose other features, or there is none, it means the mean of the last layer. Raises
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
    if not _agree(options, said, depth):
        said, projection, file = {}, None, None
    spelled = {
        name: said.get(name, otherwise) if options[name] == AUTO else str(options[name])
        for name, otherwise in (("layers", "last"), ("pooling", "mean"))
    }
    pooling = spelled["pooling"]
    layers = parse_layers(spelled["layers"], depth, pooling)
    if projection is not None and projection.input_dimension != pooled_width(width, len(layers), pooling):
        file = None
    chosen = {name: word for name, word in spelled.items() if options[name] == AUTO}
    return Features(layers, pooling, None if file is None else os.path.abspath(file), chosen)


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


def _agree(options: Options, said: Mapping[str, str], depth: int) -> bool:
    """Whether what a person chose is what the projection was fitted to. Raises `PluginOptionError`."""
    if options["pooling"] not in (AUTO, said.get("pooling", options["pooling"])):
        return False
    if options["layers"] == AUTO or "layers" not in said:
        return True
    mine, its = (parse_layers(str(words), depth, "mean") for words in (options["layers"], said["layers"]))
    return mine == its
