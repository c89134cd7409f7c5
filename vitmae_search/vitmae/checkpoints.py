"""What a model's files hold: its configuration, and its weights under the hub's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vitmae_search.errors import CheckpointError, display_path
from vitmae_search.vitmae.checkpoint_keys import DECODER_LAYERS, ENCODER_LAYERS, Layout, to_hub_names
from vitmae_search.vitmae.config import ViTConfig, ViTMAEConfig
from vitmae_search.vitmae.files import CheckpointFiles
from vitmae_search.vitmae.weights import read_weights

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
    try:
        projection = state["vit.embeddings.patch_embeddings.projection.weight"]
        positions = state["vit.embeddings.position_embeddings"]
        intermediate = state[f"{ENCODER_LAYERS}.0.intermediate.dense.weight"].shape[0]
        width, channels, patch_size, _ = projection.shape
        heads = _HEADS[width]
        decoder = _infer_decoder(state)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{display_path(path)} has no config.json beside it, and its weights do not tell its shape "
            f"({error}); write one, or pass config=."
        ) from error
    side = round((positions.shape[1] - 1) ** 0.5)
    return ViTMAEConfig(
        hidden_size=width,
        num_hidden_layers=_depth(state, ENCODER_LAYERS),
        num_attention_heads=heads,
        intermediate_size=intermediate,
        layer_norm_eps=_AUTHORS_EPS if layout is Layout.AUTHORS else 1e-12,
        image_size=side * patch_size,
        patch_size=patch_size,
        num_channels=channels,
        qkv_bias=f"{ENCODER_LAYERS}.0.attention.attention.query.bias" in state,
        norm_pix_loss=bool(arguments.get("norm_pix_loss", False)),
        mask_ratio=float(arguments.get("mask_ratio", 0.75)),
        **decoder,
    )


def _infer_decoder(state: Mapping[str, Tensor]) -> dict[str, Any]:
    embed = state.get("decoder.decoder_embed.weight")
    if embed is None:
        return {}
    width = embed.shape[0]
    return {
        "decoder_hidden_size": width,
        "decoder_num_attention_heads": _DECODER_HEADS[width],
        "decoder_num_hidden_layers": _depth(state, DECODER_LAYERS),
        "decoder_intermediate_size": state[f"{DECODER_LAYERS}.0.intermediate.dense.weight"].shape[0],
    }


def _depth(state: Mapping[str, Tensor], stack: str) -> int:
    numbers = {key[len(stack) + 1 :].split(".")[0] for key in state if key.startswith(f"{stack}.")}
    return len(numbers)
