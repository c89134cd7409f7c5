"""The shapes of the models, the rules they obey, and `config.json`.

The rules that a configuration's fields obey, each with the words that say so.

What `hidden_act` may be: a name, or a function.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, Literal, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.checkpoint.locate import CONFIG_NAME, find_config
from vitmae_search.vitmae.checkpoint.weights import read_json, write_json

Activation: TypeAlias = Callable[[Tensor], Tensor]

_TANH_GELU = partial(functional.gelu, approximate="tanh")

_FUNCTIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "selu": functional.selu,
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "tanh": torch.tanh,
}
ACTIVATIONS = tuple(_FUNCTIONS)
"""The names. "gelu_new" and "gelu_pytorch_tanh" are one function: GELU in its tanh approximation."""


def is_activation(value: object) -> bool:
    """Whether it is one of the names, or a function without parameters of its own."""
    if isinstance(value, nn.Module):
        return not any(True for _ in value.parameters())  # they would be one set, shared by all layers
    return value in ACTIVATIONS if isinstance(value, str) else callable(value) and not isinstance(value, type)


def activation_function(activation: str | Activation) -> Activation:
    """The function of a name; a function is its own."""
    return _FUNCTIONS[activation] if isinstance(activation, str) else activation


def gelu_form(activation: Activation) -> Literal["none", "tanh"] | None:
    """How `functional.gelu` names the GELU that this is: exact or approximate. None for another function."""
    if activation is functional.gelu:
        return "none"
    return "tanh" if activation is _TANH_GELU else None


def activation_name(field: str, activation: str | Activation) -> str:
    """The name to write to JSON. Raises `ConfigError` for a function that has none here."""
    if isinstance(activation, str):
        return activation
    for name, function in _FUNCTIONS.items():
        if activation is function:
            return name
    raise ConfigError(field, activation, f"has no name for a file; choose one of {', '.join(ACTIVATIONS)}")


Rule = tuple[Callable[[Any], bool], str]


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


COUNT: Rule = (_is_positive, "must be a positive integer")
WIDTH: Rule = (
    lambda v: _is_positive(v) and v % 4 == 0,
    "must be a positive multiple of 4 (sines and cosines of two axes)",
)
SHARE: Rule = (lambda v: _is_number(v) and 0 <= v < 1, "must be a number in [0, 1)")
POSITIVE: Rule = (lambda v: _is_number(v) and 0 < v < float("inf"), "must be a positive number")
FLAG: Rule = (lambda v: isinstance(v, bool), "must be true or false")
SIZE: Rule = (_is_size, "must be a positive integer, or a pair of them: height, width")
ACTIVATION: Rule = (is_activation, f"must be one of {', '.join(ACTIVATIONS)}, or a function of a tensor")

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
PROBLEM_TYPE: Rule = (
    lambda v: v is None or v in PROBLEM_TYPES,
    f"must be null or one of {', '.join(PROBLEM_TYPES)}",
)
GLOBAL_POOL: Rule = (lambda v: v in ("token", "avg"), 'must be "token" or "avg"')

ENCODER_RULES: dict[str, Rule] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": COUNT,
    "num_attention_heads": COUNT,
    "intermediate_size": COUNT,
    "hidden_act": ACTIVATION,
    "hidden_dropout_prob": SHARE,
    "attention_probs_dropout_prob": SHARE,
    "initializer_range": POSITIVE,
    "layer_norm_eps": POSITIVE,
    "image_size": SIZE,
    "patch_size": SIZE,
    "num_channels": COUNT,
    "qkv_bias": FLAG,
}
OUTPUT_RULES: dict[str, Rule] = {
    "output_hidden_states": FLAG,
    "output_attentions": FLAG,
    "return_dict": FLAG,
}
OUTPUT_DEFAULTS = {"output_hidden_states": False, "output_attentions": False, "return_dict": True}


MODEL_TYPES = ("vit_mae", "vit")
"""`model_type` of configurations whose encoder is this one."""

Size = int | tuple[int, int]


@dataclass
class EncoderConfig:
    """What every encoder here has; the defaults are those of facebook/vit-mae-base.

    `image_size` and `patch_size` are a side in pixels, or (height, width). `hidden_act` is a name or a
    function. `output_hidden_states`, `output_attentions` and `return_dict` are what `forward` does unless
    it is told otherwise. `extra` keeps whatever else a config.json had, so that nothing is lost on the
    way through.

    Raises `errors.ConfigError` with the field, its value and the rule it breaks.
    """

    model_type: ClassVar[str] = ""
    own_rules: ClassVar[dict[str, Rule]] = ENCODER_RULES

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str | Activation = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    image_size: Size = 224
    patch_size: Size = 16
    num_channels: int = 3
    qkv_bias: bool = True
    output_hidden_states: bool = field(default=False, repr=False, kw_only=True)
    output_attentions: bool = field(default=False, repr=False, kw_only=True)
    return_dict: bool = field(default=True, repr=False, kw_only=True)
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            if isinstance(getattr(self, name), list):  # JSON has no tuples
                setattr(self, name, tuple(getattr(self, name)))
        self.validate()

    def validate(self) -> None:
        """Check every field again, after one was assigned."""
        for name, (holds, rule) in {**self.own_rules, **OUTPUT_RULES}.items():
            value = getattr(self, name)
            if not holds(value):
                raise ConfigError(name, value, rule)
        self._check_heads("num_attention_heads", "hidden_size")
        sides = zip(self.image_shape, self.patch_shape, strict=True)
        if any(side % patch for side, patch in sides):
            raise ConfigError("patch_size", self.patch_size, f"must tile image_size={self.image_size}")

    def _check_heads(self, heads: str, width: str) -> None:
        if getattr(self, width) % getattr(self, heads):
            raise ConfigError(heads, getattr(self, heads), f"must divide {width}={getattr(self, width)}")

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return _pair(self.image_size)

    @property
    def patch_shape(self) -> tuple[int, int]:
        """A patch's height and width in pixels: (ph, pw)."""
        return _pair(self.patch_size)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches down and patches across: (gh, gw)."""
        (height, width), (ph, pw) = self.image_shape, self.patch_shape
        return height // ph, width // pw

    @property
    def num_patches(self) -> int:
        """L = gh·gw."""
        gh, gw = self.grid_size
        return gh * gw

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the fields, `model_type`, and what `extra` keeps.

        Raises `ConfigError` for a function that has no name.
        """
        values = {name: getattr(self, name) for name in self.own_rules}
        for name, rule in self.own_rules.items():
            if rule in (SHARE, POSITIVE):
                values[name] = float(values[name])  # transformers 5 refuses a 0 where it expects 0.0
            elif rule is ACTIVATION:
                values[name] = activation_name(name, values[name])
            elif isinstance(values[name], tuple):
                values[name] = list(values[name])
        changed = {f.name: getattr(self, f.name) for f in fields(self) if f.name in OUTPUT_RULES}
        changed = {name: value for name, value in changed.items() if value != OUTPUT_DEFAULTS[name]}
        return {**self.extra, **values, **changed, "model_type": self.model_type}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Unknown keys go to `extra`; absent ones take their default."""
        model_type = values.get("model_type", cls.model_type)
        if model_type not in MODEL_TYPES:
            raise ConfigError("model_type", model_type, f"must be one of {', '.join(MODEL_TYPES)}")
        names = {f.name for f in fields(cls)} - {"extra"}
        known = {name: value for name, value in values.items() if name in names}
        extra = {k: v for k, v in values.items() if k not in known and k != "model_type"}
        return cls(**known, extra=extra)

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a config.json. Raises `CheckpointError` where it is not a JSON object."""
        return cls.from_dict(read_json(path))

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Write a config.json."""
        write_json(path, self.to_dict())

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> Self:
        """Read config.json from a folder, a file, or a hub id; `overrides` replace fields.

        Raises `ModelNotFound` where there is none, `ConfigError` for an override that is no field.
        """
        path = find_config(name_or_path, revision=revision, local_files_only=local_files_only)
        return cls.from_json_file(path).with_overrides(overrides)

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """A copy with some fields replaced. Raises `ConfigError` for one that it does not have."""
        names = {f.name for f in fields(self)} - {"extra"}
        for name, value in overrides.items():
            if name not in names:
                raise ConfigError(name, value, f"is not a field of {type(self).__name__}")
        current = {name: getattr(self, name) for name in names}
        return type(self)(**{**current, **overrides}, extra=dict(self.extra))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json into a folder."""
        os.makedirs(folder, exist_ok=True)
        self.to_json_file(os.path.join(folder, CONFIG_NAME))


