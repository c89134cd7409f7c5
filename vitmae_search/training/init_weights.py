"""The checkpoint that a training starts from, and its name as run.json keeps it."""

from __future__ import annotations

import os

from vitmae_search.bundled import bundled
from vitmae_search.errors import ConfigError
from vitmae_search.vitmae import Checkpoint, find_checkpoint, read_checkpoint


def start_name(model: str) -> str:
    """The model to start from, as run.json keeps it: a bundled name, an absolute path, or a hub id."""
    expanded = os.path.expanduser(model)
    is_path = not _is_bundled(model) and os.path.exists(expanded)
    return os.path.abspath(expanded) if is_path else model


def read_start(model: str) -> Checkpoint:
    """The checkpoint of that name. Raises `ConfigError` for one that is not square, or not RGB."""
    place = bundled("data") / "models" / model if _is_bundled(model) else model
    checkpoint = read_checkpoint(find_checkpoint(place))
    config = checkpoint.config
    if config.image_shape[0] != config.image_shape[1]:
        raise ConfigError("image_size", config.image_size, "must be a square to train on")
    if config.num_channels != 3:
        raise ConfigError("num_channels", config.num_channels, "must be 3, as photos have")
    return checkpoint


def _is_bundled(model: str) -> bool:
    bare = os.path.basename(model) == model and model not in ("", ".", "..")
    return bare and (bundled("data") / "models" / model).is_dir()
