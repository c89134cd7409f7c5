"""vit-mae-base, -large and -huge: their weights' names and shapes, without the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

from vitmae_search.vitmae import (
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
)
from vitmae_search.vitmae.checkpoint.keys import to_hub_names

# What the three config.json on the hub say beyond the defaults, and the sizes that the paper's table 9
# and the authors' models_mae.py give.
NAMED: dict[str, dict[str, Any]] = {
    "facebook/vit-mae-base": {},
    "facebook/vit-mae-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "facebook/vit-mae-huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "intermediate_size": 5120,
        "patch_size": 14,
    },
}
# What the authors' models count, position tables included.
PARAMETERS = {
    "facebook/vit-mae-base": 111_907_840,
    "facebook/vit-mae-large": 329_541_888,
    "facebook/vit-mae-huge": 657_074_508,
}


def layer(prefix: str, width: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A transformer layer's names on the hub, and its shapes."""
    for part in ("query", "key", "value"):
        yield f"{prefix}.attention.attention.{part}.weight", (width, width)
        yield f"{prefix}.attention.attention.{part}.bias", (width,)
    for part, rows, columns in (
        ("attention.output", width, width),
        ("intermediate", inner, width),
        ("output", width, inner),
    ):
        yield f"{prefix}.{part}.dense.weight", (rows, columns)
        yield f"{prefix}.{part}.dense.bias", (rows,)
    for part in ("before", "after"):
        for kind in ("weight", "bias"):
            yield f"{prefix}.layernorm_{part}.{kind}", (width,)


def hub_names(config: ViTMAEConfig) -> dict[str, tuple[int, ...]]:
    """All names and shapes of the files on the hub."""
    width, small, side = config.hidden_size, config.decoder_hidden_size, config.patch_shape[0]
    names: dict[str, tuple[int, ...]] = {
        "vit.embeddings.cls_token": (1, 1, width),
        "vit.embeddings.position_embeddings": (1, (224 // side) ** 2 + 1, width),
        "vit.embeddings.patch_embeddings.projection.weight": (width, 3, side, side),
        "vit.embeddings.patch_embeddings.projection.bias": (width,),
        "vit.layernorm.weight": (width,),
        "vit.layernorm.bias": (width,),
        "decoder.mask_token": (1, 1, small),
        "decoder.decoder_pos_embed": (1, (224 // side) ** 2 + 1, small),
        "decoder.decoder_embed.weight": (small, width),
        "decoder.decoder_embed.bias": (small,),
        "decoder.decoder_norm.weight": (small,),
        "decoder.decoder_norm.bias": (small,),
        "decoder.decoder_pred.weight": (side * side * 3, small),
        "decoder.decoder_pred.bias": (side * side * 3,),
    }
    for number in range(config.num_hidden_layers):
        names.update(layer(f"vit.encoder.layer.{number}", width, config.intermediate_size))
    for number in range(config.decoder_num_hidden_layers):
        names.update(layer(f"decoder.decoder_layers.{number}", small, config.decoder_intermediate_size))
    return names


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", NAMED)
def test_names_and_shapes(name: str) -> None:
    config = ViTMAEConfig(**NAMED[name])
    with torch.device("meta"):
        ours = ViTMAEForPreTraining(config)
        encoder = ViTMAEModel(config)
        reference = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**NAMED[name]))
    expected = hub_names(config)
    assert shapes(ours) == expected
    theirs, _ = to_hub_names(reference.state_dict())
    assert {key: tuple(value.shape) for key, value in theirs.items()} == expected
    bare = {k.removeprefix("vit."): v for k, v in expected.items() if k.startswith("vit.")}
    assert shapes(encoder) == bare
    assert sum(value.numel() for value in ours.state_dict().values()) == PARAMETERS[name]
    assert ours.num_parameters() == PARAMETERS[name] - sum(table.numel() for table in ours.buffers())


def test_a_classifier_of_base_size() -> None:
    config = ViTConfig(num_labels=1000)
    with torch.device("meta"):
        ours = ViTForImageClassification(config)
        reference = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000))
    theirs, _ = to_hub_names(reference.state_dict())
    assert shapes(ours) == {key: tuple(value.shape) for key, value in theirs.items()}
    # ViT-Base with a 1000-way head, positions among them.
    assert ours.num_parameters() == 86_567_656
