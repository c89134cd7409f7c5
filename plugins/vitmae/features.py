"""Which features the embedder gives: those of its options, or those that the model's projection expects."""

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
class FeatureSpec:
    """Which layers are pooled and how, and the projection that fits.

    Attributes:
        layers: Numbers, 0 (the embeddings) to the model's depth.
        pooling: One or more poolings, with plus signs.
        projection: The absolute path of a projection that was fitted to these features, or None.
        resolved_options: The values of the options that were "auto".
    """

    layers: tuple[int, ...]
    pooling: str
    projection: str | None
    resolved_options: Options


def resolve_features(options: Options, depth: int, width: int, file: Path | None) -> FeatureSpec:
    """What the options "layers" and "pooling" mean for a model.

    A projection may name in its provenance the "layers" and "pooling" that it was fitted to: "auto" means
    these. Without a projection, or where the options choose other features, it means the mean of the last
    layer.

    Args:
        options: The plugin's, checked by `check_options`.
        depth: The model's number of layers.
        width: The model's hidden size.
        file: The projection beside the model, or None.

    Raises:
        PluginOptionError: For layers that the model does not have.
        CheckpointError: Where "auto" would mean features that the model does not have.
    """
    projection = _read_projection(file)
    try:
        fitted = {} if projection is None else _fitted_options(projection, depth, width)
    except PluginOptionError as error:
        if AUTO in (options["layers"], options["pooling"]):
            raise CheckpointError(
                f"{display_path(file or '')} was fitted to other features than this model has: "
                f"{error.message}. Take it away, or choose layers and pooling yourself."
            ) from error
        fitted, projection, file = {}, None, None
    if not _match(options, fitted, depth):
        fitted, projection, file = {}, None, None
    values = {
        name: fitted.get(name, default) if options[name] == AUTO else str(options[name])
        for name, default in (("layers", "last"), ("pooling", "mean"))
    }
    pooling = values["pooling"]
    layers = parse_layers(values["layers"], depth, pooling)
    if projection is not None and projection.input_dimension != pooled_width(width, len(layers), pooling):
        file = None
    resolved = {name: value for name, value in values.items() if options[name] == AUTO}
    return FeatureSpec(layers, pooling, None if file is None else os.path.abspath(file), resolved)


def _read_projection(file: Path | None) -> Projection | None:
    try:
        return None if file is None else Projection.read(file)
    except ModelError:
        return None  # the host reads it as well, and reports the error where the projection is used


def _fitted_options(projection: Projection, depth: int, width: int) -> dict[str, str]:
    """The layers and pooling of its provenance. Raises `PluginOptionError` for those of another model."""
    fitted = {
        name: projection.provenance[name] for name in ("layers", "pooling") if name in projection.provenance
    }
    pooling = fitted.get("pooling", "mean")
    check_pooling(pooling)
    layers = parse_layers(fitted.get("layers", "last"), depth, pooling)
    dimension, expected = pooled_width(width, len(layers), pooling), projection.input_dimension
    if len(fitted) == 2 and dimension != expected:
        rule = f"have dimension {dimension}, and it takes {expected}"
        raise PluginOptionError(NAME, f"layers={fitted['layers']!r} with pooling={pooling!r} {rule}")
    return fitted


def _match(options: Options, fitted: Mapping[str, str], depth: int) -> bool:
    """Whether the options allow what the projection was fitted to. Raises `PluginOptionError`."""
    if options["pooling"] not in (AUTO, fitted.get("pooling", options["pooling"])):
        return False
    if options["layers"] == AUTO or "layers" not in fitted:
        return True
    chosen, expected = (
        parse_layers(str(text), depth, "mean") for text in (options["layers"], fitted["layers"])
    )
    return chosen == expected
