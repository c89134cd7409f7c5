"""An encoder prepacked for a CPU is the encoder that it was, to bf16's rounding, and holds it only once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from vitmae_search.vitmae import (
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEModel,
    prepack,
    products,
)

PIXELS = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def pair(tiny: Any, randomise: Any, **fields: Any) -> tuple[ViTMAEModel, ViTMAEModel]:
    """The same encoder twice, the second prepacked."""
    plain, packed = (randomise(ViTMAEModel(ViTMAEConfig(**tiny(**fields)))) for _ in range(2))
    prepack(packed, torch.device("cpu"))
    return plain, packed


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return functional.cosine_similarity(a.double(), b.double(), dim=-1)


@pytest.mark.parametrize("packed_products", [True, False], ids=["oneDNN", "plain"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"hidden_act": "relu"}, {"hidden_act": "gelu_new"}, {"qkv_bias": False}, {"patch_size": (8, 16)}],
    ids=str,
)
def test_every_layer_is_what_it_was(tiny, randomise, monkeypatch, fields, packed_products) -> None:
    if not packed_products:
        monkeypatch.setattr(products, "can_prepack", lambda: False)
    plain, packed = pair(tiny, randomise, **fields)
    with torch.inference_mode():
        expected, found = (model.encode(PIXELS, (0, 1, 2)) for model in (plain, packed))
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.float32
        assert other.shape == one.shape
        assert cosines(one, other).min() > 0.9995
        assert not torch.equal(one, other)


def test_another_size_of_image_stretches_the_positions(tiny, randomise) -> None:
    plain, packed = pair(tiny, randomise)
    larger = torch.randn(2, 3, 48, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, found = (m.encode(larger, (2,), interpolate_pos_encoding=True)[0] for m in (plain, packed))
        assert cosines(expected, found).min() > 0.9995
        with pytest.raises(ValueError, match="the model 32×32"):
            packed.encode(larger, (2,))


def test_a_classifier_s_encoder_too(tiny, randomise) -> None:
    config = ViTConfig(**{k: v for k, v in tiny().items() if not k.startswith("decoder")}, num_labels=3)
    plain, packed = (randomise(ViTForImageClassification(config)) for _ in range(2))
    prepack(packed.vit, torch.device("cpu"))
    with torch.inference_mode():
        assert cosines(plain(PIXELS).logits, packed(PIXELS).logits).min() > 0.999


def test_fp32_weights_of_products_are_let_go_of(tiny, randomise) -> None:
    plain, packed = pair(tiny, randomise)
    left = {name for name, value in packed.named_parameters() if value.ndim > 1}
    assert left == {"embeddings.cls_token"}
    assert sum(value.numel() for value in packed.parameters()) < 0.1 * sum(
        value.numel() for value in plain.parameters()
    )


def test_here_oneDNN_s_operations_are_found() -> None:  # noqa: N802
    """Were they renamed, the plain products would take their place, and nobody would notice."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    assert products.can_prepack()
