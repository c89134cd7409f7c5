"""A checkpoint: a model's configuration, and its weights under the hub's names.

It is read from files, its configuration is inferred where no config.json says it, and its names are matched
with those that a model has.
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
from vitmae_search.vitmae.checkpoint.keys import (
    CLASSIFIER,
    DECODER_LAYERS,
    ENCODER_LAYERS,
    FC_NORM,
    Layout,
    to_hub_names,
)
from vitmae_search.vitmae.checkpoint.locate import CheckpointFiles
from vitmae_search.vitmae.checkpoint.weights import read_json, read_weights
from vitmae_search.vitmae.config import ViTConfig, ViTMAEConfig

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Attention heads by width in the ViTs that have a name; weights alone do not say how many there are."""
_DECODER_HEADS = {512: 16}
_AUTHORS_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        files: Where it was read from.
        config: Its configuration, from config.json or inferred from its weights.
        state: The weights on the CPU, under the hub's names (`checkpoint.keys`).
        layout: The names that the file has.
    """

    files: CheckpointFiles
    config: ViTMAEConfig | ViTConfig
    state: Mapping[str, Tensor]
    layout: Layout

    @property
    def has_decoder(self) -> bool:
        """Whether it can reconstruct, or is an encoder alone."""
        return any(name.startswith("decoder.") for name in self.state)


def read_checkpoint(files: CheckpointFiles, config: ViTMAEConfig | ViTConfig | None = None) -> Checkpoint:
    """Read a checkpoint in any of the layouts of `checkpoint.keys`.

    The shape is inferred from the weights where there is no config.json, as beside the authors' files, or
    where it is timm's; this needs an encoder of the width of a named ViT.

    Args:
        files: What `find_checkpoint` found.
        config: Used instead of the checkpoint's own configuration.

    Raises:
        CheckpointError: The weights cannot be read, are not a ViTMAE's, or do not tell their shape.
        ConfigError: A field of config.json breaks a rule.
    """
    raw, arguments = read_weights(files.weights)
    try:
        state, layout = to_hub_names(raw)
    except CheckpointError as error:
        raise CheckpointError(f"{display_path(files.weights)}: {error}") from error
    if config is None:
        values = read_json(files.config) if files.config else None
        if values is not None and not is_timm_config(values):
            config = ViTMAEConfig.from_dict(values)
        else:
            _check_timm_pooling(values or {}, state, files.weights)
            config = _infer_config(state, layout, arguments, files.weights)
    return Checkpoint(files, config, state, layout)


def is_timm_config(values: Mapping[str, Any]) -> bool:
    """Whether a config.json is timm's, which names an architecture and does not say its shape."""
    return "architecture" in values and "model_type" not in values


