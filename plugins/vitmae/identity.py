"""The identity of a model as plain JSON: everything that decides its vectors."""

from __future__ import annotations

from typing import Any

from vitmae_search.vitmae import ViTConfig, ViTImageProcessor, ViTMAEConfig, ViTMAEModel
from vitmae_search.vitmae.checkpoint.weights import weights_digest

from .quantization import REVISION

_CONFIG_FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("layer_norm_eps", "patch_size", "num_channels", "qkv_bias"),
)
"""The fields that affect the encoder's output at mask_ratio 0 without dropout; `image_size` is added."""


def embedder_identity(
    encoder: ViTMAEModel,
    processor: ViTImageProcessor,
    *,
    layers: tuple[int, ...],
    pooling: str,
    gem_power: float,
    views: str,
    quantized: bool = False,
) -> dict[str, Any]:
    """Weights, configuration, preprocessing, layers, pooling and views; no paths, no device, no decoder.

    Options that are newer than spaces in existing libraries are included only where they are not the default,
    so that those spaces stay valid.

    Args:
        encoder: Its weights in fp32.
        processor: `processor.size` is the model's input size.
        layers: Numbers, 0 (the embeddings) to the model's depth.
        pooling: One or more of the poolings, with plus signs.
        gem_power: The power of "gem"; counts only where that is among the poolings.
        views: 1, flip or five.
        quantized: In int8.
    """
    parts = [{"gem": gem_power} if part == "gem" else part for part in pooling.split("+")]
    identity = {
        "weights": weights_digest(encoder.state_dict()),
        "config": config_identity(encoder.config),
        "preprocessing": preprocessing_identity(processor),
        "layers": list(layers),
        "pooling": parts[0] if len(parts) == 1 else parts,
    }
    newer = {"views": views} if views != "1" else {}
    if quantized:
        newer["quantization"] = f"int8, revision {REVISION}"
    return {**identity, **newer}


def preprocessing_identity(processor: ViTImageProcessor) -> dict[str, Any]:
    """What happens to a photo before the model. `processor.size` is the model's input size."""
    return {
        "size": list(processor.height_width),
        "resample": processor.resample,
        "rescale": processor.rescale_factor if processor.do_rescale else None,
        "mean": list(processor.image_mean) if processor.do_normalize else None,
        "std": list(processor.image_std) if processor.do_normalize else None,
    }


def config_identity(config: ViTMAEConfig | ViTConfig) -> dict[str, Any]:
    """The fields of the configuration that affect the encoder's output."""
    fields = {name: getattr(config, name) for name in _CONFIG_FIELDS}
    return {**fields, "layer_norm_eps": float(config.layer_norm_eps), "image_size": list(config.image_shape)}
