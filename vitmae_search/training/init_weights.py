"""The checkpoint that a training starts from, and its name in run.json."""

from __future__ import annotations

import os
from dataclasses import replace

from vitmae_search.bundled import bundled
from vitmae_search.errors import ConfigError
from vitmae_search.vitmae import Checkpoint, ViTMAEConfig, find_checkpoint, read_checkpoint
from vitmae_search.vitmae.modeling import ViTMAEDecoder

_DEPTH = "decoder_num_hidden_layers"
_DECODER_SHAPE = (_DEPTH, "decoder_hidden_size", "decoder_num_attention_heads", "decoder_intermediate_size")
_RESIDUAL_OUTPUTS = ("output.dense.weight", "output.dense.bias")
"""How the names of a layer's two projections end whose results are added to its tokens."""


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


def fit_decoder(checkpoint: Checkpoint, config: ViTMAEConfig) -> Checkpoint:
    """The checkpoint with another configuration, whose decoder may have another shape.

    If it only has more layers, those of the checkpoint remain, and the new ones after them change nothing at
    first: what they add to their tokens starts at zero. A decoder of any other shape is left out, for the
    model to make a new one.

    Args:
        checkpoint: What a training starts from.
        config: Of the model to train; its encoder is the checkpoint's.
    """
    old = {name: getattr(checkpoint.config, name, None) for name in _DECODER_SHAPE}
    changed = {name for name in _DECODER_SHAPE if old[name] != getattr(config, name)}
    state = checkpoint.state
    if (
        checkpoint.has_decoder
        and changed == {_DEPTH}
        and config.decoder_num_hidden_layers > (old[_DEPTH] or 0)
    ):
        whole = {f"decoder.{name}": value for name, value in ViTMAEDecoder(config).state_dict().items()}
        added = {name: value for name, value in whole.items() if name not in state}
        zeros = {n: value.zero_() for n, value in added.items() if n.endswith(_RESIDUAL_OUTPUTS)}
        state = {**state, **added, **zeros}
    elif changed:
        state = {name: value for name, value in state.items() if not name.startswith("decoder.")}
    return replace(checkpoint, config=config, state=state)


def _is_bundled(model: str) -> bool:
    is_bare_name = os.path.basename(model) == model and model not in ("", ".", "..")
    return is_bare_name and (bundled("data") / "models" / model).is_dir()