def _check_timm_pooling(values: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> None:
    """Raise `CheckpointError` where timm's config.json says a pooling that no model here has."""
    found = "avg" if f"{FC_NORM}.weight" in state else "token"
    pooling = values.get("global_pool", found)
    if f"{CLASSIFIER}.weight" in state and pooling != found:
        where, norm = display_path(path), "with" if found == "avg" else "without"
        raise CheckpointError(
            f"{where}: its classifier pools by {pooling!r} {norm} fc_norm; no model here does."
        )


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
        needed = json.dumps({name: "?" if value is None else value for name, value in fields.items()})
        raise CheckpointError(
            f"{where} has no config.json beside it, and its weights do not tell how many attention heads it "
            f'has; put one there that holds this, with a number for each "?": {needed}'
        )
    return ViTMAEConfig(**fields, **_infer_classifier(state))


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
    """The decoder's fields, none for an encoder alone; None for what weights do not tell."""
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


def _infer_classifier(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields that a classifier implies; none without one."""
    weight = state.get(f"{CLASSIFIER}.weight")
    if weight is None or weight.ndim != 2:
        return {}
    pooling = {"global_pool": "avg"} if f"{FC_NORM}.weight" in state else {}
    return {"num_labels": weight.shape[0], **pooling}


def _depth(state: Mapping[str, Tensor], stack: str) -> int:
    """How many layers a stack has."""
    numbers = {key[len(stack) + 1 :].split(".")[0] for key in state if key.startswith(f"{stack}.")}
    return len(numbers)


Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A name, its shape in the checkpoint, and its shape in the model."""


@dataclass(frozen=True, slots=True)
class LoadingInfo:
    """What loading did with each name that was not simply loaded. All are the hub's names.

    Attributes:
        new: Parameters of the model that the checkpoint lacks, newly made.
        unused: Tensors of the checkpoint that the model has no place for.
        mismatched: Parameters whose shapes differ, newly made too, and not in `new`.
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
    """Find which of a model's parameters a checkpoint gives, and which are to be newly made.

    Args:
        expected: The shape of each parameter and table of the model, by the hub's name.
        checkpoint: The checkpoint.
        newly_made: Beginnings of names, one for each head. The checkpoint may lack all names of a head.
        ignore_mismatched_sizes: Make parameters of other shapes anew, rather than refuse them.

    Raises:
        CheckpointError: Anything else is missing or is not floating point, the checkpoint has more layers
            than the configuration, or shapes differ.
    """
    state, where = checkpoint.state, display_path(checkpoint.files.weights)
    missing = [name for name in expected if name not in state]
    _check_missing(missing, checkpoint, newly_made)
    _check_surplus(expected, checkpoint)
    for name in expected:
        if name in state and not state[name].is_floating_point():
            raise CheckpointError(f"{where}: {name} is {state[name].dtype}, not floating point.")
    mismatched = [
        (name, tuple(state[name].shape), tuple(shape))
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if mismatched and not ignore_mismatched_sizes:
        sizes = [f"{name} is {found} and should be {wanted}" for name, found, wanted in mismatched]
        raise CheckpointError(f"{where} does not have its configuration's sizes: {_shorten(sizes)}.")
    return LoadingInfo(tuple(missing), tuple(sorted(state.keys() - expected.keys())), tuple(mismatched))


def _check_missing(missing: list[str], checkpoint: Checkpoint, newly_made: Collection[str]) -> None:
    """Raise `CheckpointError` for missing names that do not make a whole head."""
    state, where = checkpoint.state, display_path(checkpoint.files.weights)
    absent = tuple(head for head in newly_made if not any(name.startswith(head) for name in state))
    needed = [name for name in missing if not name.startswith(absent)]
    if "vit.layernorm.weight" in needed and f"{FC_NORM}.weight" in state:
        raise CheckpointError(
            f"{where} is a classifier of the mean of its patch tokens: it has fc_norm in place of the "
            'encoder\'s final norm. Load it as ViTForImageClassification, with global_pool="avg".'
        )
    if needed:
        raise CheckpointError(f"{where} lacks {_shorten(needed)}, which its configuration calls for.")


def _check_surplus(expected: Collection[str], checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` for parameters in layers that the model has not, or not in this form."""
    stacks = [s for s in (ENCODER_LAYERS, DECODER_LAYERS) if any(name.startswith(s) for name in expected)]
    surplus = sorted(
        name
        for name, value in checkpoint.state.items()
        if name.startswith(tuple(stacks)) and name not in expected and value.is_floating_point()
    )
    if surplus:
        where = display_path(checkpoint.files.weights)
        raise CheckpointError(f"{where} has {_shorten(surplus)}, for which its configuration has no place.")


def choose_dtype(wanted: torch.dtype | str | None, checkpoint: Checkpoint) -> torch.dtype:
    """Choose the dtype that weights are loaded as.

    Args:
        wanted: A floating point dtype or its name; "auto" for the file's own, None for float32.
        checkpoint: The checkpoint.

    Raises:
        ConfigError: It is anything else.
    """
    if wanted == "auto":
        return next(value.dtype for value in checkpoint.state.values() if value.is_floating_point())
    if isinstance(wanted, str):
        wanted = getattr(torch, wanted.removeprefix("torch."), wanted)
    wanted = torch.float32 if wanted is None else wanted
    if not isinstance(wanted, torch.dtype) or not wanted.is_floating_point:
        raise ConfigError("dtype", wanted, 'must be a floating point dtype, its name, or "auto"')
    return wanted


def _shorten(names: list[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
