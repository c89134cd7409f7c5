"""Names of weights: each known layout is recognised and renamed to the hub's.

- **hub**: `vit.encoder.layer.N.attention.attention.query`, ..., `decoder.decoder_layers.N...`. This is the
  layout that is written, and the one that the modules of this package have in memory.
- **saved by transformers 5**: the same, with the decoder's layers under `decoder.decoder_encoder.layer.N`.
- **transformers 5 in memory**: `vit.layers.N.attention.q_proj`, `.mlp.fc1`, ...
- **authors**: `blocks.N.attn.qkv`, `patch_embed.proj`, `decoder_blocks.N...` (`facebookresearch/mae`). They
  took the encoder's names from timm, whose `VisionTransformer` has the same ones.

A bare encoder has no `vit.` prefix.

The authors' classifiers have a `head`: a linear map, or after a linear probe (MAE paper, section A.1) a
batch norm and a linear map, which are folded into one. With `--global_pool` an `fc_norm` comes before it,
as in timm with `global_pool="avg"`: the head then reads the mean of the patch tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum

from torch import Tensor

from vitmae_search.errors import CheckpointError

ENCODER_LAYERS = "vit.encoder.layer"
DECODER_LAYERS = "decoder.decoder_layers"
CLASSIFIER = "classifier"
FC_NORM = "fc_norm"
"""The layer norm between the mean of the patch tokens and the classifier."""


class Layout(Enum):
    """Which names a checkpoint uses."""

    HUB = "hub"
    TRANSFORMERS_5_SAVED = "saved by transformers 5"
    TRANSFORMERS_5_MEMORY = "transformers 5 in memory"
    AUTHORS = "authors"


_EMBEDDINGS = ("embeddings.cls_token", "embeddings.patch_embeddings.projection.weight")
_HUB_LAYER = (
    "encoder.layer.0.attention.attention.query.weight",
    "encoder.layer.0.output.dense.weight",
)
_MARKERS: dict[Layout, tuple[str, ...]] = {
    Layout.AUTHORS: (
        "cls_token",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.norm1.weight",
    ),
    Layout.TRANSFORMERS_5_MEMORY: (
        *_EMBEDDINGS,
        "layers.0.attention.q_proj.weight",
        "layers.0.mlp.fc1.weight",
    ),
    Layout.TRANSFORMERS_5_SAVED: (
        *_EMBEDDINGS,
        *_HUB_LAYER,
        "decoder.decoder_encoder.layer.0.attention.attention.query.weight",
    ),
    Layout.HUB: (*_EMBEDDINGS, *_HUB_LAYER),
}
"""Names that each layout must have, without the prefix `vit.`. The first that has all of them is chosen."""

_STACKS = {
    "encoder.layer": ENCODER_LAYERS,
    "layers": ENCODER_LAYERS,
    "blocks": ENCODER_LAYERS,
    "decoder.decoder_layers": DECODER_LAYERS,
    "decoder.decoder_encoder.layer": DECODER_LAYERS,
    "decoder_blocks": DECODER_LAYERS,
}
_PARTS = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "attn.proj": "attention.output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
}
_STEMS = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "norm": "vit.layernorm",
    "fc_norm": FC_NORM,
    "head": CLASSIFIER,
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.decoder_pos_embed",
    "decoder_embed": "decoder.decoder_embed",
    "decoder_norm": "decoder.decoder_norm",
    "decoder_pred": "decoder.decoder_pred",
}
_IN_LAYER = re.compile(rf"({'|'.join(map(re.escape, _STACKS))})\.(\d+)\.(.+)")
_FUSED_QKV = re.compile(r"(.+)\.attn\.qkv\.(weight|bias)")
_OTHER_PARTS = ("reg_token", "dist_token", "norm_pre.", "attn_pool.", "pre_logits.", "head_dist.")
"""Parts of timm's other vision transformers that change what the encoder or the head computes."""
_PROBE_EPS = 1e-6
"""The epsilon of the authors' batch norm before the head of a linear probe; no file says it."""


