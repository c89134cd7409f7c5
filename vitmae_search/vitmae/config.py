"""The architectures of the models: their fields, the rules that these obey, and `config.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.checkpoint.locate import CONFIG_NAME, find_config
from vitmae_search.vitmae.checkpoint.weights import read_json

Activation: TypeAlias = Callable[[Tensor], Tensor]

AttentionImplementation = Literal["sdpa", "eager"]
"""How attention is computed, with the same results.

"sdpa" is torch's fused kernel; "eager" trains about twice as fast in bf16 on a CPU, and is the one that can
return attention weights."""

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
"""Names of activations. "gelu_new" and "gelu_pytorch_tanh" are both GELU in its tanh approximation."""


def is_activation(value: object) -> bool:
    """Whether a value is the name of an activation, or a function or module without parameters."""
    if isinstance(value, nn.Module):
        return not any(True for _ in value.parameters())  # all layers would share them
    return value in ACTIVATIONS if isinstance(value, str) else callable(value) and not isinstance(value, type)


def activation_function(activation: str | Activation) -> Activation:
    """The function that a name stands for; a function is returned as it is."""
    return _FUNCTIONS[activation] if isinstance(activation, str) else activation


def activation_name(field: str, activation: str | Activation) -> str:
    """The name of an activation, for a file.

    Args:
        field: The configuration field that holds it, for the error.
        activation: A name or a function.

    Raises:
        ConfigError: The function has no name here.
    """
    if isinstance(activation, str):
        return activation
    for name, function in _FUNCTIONS.items():
        if activation is function:
            return name
    raise ConfigError(field, activation, f"has no name for a file; choose one of {', '.join(ACTIVATIONS)}")


Rule = tuple[Callable[[Any], bool], str]

_MAX_LAYERS, _MAX_LABELS = 1000, 1_000_000
"""More than any model has. A file that claims more would cost minutes and gigabytes before it is refused."""
"""A test of a field's value, and the sentence that says what the value must be."""


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
DEPTH: Rule = (lambda v: _is_positive(v) and v <= _MAX_LAYERS, f"must be an integer from 1 to {_MAX_LAYERS}")
WIDTH: Rule = (
    lambda v: _is_positive(v) and v % 4 == 0,
    "must be a positive multiple of 4 (sines and cosines of two axes)",
)
SHARE: Rule = (lambda v: _is_number(v) and 0 <= v < 1, "must be a number in [0, 1)")
POSITIVE: Rule = (lambda v: _is_number(v) and 0 < v < float("inf"), "must be a positive number")
FLAG: Rule = (lambda v: isinstance(v, bool), "must be true or false")
SIZE: Rule = (_is_size, "must be a positive integer, or a pair of them: height, width")
ACTIVATION: Rule = (is_activation, f"must be one of {', '.join(ACTIVATIONS)}, or a function of a tensor")

GLOBAL_POOL: Rule = (lambda v: v in ("token", "avg"), 'must be "token" or "avg"')
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

ENCODER_RULES: dict[str, Rule] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
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
COMMON_RULES: dict[str, Rule] = {
    **OUTPUT_RULES,
    "attn_implementation": (
        lambda v: v is None or v in get_args(AttentionImplementation),
        "must be sdpa or eager",
    ),
    "problem_type": (
        lambda v: v is None or v in PROBLEM_TYPES,
        f"must be null or one of {', '.join(PROBLEM_TYPES)}",
    ),
}
OUTPUT_DEFAULTS = {"output_hidden_states": False, "output_attentions": False, "return_dict": True}

_UNSET_DEFAULTS = {
    "architectures": None,
    "transformers_version": None,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
}
"""Attributes of the reference's base class that change nothing here, and their values until they are set."""
_INTERNAL = ("_attn_implementation_internal", "_experts_implementation_internal", "_commit_hash")
"""Keys that the reference ignores in files as well."""

MODEL_TYPES = ("vit_mae", "vit")
"""`model_type` of the configurations whose encoder is this one."""

Size = int | tuple[int, int]


