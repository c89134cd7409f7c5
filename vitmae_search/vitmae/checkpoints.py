"""A model on disk or on the hub: where its files are, and what they hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vitmae_search.errors import CheckpointError, ModelNotFound, display_path
from vitmae_search.vitmae.checkpoint_keys import DECODER_LAYERS, ENCODER_LAYERS, Layout, to_hub_names
from vitmae_search.vitmae.config import ViTMAEConfig
from vitmae_search.vitmae.hub import hub_files
from vitmae_search.vitmae.weights import digest_files, read_weights, shards

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
WEIGHTS_NAME = "model.safetensors"
_WEIGHTS = (WEIGHTS_NAME, "model.safetensors.index.json", "pytorch_model.bin")
_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Attention heads by width, in the ViTs that have a name; weights alone do not tell."""
_DECODER_HEADS = {512: 16}
_AUTHORS_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """Paths of a model's files. `weights` may be a sharded index; the others may be absent."""

    weights: Path
    config: Path | None = None
    preprocessor: Path | None = None

    def digest(self) -> str:
        """SHA-256 of the weights, in hex. Raises `CheckpointError` where they cannot be read."""
        return digest_files(shards(self.weights))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read. `state` is on the CPU, under the hub's names (`checkpoint_keys`)."""

    files: CheckpointFiles
    config: ViTMAEConfig
    state: Mapping[str, Tensor]
    layout: Layout

    @property
    def has_decoder(self) -> bool:
        """Whether it can reconstruct, or is an encoder alone."""
        return any(name.startswith("decoder.") for name in self.state)


def find_checkpoint(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
) -> CheckpointFiles:
    """The files of a folder, of a weights file (and what lies beside it), or of a hub id.

    Raises `ModelNotFound`.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _beside(_weights_in(path))
    if path.is_file():
        return _beside(path)
    name = os.fspath(name_or_path)
    if name.startswith((".", "~", os.sep)) or name.endswith(_WEIGHTS_SUFFIXES) or name.count("/") > 1:
        raise ModelNotFound(f"{display_path(name)}: no such file or folder.")
    found = hub_files(
        name,
        CONFIG_NAME,
        _WEIGHTS,
        (PREPROCESSOR_NAME,),
        revision=revision,
        local_files_only=local_files_only,
    )
    weights = next(found[candidate] for candidate in _WEIGHTS if candidate in found)
    return CheckpointFiles(weights, found[CONFIG_NAME], found.get(PREPROCESSOR_NAME))


def read_checkpoint(files: CheckpointFiles, config: ViTMAEConfig | None = None) -> Checkpoint:
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


def _weights_in(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(p for p in folder.iterdir() if p.suffix in _WEIGHTS_SUFFIXES)
    if len(others) != 1:
        what = f"{len(others)} weights files" if others else "no weights file"
        raise ModelNotFound(f"{display_path(folder)} has {what}; {WEIGHTS_NAME} is what is looked for.")
    return others[0]


def _beside(weights: Path) -> CheckpointFiles:
    config, preprocessor = weights.with_name(CONFIG_NAME), weights.with_name(PREPROCESSOR_NAME)
    return CheckpointFiles(
        weights,
        config if config.is_file() else None,
        preprocessor if preprocessor.is_file() else None,
    )


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