def detect_layout(keys: Iterable[str]) -> Layout:
    """The layout of a state dict. Raises `CheckpointError` where its keys are no ViTMAE's."""
    bare = {key.removeprefix("vit.") for key in keys}
    for layout, markers in _MARKERS.items():
        if bare.issuperset(markers):
            return layout
    sample = ", ".join(sorted(bare)[:4]) or "none at all"
    raise CheckpointError(f"the weights are not a ViTMAE's in any known layout; their names: {sample} ...")


def to_hub_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Layout]:
    """A state dict under the hub's names, with the encoder under `vit.`, and the layout that it had.

    Names that belong to no part of their layout stay as they are. Raises `CheckpointError` for names of no
    known layout, and for parts of other vision transformers.
    """
    if all(key.startswith("module.") for key in state):  # saved from DistributedDataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    layout = detect_layout(state)
    if layout is Layout.AUTHORS:
        other = sorted(key for key in state if key.startswith(_OTHER_PARTS))
        if other:
            raise CheckpointError(f"the weights have {other[0]}, a part that a plain ViT does not have")
        state = _fold_probe(_split_qkv(state))
    return {_hub_name(key, layout): value for key, value in state.items()}, layout


def _hub_name(key: str, layout: Layout) -> str:
    bare = key.removeprefix("vit.")
    in_layer = _IN_LAYER.fullmatch(bare)
    if in_layer:
        stack, number, name = in_layer.groups()
        part, dot, kind = _split_kind(name)
        return f"{_STACKS[stack]}.{number}.{_PARTS.get(part, part)}{dot}{kind}"
    if layout is Layout.AUTHORS:
        stem, dot, kind = _split_kind(bare)
        return f"{_STEMS[stem]}{dot}{kind}" if stem in _STEMS else key
    return f"vit.{bare}" if bare.startswith(("embeddings.", "layernorm.", "pooler.")) else key


def _split_kind(name: str) -> tuple[str, str, str]:
    """Split "a.b.weight" into "a.b", "." and "weight"; a name without weight or bias stays whole."""
    stem, dot, kind = name.rpartition(".")
    return (stem, dot, kind) if kind in ("weight", "bias") else (name, "", "")


def _split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' fused projection, (3·D, D) or (3·D,), as query, key and value."""
    split = {}
    for key, value in state.items():
        fused = _FUSED_QKV.fullmatch(key)
        if not fused:
            split[key] = value
            continue
        block, kind = fused.groups()
        for name, third in zip("qkv", value.chunk(3), strict=True):
            split[f"{block}.attention.{name}_proj.{kind}"] = third
    return split


def _fold_probe(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A linear probe's `head.0` (batch norm) and `head.1` (linear) as the one linear `head` they are.

    In evaluation the batch norm is (x - mean) / √(variance + ε), times `head.0.weight` and plus
    `head.0.bias` where it has them (the authors' has not). Computed in float64.
    """
    needed = ("head.0.running_mean", "head.0.running_var", "head.1.weight")
    if not state.keys() >= set(needed):
        return state
    mean, variance, weight = (state[name].double() for name in needed)
    scale = (variance + _PROBE_EPS).rsqrt()
    if "head.0.weight" in state:
        scale = scale * state["head.0.weight"].double()
    shift = -mean * scale
    if "head.0.bias" in state:
        shift = shift + state["head.0.bias"].double()
    bias = weight @ shift
    if "head.1.bias" in state:
        bias = bias + state["head.1.bias"].double()
    others = {key: value for key, value in state.items() if not key.startswith(("head.0.", "head.1."))}
    dtype = state["head.1.weight"].dtype
    return {**others, "head.weight": (weight * scale).to(dtype), "head.bias": bias.to(dtype)}
