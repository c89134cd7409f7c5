"""The shape of a ViTMAE: nineteen fields, the rules they obey, and `config.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from vitmae_search.errors import CheckpointError, ConfigError, display_path

ACTIVATIONS = ("gelu", "relu", "selu", "gelu_new", "gelu_pytorch_tanh")
"""What `hidden_act` may be. The last two are one function: GELU in its tanh approximation."""

MODEL_TYPES = ("vit_mae", "vit")
"""`model_type` of configurations whose encoder is this one."""

_Rule = tuple[Callable[[Any], bool], str]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return _is_int(value) and value > 0  # type: ignore[operator]


def _is_size(value: object) -> bool:
    if isinstance(value, tuple):
        return len(value) == 2 and all(_is_positive(side) for side in value)
    return _is_positive(value)


_COUNT: _Rule = (_is_positive, "must be a positive integer")
_WIDTH: _Rule = (
    lambda v: _is_positive(v) and v % 4 == 0,
    "must be a positive multiple of 4 (sines and cosines of two axes)",
)
_SHARE: _Rule = (lambda v: _is_number(v) and 0 <= v < 1, "must be a number in [0, 1)")
_POSITIVE: _Rule = (lambda v: _is_number(v) and 0 < v < float("inf"), "must be a positive number")
_FLAG: _Rule = (lambda v: isinstance(v, bool), "must be true or false")

_RULES: dict[str, _Rule] = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _COUNT,
    "num_attention_heads": _COUNT,
    "intermediate_size": _COUNT,
    "hidden_act": (lambda v: v in ACTIVATIONS, f"must be one of {', '.join(ACTIVATIONS)}"),
    "hidden_dropout_prob": _SHARE,
    "attention_probs_dropout_prob": _SHARE,
    "initializer_range": _POSITIVE,
    "layer_norm_eps": _POSITIVE,
    "image_size": (_is_size, "must be a positive integer, or a pair of them: height, width"),
    "patch_size": _COUNT,
    "num_channels": _COUNT,
    "qkv_bias": _FLAG,
    "decoder_num_attention_heads": _COUNT,
    "decoder_hidden_size": _WIDTH,
    "decoder_num_hidden_layers": _COUNT,
    "decoder_intermediate_size": _COUNT,
    "mask_ratio": _SHARE,
    "norm_pix_loss": _FLAG,
}


@dataclass
class ViTMAEConfig:
    """The architecture of a ViTMAE; the defaults are those of facebook/vit-mae-base.

    `image_size` is the side in pixels, or (height, width). `mask_ratio` is the share of patches that the
    encoder does not see, 0 ≤ r < 1. `norm_pix_loss` trains on patches brought to mean 0 and deviation 1.
    `extra` keeps whatever else a config.json had, so that nothing is lost on the way through.

    Raises `errors.ConfigError` with the field, its value and the rule it breaks.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    num_channels: int = 3
    qkv_bias: bool = True
    decoder_num_attention_heads: int = 16
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_intermediate_size: int = 2048
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.image_size, list):  # JSON has no tuples
            self.image_size = tuple(self.image_size)
        self.validate()

    def validate(self) -> None:
        """Check every field again, after one was assigned."""
        for name, (holds, rule) in _RULES.items():
            value = getattr(self, name)
            if not holds(value):
                raise ConfigError(name, value, rule)
        for heads, width in (
            ("num_attention_heads", "hidden_size"),
            ("decoder_num_attention_heads", "decoder_hidden_size"),
        ):
            if getattr(self, width) % getattr(self, heads):
                raise ConfigError(
                    heads, getattr(self, heads), f"must divide {width}={getattr(self, width)}"
                )
        if any(side % self.patch_size for side in self.image_shape):
            raise ConfigError("patch_size", self.patch_size, f"must tile image_size={self.image_size}")

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        size = self.image_size
        return size if isinstance(size, tuple) else (size, size)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches down and patches across: (gh, gw)."""
        height, width = self.image_shape
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """L = gh·gw."""
        gh, gw = self.grid_size
        return gh * gw

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the nineteen fields, `model_type`, and what `extra` keeps."""
        values = {name: getattr(self, name) for name in _RULES}
        # transformers 5 refuses a mask_ratio of 0 where it expects 0.0
        values.update({n: float(values[n]) for n, rule in _RULES.items() if rule in (_SHARE, _POSITIVE)})
        if isinstance(self.image_size, tuple):
            values["image_size"] = list(self.image_size)
        return {**self.extra, **values, "model_type": "vit_mae"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Unknown keys go to `extra`; absent ones take their default."""
        model_type = values.get("model_type", "vit_mae")
        if model_type not in MODEL_TYPES:
            raise ConfigError("model_type", model_type, f"must be one of {', '.join(MODEL_TYPES)}")
        known = {name: value for name, value in values.items() if name in _RULES}
        extra = {k: v for k, v in values.items() if k not in known and k != "model_type"}
        return cls(**known, extra=extra)

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a config.json. Raises `CheckpointError` where it is not a JSON object."""
        return cls.from_dict(read_json(path))

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Write a config.json."""
        write_json(path, self.to_dict())


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file. Raises `CheckpointError` for anything else."""
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{display_path(path)} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{display_path(path)} does not hold a JSON object.")
    return values


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, with its keys sorted."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=2, sort_keys=True)
        file.write("\n")


assert tuple(_RULES) == tuple(f.name for f in fields(ViTMAEConfig) if f.name != "extra")