@dataclass
class ViTMAEConfig(EncoderConfig):
    """The architecture of a ViTMAE: the encoder's fields, and the decoder's.

    `mask_ratio` is the share of patches that the encoder does not see, 0 ≤ r < 1. `norm_pix_loss` trains
    on patches brought to mean 0 and deviation 1.
    """

    model_type: ClassVar[str] = "vit_mae"
    own_rules: ClassVar[dict[str, Rule]] = {
        **ENCODER_RULES,
        "decoder_num_attention_heads": COUNT,
        "decoder_hidden_size": WIDTH,
        "decoder_num_hidden_layers": COUNT,
        "decoder_intermediate_size": COUNT,
        "mask_ratio": SHARE,
        "norm_pix_loss": FLAG,
    }

    decoder_num_attention_heads: int = 16
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_intermediate_size: int = 2048
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False

    def validate(self) -> None:
        super().validate()
        self._check_heads("decoder_num_attention_heads", "decoder_hidden_size")


@dataclass
class ViTConfig(EncoderConfig):
    """The architecture of a ViT encoder, with its pooler and the classes of its head.

    `id2label` names the classes 0 to `num_labels` - 1; either follows from the other, and without both
    there are two. `problem_type` chooses the loss; where it is None the labels tell (`classification_loss`).
    `encoder_stride` is kept for files alone. `global_pool` is what the classifier reads, in timm's words:
    "token", the CLS token after the final norm, or "avg", the mean of the patch tokens with a layer norm
    (`fc_norm`) of its own and no final norm. The reference has "token" alone.
    """

    model_type: ClassVar[str] = "vit"
    own_rules: ClassVar[dict[str, Rule]] = {
        **ENCODER_RULES,
        "encoder_stride": COUNT,
        "pooler_output_size": COUNT,
        "pooler_act": ACTIVATION,
    }

    encoder_stride: int = 16
    pooler_output_size: int | None = None
    pooler_act: str | Activation = "tanh"
    num_labels: int | None = field(default=None, repr=False, kw_only=True)
    id2label: dict[int, str] | None = field(default=None, repr=False, kw_only=True)
    label2id: dict[str, int] | None = field(default=None, repr=False, kw_only=True)
    problem_type: str | None = field(default=None, repr=False, kw_only=True)
    global_pool: str = field(default="token", repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.pooler_output_size is None:
            self.pooler_output_size = self.hidden_size
        if self.id2label is None:
            count = 2 if self.num_labels is None else self.num_labels
            self.id2label = {number: f"LABEL_{number}" for number in range(count)}
        self.id2label = {int(number): str(label) for number, label in self.id2label.items()}
        if self.num_labels is None:
            self.num_labels = len(self.id2label)
        if self.label2id is None:
            self.label2id = {label: number for number, label in self.id2label.items()}
        super().__post_init__()

    def validate(self) -> None:
        super().validate()
        assert self.id2label is not None
        assert self.num_labels is not None
        if set(self.id2label) != set(range(self.num_labels)):
            rule = f"must name as many classes as num_labels={self.num_labels} says, counted from 0"
            raise ConfigError("id2label", self.id2label, rule)
        for name, (holds, rule) in {"problem_type": PROBLEM_TYPE, "global_pool": GLOBAL_POOL}.items():
            if not holds(getattr(self, name)):
                raise ConfigError(name, getattr(self, name), rule)

    def to_dict(self) -> dict[str, Any]:
        assert self.id2label is not None
        values = {
            **super().to_dict(),
            "id2label": {str(number): label for number, label in self.id2label.items()},
            "label2id": self.label2id,
        }
        if self.problem_type is not None:
            values["problem_type"] = self.problem_type
        if self.global_pool != "token":
            values["global_pool"] = self.global_pool
        return values

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """As above; another number of labels, or other labels, take the place of those that were there."""
        labels = {"num_labels", "id2label", "label2id"}
        if "id2label" in overrides or overrides.get("num_labels", self.num_labels) != self.num_labels:
            overrides = {**dict.fromkeys(labels), **overrides}
        return super().with_overrides(overrides)


def _pair(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)