@dataclass(init=False)
class EncoderConfig:
    """The fields that every encoder has. The defaults are those of facebook/vit-mae-base.

    As in the reference, the constructor takes keyword arguments only, unknown ones are kept as attributes
    and written to config.json, and assigned values are checked when a model is made (or by `validate`).

    Attributes:
        hidden_size: Width D of the encoder; a multiple of 4.
        num_hidden_layers: Number of layers.
        num_attention_heads: Attention heads; they divide the width.
        intermediate_size: Width of the MLP.
        hidden_act: Activation of the MLP: a name of `ACTIVATIONS`, or a function of a tensor.
        hidden_dropout_prob: Dropout after linear maps, in [0, 1).
        attention_probs_dropout_prob: Dropout of attention weights, in [0, 1).
        initializer_range: Standard deviation of new tokens and heads.
        layer_norm_eps: Epsilon of layer norms.
        image_size: A side in pixels, or (height, width).
        patch_size: A side in pixels, or (height, width); patches tile the image.
        num_channels: Channels of an image.
        qkv_bias: Whether query, key and value have a bias.
        output_hidden_states: Whether `forward` returns hidden states unless it is told otherwise.
        output_attentions: Whether `forward` returns attention weights unless it is told otherwise.
        return_dict: Whether `forward` returns an output object, not a tuple, unless it is told otherwise.
        id2label: Names of a classifier's classes, counted from 0.
        label2id: The inverse of `id2label`.
        problem_type: Which loss a classifier has; None decides by the labels (`loss.classification_loss`).
        attn_implementation: How models compute attention; None is "sdpa", or "eager" with
            `output_attentions`. It is not written to files.
        name_or_path: Where the configuration was read from. It is not written to files.
        extra: All other keys, with their JSON values. They can be read and set as attributes too.

    Raises:
        ConfigError: A value breaks its rule.
    """

    model_type: ClassVar[str] = ""
    own_rules: ClassVar[dict[str, Rule]] = ENCODER_RULES
    sub_configs: ClassVar[dict[str, Any]] = {}

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
    id2label: dict[int, str] = field(default_factory=dict, repr=False, kw_only=True)
    label2id: dict[str, int] = field(default_factory=dict, repr=False, kw_only=True)
    problem_type: str | None = field(default=None, repr=False, kw_only=True)
    attn_implementation: AttentionImplementation | None = field(
        default=None, repr=False, compare=False, kw_only=True
    )
    name_or_path: str = field(default="", repr=False, compare=False, kw_only=True)
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    def __init__(self, **values: Any) -> None:
        values = {**values.pop("extra", {}), **values}
        self.extra = {}
        if "model_type" in values:
            _check_model_type(values.pop("model_type"))
        labels = {name: values.pop(name, None) for name in ("num_labels", "id2label", "label2id")}
        for own in fields(self):
            if own.name in values:
                setattr(self, own.name, values.pop(own.name))
            elif own.name not in (*labels, "extra"):
                assert own.default is not MISSING
                setattr(self, own.name, own.default)
        for name, value in values.items():
            if name not in _INTERNAL:
                setattr(self, name, value)
        self._set_labels(**labels)
        self.validate()

    def _set_labels(
        self, num_labels: int | None, id2label: Mapping[Any, str] | None, label2id: dict[str, int] | None
    ) -> None:
        """Set the classes: named, or as many as there are said to be, or two."""
        if id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
        else:
            self.id2label = dict(id2label)
            self.label2id = {label: number for number, label in self.id2label.items()}
            if num_labels not in (None, self.num_labels):
                self._refuse_labels(num_labels)
        if label2id is not None:
            self.label2id = label2id

    def _refuse_labels(self, num_labels: int | None) -> None:
        rule = f"must name as many classes as num_labels={num_labels} says, counted from 0"
        raise ConfigError("id2label", self.id2label, rule)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("image_size", "patch_size") and isinstance(value, list):
            value = tuple(value)  # JSON has no tuples
        elif name == "id2label":
            value = {int(number): str(label) for number, label in value.items()}  # nor integer keys
        cls = type(self)
        if name in cls.__dataclass_fields__ or isinstance(getattr(cls, name, None), property):
            object.__setattr__(self, name, value)
        else:
            self.extra[name] = value

    if not TYPE_CHECKING:  # so that mypy goes on to report fields that do not exist

        def __getattr__(self, name: str) -> Any:
            """What `extra` keeps, as an attribute."""
            extra = self.__dict__.get("extra", {})
            if name in extra:
                return extra[name]
            if name in _UNSET_DEFAULTS:
                return _UNSET_DEFAULTS[name]
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

        def __delattr__(self, name: str) -> None:
            if name in self.extra:
                del self.extra[name]
            else:
                object.__delattr__(self, name)

    def __iter__(self) -> Iterator[str]:
        """Names of all attributes, as in the reference."""
        yield from (own.name for own in fields(self) if own.name != "extra")
        yield from self.extra

    def validate(self) -> None:
        """Check every field, also those that were assigned since.

        Raises:
            ConfigError: A field breaks its rule.
        """
        for name, (holds, rule) in {**self.own_rules, **COMMON_RULES}.items():
            value = getattr(self, name)
            if not holds(value):
                raise ConfigError(name, value, rule)
        self._check_heads("num_attention_heads", "hidden_size")
        sides = zip(self.image_shape, self.patch_shape, strict=True)
        if any(side % patch for side, patch in sides):
            raise ConfigError("patch_size", self.patch_size, f"must tile image_size={self.image_size}")
        if set(self.id2label) != set(range(self.num_labels)):
            self._refuse_labels(self.num_labels)

    def _check_heads(self, heads: str, width: str) -> None:
        if getattr(self, width) % getattr(self, heads):
            raise ConfigError(heads, getattr(self, heads), f"must divide {width}={getattr(self, width)}")

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of an image in pixels: (H, W)."""
        return _pair(self.image_size)

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Height and width of a patch in pixels: (ph, pw)."""
        return _pair(self.patch_size)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches down and patches across: (gh, gw)."""
        (height, width), (ph, pw) = self.image_shape, self.patch_shape
        return height // ph, width // pw

    @property
    def num_patches(self) -> int:
        """Patches of an image: L = gh·gw."""
        gh, gw = self.grid_size
        return gh * gw

    @property
    def num_labels(self) -> int:
        """Number of classes. Another number, when it is assigned, names them LABEL_0, LABEL_1, ..."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if not _is_int(count) or not 0 <= count <= _MAX_LABELS:
            raise ConfigError("num_labels", count, f"must be an integer from 0 to {_MAX_LABELS:,}")
        if "id2label" not in self.__dict__ or count != self.num_labels:
            self.id2label = _numbered_labels(count)
            self.label2id = {label: number for number, label in self.id2label.items()}

    @property
    def dtype(self) -> torch.dtype | None:
        """The weights' dtype as the file says it; None where it does not. A name may be assigned too."""
        name = self.extra.get("dtype", self.extra.get("torch_dtype"))
        return None if name is None else getattr(torch, name)

    @dtype.setter
    def dtype(self, dtype: torch.dtype | str | None) -> None:
        self.extra.pop("torch_dtype", None)
        self._set_dtype("dtype", dtype)

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The older name of `dtype`."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, dtype: torch.dtype | str | None) -> None:
        self._set_dtype("torch_dtype", dtype)

    def _set_dtype(self, key: str, dtype: torch.dtype | str | None) -> None:
        """Keep a dtype in `extra` by its name, for JSON."""
        self.extra.pop(key, None)
        if dtype is None:
            return
        name = str(dtype).removeprefix("torch.")
        if not isinstance(getattr(torch, name, None), torch.dtype):
            raise ConfigError(key, dtype, "must be a torch dtype or the name of one")
        self.extra[key] = name

    @property
    def use_return_dict(self) -> bool:
        """The older name of `return_dict`, which heads of one's own may read."""
        return self.return_dict

    @property
    def _attn_implementation(self) -> AttentionImplementation:
        """How a model of this configuration computes attention, under the reference's name."""
        return self.attn_implementation or ("eager" if self.output_attentions else "sdpa")

    @_attn_implementation.setter
    def _attn_implementation(self, implementation: AttentionImplementation | None) -> None:
        self.attn_implementation = implementation

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Self:
        """The configuration itself: there is no text model in it.

        Args:
            decoder: Ignored.
            encoder: Ignored.
        """
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the architecture, `model_type`, `extra`, and what is not the base class's default.

        Raises:
            ConfigError: A function is set that has no name.
        """
        values = {name: getattr(self, name) for name in self.own_rules}
        for name, rule in self.own_rules.items():
            if rule in (SHARE, POSITIVE):
                values[name] = float(values[name])  # transformers 5 refuses a 0 where it expects 0.0
            elif rule is ACTIVATION:
                values[name] = activation_name(name, values[name])
            elif isinstance(values[name], tuple):
                values[name] = list(values[name])
        changed = {name: getattr(self, name) for name in OUTPUT_RULES}
        changed = {name: value for name, value in changed.items() if value != OUTPUT_DEFAULTS[name]}
        if self.problem_type is not None:
            changed["problem_type"] = self.problem_type
        if self.id2label != _numbered_labels(2):
            changed.update(self._labels_to_dict())
        return {**self.extra, **values, **changed, "model_type": self.model_type}

    def _labels_to_dict(self) -> dict[str, Any]:
        names = {str(number): label for number, label in self.id2label.items()}
        return {"id2label": names, "label2id": dict(self.label2id)}

    def to_diff_dict(self) -> dict[str, Any]:
        """As `to_dict`, which leaves out the base class's defaults already."""
        return self.to_dict()

    def to_json_string(self, use_diff: bool = True) -> str:
        """`to_dict` as the text of a config.json. `use_diff` is ignored: see `to_diff_dict`."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write a config.json.

        Args:
            path: The file.
            use_diff: Ignored; see `to_diff_dict`.
        """
        text = self.to_json_string(use_diff)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def update(self, values: Mapping[str, Any]) -> None:
        """Assign several attributes."""
        for name, value in values.items():
            setattr(self, name, value)

    @overload
    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, return_unused_kwargs: Literal[False] = False, **overrides: Any
    ) -> Self: ...

    @overload
    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, return_unused_kwargs: Literal[True], **overrides: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, return_unused_kwargs: bool = False, **overrides: Any
    ) -> Any:
        """The inverse of `to_dict`.

        Args:
            values: Fields and other keys; absent fields take their default.
            return_unused_kwargs: Return a pair: the configuration, and the overrides that it has no
                attribute for.
            **overrides: Fields that replace those of `values`.

        Raises:
            ConfigError: Another kind of model, a value that breaks its rule, or an override that is no
                attribute.
        """
        _check_model_type(values.get("model_type", cls.model_type))
        config = cls(**values)
        unused = {name: value for name, value in overrides.items() if not config._has(name)}
        if not return_unused_kwargs:
            return config.with_overrides(overrides)
        return config.with_overrides({n: v for n, v in overrides.items() if n not in unused}), unused

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a config.json. Raises `CheckpointError` where it is not a JSON object."""
        return cls.from_dict(read_json(path))

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[False] = False,
        **options: Any,
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[True],
        **options: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        subfolder: str = "",
        return_unused_kwargs: bool = False,
        **overrides: Any,
    ) -> Any:
        """Read config.json from a folder, a file, or a hub id.

        Args:
            pretrained_model_name_or_path: A folder, a file in it, a JSON file of any name, or a hub id.
            cache_dir: The folder of the local cache; None is the hub client's own.
            force_download: Download again what is cached.
            local_files_only: Take the file from the cache alone.
            token: The hub's access token; True for the stored one, False for none.
            revision: The hub's branch, tag or commit; None is "main".
            subfolder: The folder inside the folder or repository that holds the file.
            return_unused_kwargs: Return a pair: the configuration, and the overrides that it has no
                attribute for.
            **overrides: Fields that replace the file's.

        Raises:
            ModelNotFound: There is no such folder, file or hub id, or no config.json in it.
            ConfigError: A value breaks its rule, or an override is no attribute.
        """
        path = find_config(
            pretrained_model_name_or_path,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            revision=revision,
            subfolder=subfolder,
        )
        overrides = {"name_or_path": os.fspath(pretrained_model_name_or_path), **overrides}
        for name in ("trust_remote_code", "_from_auto", "_from_pipeline"):
            overrides.pop(name, None)  # no code is ever loaded from a hub
        values = read_json(path)
        if return_unused_kwargs:
            return cls.from_dict(values, return_unused_kwargs=True, **overrides)
        return cls.from_dict(values, **overrides)

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """A copy with some fields replaced.

        Another number of classes, or other names of them, take the place of the old ones.

        Raises:
            ConfigError: An override is no attribute, or its value breaks its rule.
        """
        for name, value in overrides.items():
            if not self._has(name):
                raise ConfigError(name, value, f"is not a field of {type(self).__name__}")
        current = {own.name: getattr(self, own.name) for own in fields(self)}
        labels = ("id2label", "label2id")
        if "id2label" in overrides or overrides.get("num_labels", self.num_labels) != self.num_labels:
            current.update(dict.fromkeys(labels))
        current.update({name: value for name, value in overrides.items() if value != "auto"})
        return type(self)(**current)

    def _has(self, name: str) -> bool:
        """Whether it is an attribute that may be set: a field, a property with a setter, or in `extra`."""
        if name in self.__dataclass_fields__:
            return name != "extra"
        own = getattr(type(self), name, None)
        settable = isinstance(own, property) and own.fset is not None
        return settable or name in self.extra or name in _UNSET_DEFAULTS

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False) -> None:
        """Write config.json into a folder, which is made where it does not exist.

        Args:
            save_directory: The folder.
            push_to_hub: Must be False: nothing is uploaded from here.

        Raises:
            ConfigError: A function is set that has no name, or `push_to_hub` is on.
        """
        if push_to_hub:
            raise ConfigError("push_to_hub", push_to_hub, NO_UPLOADS)
        self.to_json_string()  # raises before the folder is made
        os.makedirs(save_directory, exist_ok=True)
        self.to_json_file(os.path.join(save_directory, CONFIG_NAME))


NO_UPLOADS = (
    "is not supported; save the model to a folder, and upload that with huggingface_hub's upload_folder"
)


@dataclass(init=False)
class ViTMAEConfig(EncoderConfig):
    """The architecture of a ViTMAE: the encoder's fields, and the decoder's.

    Attributes:
        decoder_num_attention_heads: Attention heads of the decoder; they divide its width.
        decoder_hidden_size: Width of the decoder; a multiple of 4.
        decoder_num_hidden_layers: Number of decoder layers.
        decoder_intermediate_size: Width of the decoder's MLP.
        mask_ratio: Share of patches that the encoder does not see, 0 ≤ r < 1.
        norm_pix_loss: Train on patches normalised to mean 0 and deviation 1.

    Example:
        >>> config = ViTMAEConfig(image_size=(64, 96), patch_size=8, mask_ratio=0.5)
        >>> config.grid_size, config.num_patches, config.hidden_size
        ((8, 12), 96, 768)
    """

    model_type: ClassVar[str] = "vit_mae"
    own_rules: ClassVar[dict[str, Rule]] = {
        **ENCODER_RULES,
        "decoder_num_attention_heads": COUNT,
        "decoder_hidden_size": WIDTH,
        "decoder_num_hidden_layers": DEPTH,
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
        """As the base class, and the decoder's heads."""
        super().validate()
        self._check_heads("decoder_num_attention_heads", "decoder_hidden_size")


