"""Names of weights: four layouts, brought to the hub's.

- **hub**: `vit.encoder.layer.N.attention.attention.query`, ..., `decoder.decoder_layers.N...`. The one
  that is written, and the one that the modules here have in memory.
- **saved by transformers 5**: the same, with the decoder's layers under `decoder.decoder_encoder.layer.N`.
- **transformers 5 in memory**: `vit.layers.N.attention.q_proj`, `.mlp.fc1`, ...
- **authors**: `blocks.N.attn.qkv`, `patch_embed.proj`, `decoder_blocks.N...` (`facebookresearch/mae`).

A bare encoder has no `vit.` prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum

from torch import Tensor

from vitmae_search.errors import CheckpointError

ENCODER_LAYERS = "vit.encoder.layer"
DECODER_LAYERS = "decoder.decoder_layers"


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
"""Keys that must all be there, the prefix `vit.` aside. The first layout that has them is the one."""

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
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.decoder_pos_embed",
    "decoder_embed": "decoder.decoder_embed",
    "decoder_norm": "decoder.decoder_norm",
    "decoder_pred": "decoder.decoder_pred",
}
_IN_LAYER = re.compile(rf"({'|'.join(map(re.escape, _STACKS))})\.(\d+)\.(.+)\.(weight|bias)")
_FUSED = re.compile(r"(.+)\.attn\.qkv\.(weight|bias)")


def detect_layout(keys: Iterable[str]) -> Layout:
    """The layout of a state dict. Raises `CheckpointError` where its keys are no ViTMAE's."""
    bare = {key.removeprefix("vit.") for key in keys}
    for layout, markers in _MARKERS.items():
        if bare.issuperset(markers):
            return layout
    sample = ", ".join(sorted(bare)[:4]) or "none at all"
    raise CheckpointError(f"the weights are not a ViTMAE's in any known layout; their names: {sample} ...")


def to_hub_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Layout]:
    """A state dict under the hub's names, encoder under `vit.`, and the layout that it had.

    Names that belong to none of the layouts' parts (a classifier's head, say) stay as they are.
    """
    if all(key.startswith("module.") for key in state):  # saved from DistributedDataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    layout = detect_layout(state)
    split = _split_qkv(state) if layout is Layout.AUTHORS else state
    return {_hub_name(key, layout): value for key, value in split.items()}, layout


def _hub_name(key: str, layout: Layout) -> str:
    bare = key.removeprefix("vit.")
    in_layer = _IN_LAYER.fullmatch(bare)
    if in_layer:
        stack, number, part, kind = in_layer.groups()
        return f"{_STACKS[stack]}.{number}.{_PARTS.get(part, part)}.{kind}"
    if layout is Layout.AUTHORS:
        stem, dot, kind = bare.rpartition(".")
        if kind not in ("weight", "bias"):
            stem, dot, kind = bare, "", ""
        return f"{_STEMS[stem]}{dot}{kind}" if stem in _STEMS else key
    return f"vit.{bare}" if bare.startswith(("embeddings.", "layernorm.", "pooler.")) else key


def _split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' fused projection, (3·D, D) or (3·D,), as three."""
    split = {}
    for key, value in state.items():
        fused = _FUSED.fullmatch(key)
        if not fused:
            split[key] = value
            continue
        block, kind = fused.groups()
        for name, third in zip("qkv", value.chunk(3), strict=True):
            split[f"{block}.attention.{name}_proj.{kind}"] = third
    return split
