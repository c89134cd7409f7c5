"""What decides the vectors, as plain JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from vitmae_search.vitmae import ViTConfig, ViTImageProcessor, ViTMAEConfig, ViTMAEModel

_CONFIG = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("layer_norm_eps", "patch_size", "num_channels", "qkv_bias"),
)
"""The fields that reach the encoder's output at mask_ratio 0 without dropout; `image_size` is added."""


def identity_of(
    encoder: ViTMAEModel,
    processor: ViTImageProcessor,
    *,
    layers: tuple[int, ...],
    pooling: str,
    gem_power: float,
    views: str,
) -> dict[str, Any]:
    """Weights, configuration, preprocessing, layers, pooling and views; no paths, no device.

    `processor.size` is what is looked at. The decoder is left out: it takes no part. What is newer than a
    space that a library may hold is named only where it is not the default, so that the space stays valid.
    """
    parts = [{"gem": gem_power} if part == "gem" else part for part in pooling.split("+")]
    identity = {
        "weights": weights_digest(encoder.state_dict()),
        "config": config_of(encoder.config),
        "preprocessing": preprocessing_of(processor),
        "layers": list(layers),
        "pooling": parts[0] if len(parts) == 1 else parts,
    }
    return identity if views == "1" else {**identity, "views": views}


def preprocessing_of(processor: ViTImageProcessor) -> dict[str, Any]:
    """What happens to a photo before the model sees it. `processor.size` is what is looked at."""
    return {
        "size": list(processor.height_width),
        "resample": processor.resample,
        "rescale": processor.rescale_factor if processor.do_rescale else None,
        "mean": list(processor.image_mean) if processor.do_normalize else None,
        "std": list(processor.image_std) if processor.do_normalize else None,
    }


def config_of(config: ViTMAEConfig | ViTConfig) -> dict[str, Any]:
    """The fields of `_CONFIG`, and the size."""
    fields = {name: getattr(config, name) for name in _CONFIG}
    return {**fields, "layer_norm_eps": float(config.layer_norm_eps), "image_size": list(config.image_shape)}


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and fp32 values, in hex: the same for every layout, file and file dtype."""
    names = sorted(state)
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter's lock
        digests = list(pool.map(lambda name: _tensor_digest(state[name]), names))
    lines = [f"{n} {list(state[n].shape)} {digest}\n" for n, digest in zip(names, digests, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(values.data).hexdigest()
