"""The checkpoint that a training starts from, and its name in run.json."""

from __future__ import annotations

import os

from vitmae_search.bundled import bundled
from vitmae_search.errors import ConfigError
from vitmae_search.vitmae import Checkpoint, find_checkpoint, read_checkpoint


def init_name(model: str) -> str:
    """The name of an initial checkpoint as run.json has it: a bundled name, an absolute path or a hub id."""
    expanded = os.path.expanduser(model)
    is_path = not _is_bundled(model) and os.path.exists(expanded)
    return os.path.abspath(expanded) if is_path else model


def read_init_checkpoint(model: str) -> Checkpoint:
    """Read the checkpoint that `model` names: a bundled name, a path or a hub id.

    Raises:
        ConfigError: The model's images are not square, or not RGB.
        ModelError: The checkpoint is missing or cannot be read.
    """
    name_or_path = bundled("data") / "models" / model if _is_bundled(model) else model
    checkpoint = read_checkpoint(find_checkpoint(name_or_path))
    config = checkpoint.config
    if config.image_shape[0] != config.image_shape[1]:
        raise ConfigError("image_size", config.image_size, "must be a square to train on")
    if config.num_channels != 3:
        raise ConfigError("num_channels", config.num_channels, "must be 3, as photos have")
    return checkpoint


def _is_bundled(model: str) -> bool:
    is_bare_name = os.path.basename(model) == model and model not in ("", ".", "..")
    return is_bare_name and (bundled("data") / "models" / model).is_dir()