@dataclass(init=False)
class ViTConfig(EncoderConfig):
    """The architecture of a ViT encoder with a pooler, and the classes of its head.

    Attributes:
        encoder_stride: Kept for files; nothing here uses it.
        pooler_output_size: Width of the pooler's output; None, or not given, is `hidden_size`.
        pooler_act: Activation of the pooler.
        global_pool: What a classifier reads, in timm's words: "token", the CLS token after the final norm, or
            "avg", the mean of the patch tokens after a layer norm of its own (`fc_norm`) and no final norm.
            The reference has "token" alone.
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
    global_pool: str = field(default="token", repr=False, kw_only=True)

    def validate(self) -> None:
        """As the base class; the pooler is as wide as the encoder unless its width is given."""
        if self.pooler_output_size is None:
            self.pooler_output_size = self.hidden_size
        super().validate()
        holds, rule = GLOBAL_POOL
        if not holds(self.global_pool):
            raise ConfigError("global_pool", self.global_pool, rule)

    def to_dict(self) -> dict[str, Any]:
        """As the base class, and always with the classes."""
        values = {**super().to_dict(), **self._labels_to_dict()}
        return values if self.global_pool == "token" else {**values, "global_pool": self.global_pool}


def _check_model_type(model_type: str) -> None:
    if model_type not in MODEL_TYPES:
        raise ConfigError("model_type", model_type, f"must be one of {', '.join(MODEL_TYPES)}")


def _numbered_labels(count: int) -> dict[int, str]:
    """The names that the reference gives to classes without names."""
    return {number: f"LABEL_{number}" for number in range(count)}


def _pair(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)
