"""What a model's files hold: its configuration, and its weights under the hub's names.

What becomes of a checkpoint's names in a model that wants others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitmae_search.errors import CheckpointError, ConfigError, display_path
from vitmae_search.vitmae.checkpoint.keys import DECODER_LAYERS, ENCODER_LAYERS, Layout, to_hub_names
from vitmae_search.vitmae.checkpoint.locate import CheckpointFiles
from vitmae_search.vitmae.checkpoint.weights import read_weights
from vitmae_search.vitmae.config import ViTConfig, ViTMAEConfig

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Attention heads by width, in the ViTs that have a name; weights alone do not tell."""
_DECODER_HEADS = {512: 16}
_AUTHORS_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read. `state` is on the CPU, under the hub's names (`checkpoint_keys`)."""

    files: CheckpointFiles
    config: ViTMAEConfig | ViTConfig
    state: Mapping[str, Tensor]
    layout: Layout

    @property
    def has_decoder(self) -> bool:
        """Whether it can reconstruct, or is an encoder alone."""
        return any(name.startswith("decoder.") for name in self.state)


def read_checkpoint(files: CheckpointFiles, config: ViTMAEConfig | ViTConfig | None = None) -> Checkpoint:
    """Read a checkpoint. `config` overrides its config.json.

    A file without a config.json (the authors' are) tells its own shape, where its width is that of a
    named ViT. Raises `CheckpointError` or `ConfigError`.
    """
    raw, arguments = read_weights(files.weights)
    try:
        state, layout = to_hub_names(raw)
    except CheckpointError as error:
        raise CheckpointError(f"{display_path(files.weights)}: {error}") from error
    if config is None:
        config = (
            ViTMAEConfig.from_json_file(files.config)
            if files.config
            else _infer_config(state, layout, arguments, files.weights)
        )
    return Checkpoint(files, config, state, layout)


def _infer_config(
    state: Mapping[str, Tensor], layout: Layout, arguments: Mapping[str, Any], path: Path
) -> ViTMAEConfig:
    """The configuration that weights alone imply. `arguments` are the authors' training options."""
    where = display_path(path)
    try:
        fields = {**_infer_encoder(state), **_infer_decoder(state)}
    except KeyError as error:
        raise CheckpointError(f"{where} is not a whole ViTMAE: it lacks {error.args[0]}.") from error
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{where} is not a ViTMAE: its tensors have other numbers of axes.") from error
    fields["layer_norm_eps"] = _AUTHORS_EPS if layout is Layout.AUTHORS else 1e-12
    fields["norm_pix_loss"] = bool(arguments.get("norm_pix_loss", False))
    fields["mask_ratio"] = float(arguments.get("mask_ratio", 0.75))
    if None in fields.values():
        asked = json.dumps({name: "?" if value is None else value for name, value in fields.items()})
        raise CheckpointError(
            f"{where} has no config.json beside it, and its weights do not tell how many attention heads it "
            f'has; put one there that holds this, with a number for each "?": {asked}'
        )
    return ViTMAEConfig(**fields)


def _infer_encoder(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The encoder's fields; None for what weights do not tell."""
    positions = state["vit.embeddings.position_embeddings"]
    width, channels, patch_size, _ = state["vit.embeddings.patch_embeddings.projection.weight"].shape
    side = round(max(positions.shape[1] - 1, 0) ** 0.5)
    return {
        "hidden_size": width,
        "num_hidden_layers": _depth(state, ENCODER_LAYERS),
        "num_attention_heads": _HEADS.get(width),
        "intermediate_size": state[f"{ENCODER_LAYERS}.0.intermediate.dense.weight"].shape[0],
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "num_channels": channels,
        "qkv_bias": f"{ENCODER_LAYERS}.0.attention.attention.query.bias" in state,
    }


def _infer_decoder(state: Mapping[str, Tensor]) -> dict[str, Any]:
    embed = state.get("decoder.decoder_embed.weight")
    if embed is None:
        return {}
    width = embed.shape[0]
    return {
        "decoder_hidden_size": width,
        "decoder_num_attention_heads": _DECODER_HEADS.get(width),
        "decoder_num_hidden_layers": _depth(state, DECODER_LAYERS),
        "decoder_intermediate_size": state[f"{DECODER_LAYERS}.0.intermediate.dense.weight"].shape[0],
    }


def _depth(state: Mapping[str, Tensor], stack: str) -> int:
    numbers = {key[len(stack) + 1 :].split(".")[0] for key in state if key.startswith(f"{stack}.")}
    return len(numbers)


Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A name, its shape in the checkpoint, and its shape in the model."""


@dataclass(frozen=True, slots=True)
class LoadingInfo:
    """What loading did: names newly made, names that found no place, and names of other shapes.

    All are the hub's names (`checkpoint_keys`). Those of other shapes are newly made too, and not in `new`.
    """

    new: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: tuple[Mismatch, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As the reference returns it for `output_loading_info`."""
        return {
            "missing_keys": set(self.new),
            "unexpected_keys": set(self.unused),
            "mismatched_keys": set(self.mismatched),
            "error_msgs": [],
        }


def match_names(
    expected: Mapping[str, torch.Size],
    checkpoint: Checkpoint,
    newly_made: Collection[str],
    *,
    ignore_mismatched_sizes: bool = False,
) -> LoadingInfo:
    """Which of the `expected` names the checkpoint gives, and which are to be newly made.

    A group of names that starts with one of `newly_made` (a head's) may be missing as a whole. Raises
    `CheckpointError` for anything else that is missing, for layers beyond the configuration's, and, unless
    they are ignored, for tensors of other shapes.
    """
    state, where = checkpoint.state, display_path(checkpoint.files.weights)
    missing = [name for name in expected if name not in state]
    absent = tuple(head for head in newly_made if not any(name.startswith(head) for name in state))
    needed = [name for name in missing if not name.startswith(absent)]
    if needed:
        raise CheckpointError(f"{where} lacks {_some(needed)}, which its configuration calls for.")
    stacks = [s for s in (ENCODER_LAYERS, DECODER_LAYERS) if any(name.startswith(s) for name in expected)]
    surplus = sorted(n for n in state if n.startswith(tuple(stacks)) and n not in expected)
    if surplus:
        raise CheckpointError(f"{where} has {_some(surplus)}, for which its configuration has no place.")
    wrong = [
        (name, tuple(state[name].shape), tuple(shape))
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if wrong and not ignore_mismatched_sizes:
        sizes = [f"{name} is {found} and should be {wanted}" for name, found, wanted in wrong]
        raise CheckpointError(f"{where} does not have its configuration's sizes: {_some(sizes)}.")
    return LoadingInfo(tuple(missing), tuple(sorted(state.keys() - expected.keys())), tuple(wrong))


def choose_dtype(wanted: torch.dtype | str | None, checkpoint: Checkpoint) -> torch.dtype:
    """A dtype or its name; "auto" is the file's own, None is float32. Raises `ConfigError` for others."""
    if wanted == "auto":
        return next(iter(checkpoint.state.values())).dtype
    if isinstance(wanted, str):
        wanted = getattr(torch, wanted.removeprefix("torch."), wanted)
    wanted = torch.float32 if wanted is None else wanted
    if not isinstance(wanted, torch.dtype) or not wanted.is_floating_point:
        raise ConfigError("dtype", wanted, 'must be a floating point dtype, its name, or "auto"')
    return wanted


def _some(names: list[str], limit: int = 3) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
