"""The shapes of the models, the rules they obey, and `config.json`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae import config_rules as rules
from vitmae_search.vitmae.activations import Activation, activation_name
from vitmae_search.vitmae.checkpoint.locate import CONFIG_NAME, find_config
from vitmae_search.vitmae.json_files import read_json, write_json

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
    own_rules: ClassVar[dict[str, rules.Rule]] = rules.ENCODER_RULES

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
        for name, (holds, rule) in {**self.own_rules, **rules.OUTPUT_RULES}.items():
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
            if rule in (rules.SHARE, rules.POSITIVE):
                values[name] = float(values[name])  # transformers 5 refuses a 0 where it expects 0.0
            elif rule is rules.ACTIVATION:
                values[name] = activation_name(name, values[name])
            elif isinstance(values[name], tuple):
                values[name] = list(values[name])
        changed = {f.name: getattr(self, f.name) for f in fields(self) if f.name in rules.OUTPUT_RULES}
        changed = {name: value for name, value in changed.items() if value != rules.OUTPUT_DEFAULTS[name]}
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
    own_rules: ClassVar[dict[str, rules.Rule]] = {
        **rules.ENCODER_RULES,
        "decoder_num_attention_heads": rules.COUNT,
        "decoder_hidden_size": rules.WIDTH,
        "decoder_num_hidden_layers": rules.COUNT,
        "decoder_intermediate_size": rules.COUNT,
        "mask_ratio": rules.SHARE,
        "norm_pix_loss": rules.FLAG,
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
    `encoder_stride` is kept for files alone.
    """

    model_type: ClassVar[str] = "vit"
    own_rules: ClassVar[dict[str, rules.Rule]] = {
        **rules.ENCODER_RULES,
        "encoder_stride": rules.COUNT,
        "pooler_output_size": rules.COUNT,
        "pooler_act": rules.ACTIVATION,
    }

    encoder_stride: int = 16
    pooler_output_size: int | None = None
    pooler_act: str | Activation = "tanh"
    num_labels: int | None = field(default=None, repr=False, kw_only=True)
    id2label: dict[int, str] | None = field(default=None, repr=False, kw_only=True)
    label2id: dict[str, int] | None = field(default=None, repr=False, kw_only=True)
    problem_type: str | None = field(default=None, repr=False, kw_only=True)

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
        holds, rule = rules.PROBLEM_TYPE
        if not holds(self.problem_type):
            raise ConfigError("problem_type", self.problem_type, rule)

    def to_dict(self) -> dict[str, Any]:
        assert self.id2label is not None
        values = {
            **super().to_dict(),
            "id2label": {str(number): label for number, label in self.id2label.items()},
            "label2id": self.label2id,
        }
        return values if self.problem_type is None else {**values, "problem_type": self.problem_type}

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """As above; another number of labels, or other labels, take the place of those that were there."""
        labels = {"num_labels", "id2label", "label2id"}
        if "id2label" in overrides or overrides.get("num_labels", self.num_labels) != self.num_labels:
            overrides = {**dict.fromkeys(labels), **overrides}
        return super().with_overrides(overrides)


def _pair(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)
