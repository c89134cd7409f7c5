"""The base class of all models: a configuration, `from_pretrained`, `save_pretrained`, and utilities.

The names are those of the reference's `PreTrainedModel`, so that its users, its `Trainer` and Accelerate find
what they call.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, overload

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint as checkpoint_activations
from torch.utils.hooks import RemovableHandle

from vitmae_search.errors import CheckpointError, ConfigError, display_path
from vitmae_search.vitmae.checkpoint.checkpoint import (
    Checkpoint,
    LoadingInfo,
    choose_dtype,
    match_names,
    read_checkpoint,
)
from vitmae_search.vitmae.checkpoint.keys import to_hub_names
from vitmae_search.vitmae.checkpoint.locate import CONFIG_NAME, CheckpointFiles, find_checkpoint
from vitmae_search.vitmae.checkpoint.weights import write_json, write_shards
from vitmae_search.vitmae.config import (
    NO_UPLOADS,
    AttentionImplementation,
    EncoderConfig,
    ViTConfig,
    ViTMAEConfig,
)
from vitmae_search.vitmae.devices import choose_device
from vitmae_search.vitmae.layers import init_linears, set_attention, set_checkpointing

_WITHOUT_EFFECT = (
    *("low_cpu_mem_usage", "_fast_init", "mirror", "resume_download", "disable_mmap", "tqdm_class"),
    *("trust_remote_code", "weights_only", "_from_auto", "_from_pipeline", "_commit_hash"),
)
"""Arguments of the reference's `from_pretrained` that choose how it works, or what is always so here: weights
are loaded once and without running code, and no code comes from a hub."""

_FLOATS_ONLY = "is not supported: weights are floating point; quantise the loaded model with torchao"
_ON_ONE_DEVICE = "is not supported: a model is loaded on one device; spread it with accelerate.dispatch_model"
_NOT_DISTRIBUTED = "is not supported: wrap the loaded model in DistributedDataParallel or FSDP"
_NO_KERNELS = "is not supported: attention is sdpa or eager"
_NO_ADAPTERS = "is not supported: add adapters to the loaded model, with peft for example"
_NOT_SUPPORTED = {
    "quantization_config": _FLOATS_ONLY,
    "load_in_8bit": _FLOATS_ONLY,
    "load_in_4bit": _FLOATS_ONLY,
    "max_memory": _ON_ONE_DEVICE,
    "offload_folder": _ON_ONE_DEVICE,
    "offload_buffers": _ON_ONE_DEVICE,
    "offload_state_dict": _ON_ONE_DEVICE,
    "tp_plan": _NOT_DISTRIBUTED,
    "tp_size": _NOT_DISTRIBUTED,
    "device_mesh": _NOT_DISTRIBUTED,
    "distributed_config": _NOT_DISTRIBUTED,
    "variant": "is not supported: give the path of the weights file",
    "gguf_file": "is not supported: weights are safetensors or torch files",
    "from_tf": "is not supported: weights are safetensors or torch files",
    "from_flax": "is not supported: weights are safetensors or torch files",
    "key_mapping": "is not supported: rename the tensors and give them as state_dict",
    "proxies": "is not supported: set HTTPS_PROXY in the environment",
    "adapter_kwargs": _NO_ADAPTERS,
    "adapter_name": _NO_ADAPTERS,
    "generation_config": "is not supported: the model generates no text",
    "use_kernels": _NO_KERNELS,
    "kernel_config": _NO_KERNELS,
    "allow_all_kernels": _NO_KERNELS,
    "fusion_config": _NO_KERNELS,
    "experts_implementation": "is not supported: the model has no experts",
}
"""Arguments of the reference's `from_pretrained` that are refused, each with a reason or another way."""


class NewParametersWarning(UserWarning):
    """Parameters that the checkpoint does not have were newly made, and need training."""


class PreTrainedModel(nn.Module):
    """A module made from a configuration, which it keeps as `config`.

    Attributes:
        config: The configuration.
        name_or_path: Where it was loaded from; empty for a model made from a configuration.
        loading_info: What loading did with each parameter; None for a model made from a configuration.
    """

    config_class: ClassVar[type[EncoderConfig]] = ViTMAEConfig
    base_model_prefix: ClassVar[str] = ""
    """The attribute that holds the encoder of a model with a head."""
    main_input_name: ClassVar[str] = "pixel_values"
    input_modalities: ClassVar[tuple[str, ...]] = ("image",)
    supports_gradient_checkpointing: ClassVar[bool] = True
    state_prefix: ClassVar[str] = ""
    """What comes before the model's own names in a checkpoint of a model with a head."""
    newly_made: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names that a checkpoint may lack: the head's."""
    init_options: ClassVar[tuple[str, ...]] = ()
    """Keyword arguments of the constructor that `from_pretrained` takes too."""

    _no_split_modules: ClassVar[list[str]] = ["Embeddings", "ViTMAEEmbeddings", "Layer", "ViTMAEDecoder"]
    _input_embed_layer: ClassVar[str] = "patch_embeddings"
    _supports_sdpa: ClassVar[bool] = True
    _supports_flash_attn: ClassVar[bool] = False
    _supports_flex_attn: ClassVar[bool] = False
    _supports_attention_backend: ClassVar[bool] = False
    _can_compile_fullgraph: ClassVar[bool] = True
    _is_stateful: ClassVar[bool] = False
    _skip_keys_device_placement: ClassVar[tuple[str, ...]] = ()
    _keep_in_fp32_modules: ClassVar[tuple[str, ...]] = ()
    _keep_in_fp32_modules_strict: ClassVar[tuple[str, ...]] = ()
    _keys_to_ignore_on_save: ClassVar[tuple[str, ...]] = ()
    _keys_to_ignore_on_load_missing: ClassVar[tuple[str, ...]] = ()
    _keys_to_ignore_on_load_unexpected: ClassVar[tuple[str, ...]] = ()
    _tied_weights_keys: ClassVar[dict[str, str] | None] = None

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        if not isinstance(config, EncoderConfig):
            raise TypeError(
                f"{type(self).__name__} is made from a configuration, not from {type(config).__name__}; "
                f"a pretrained model is loaded by {type(self).__name__}.from_pretrained"
            )
        config.validate()
        self.config = config
        self.name_or_path = config.name_or_path
        self.loading_info: LoadingInfo | None = None

    @property
    def device(self) -> torch.device:
        """The device of the first parameter."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first parameter."""
        return next(self.parameters()).dtype

    @property
    def base_model(self) -> nn.Module:
        """The encoder of a model with a head; an encoder itself."""
        base: nn.Module = getattr(self, self.base_model_prefix, self)
        return base

    @classmethod
    def can_generate(cls) -> bool:
        """Whether the model generates text: no."""
        return False

    def post_init(self, attn_implementation: AttentionImplementation | None = None) -> None:
        """Finish a model's construction, at the end of `__init__` as in the reference.

        Takes over what the configuration says of attention and of gradient checkpointing. No weights are
        drawn: each module has drawn its own, and `init_weights` would do so again.

        Args:
            attn_implementation: "sdpa" or "eager"; None is what the configuration says.
        """
        self.set_attn_implementation(attn_implementation)
        if self.config.extra.get("gradient_checkpointing"):  # as old files have it
            self.gradient_checkpointing_enable()

    def init_weights(self) -> None:
        """Draw all weights again, as those of a new model: after `to_empty`, for example."""
        for module in reversed(list(self.modules())):  # children first: a parent may replace what they drew
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
        init_linears(self)

    def get_input_embeddings(self) -> nn.Module:
        """The module that embeds patches: (N, C, H, W) to (N, L, D)."""
        embeddings = getattr(self.base_model, "embeddings", None)
        if embeddings is None:
            raise NotImplementedError(f"{type(self).__name__} has no embeddings")
        module: nn.Module = getattr(embeddings, self._input_embed_layer)
        return module

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the module that embeds patches."""
        setattr(self.base_model.embeddings, self._input_embed_layer, value)

    def get_output_embeddings(self) -> None:
        """The language model's head: there is none."""
        return

    def tie_weights(self) -> None:
        """Share weights that are tied: there are none."""

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Count the numbers that training changes. A ViTMAE's position tables are not among them.

        Args:
            only_trainable: Leave out parameters that are frozen.
            exclude_embeddings: Leave out word embeddings, of which there are none.
        """
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of all parameters, and of buffers (position tables) unless `return_buffers` is off."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.nbytes for tensor in tensors)

    def set_attn_implementation(self, implementation: AttentionImplementation | None) -> None:
        """Compute attention with "sdpa" or "eager"; the results are the same.

        Args:
            implementation: None is what the configuration says: its `attn_implementation`, else "sdpa", or
                "eager" where it has `output_attentions`.
        """
        set_attention(self, implementation or self.config._attn_implementation)
        if implementation is not None:
            self.config.attn_implementation = implementation

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """Whether `set_attn_implementation` works, as the reference asks its models."""
        return True

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """In training, compute layers again for their gradient: less memory, about a third more time.

        Args:
            gradient_checkpointing_kwargs: Arguments of `torch.utils.checkpoint.checkpoint`; None is
                `{"use_reentrant": False}`.
            every_n_layers: Do so for every n-th layer only.
            offload: Keep each layer's input in the host's memory meanwhile, not on the device.
        """
        function: Callable[..., Any] = _checkpoint_on_host if offload else checkpoint_activations
        function = partial(function, **(gradient_checkpointing_kwargs or {"use_reentrant": False}))
        set_checkpointing(self, True, function, every_n_layers=every_n_layers)

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        set_checkpointing(self, False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether any layer is computed again for its gradient."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """`gradient_checkpointing_enable` under the name that transformers 5 has for it.

        Args:
            activation_checkpointing_kwargs: Arguments of `torch.utils.checkpoint.checkpoint`.
            every_n_layers: Do so for every n-th layer only.
            offload: Keep each layer's input in the host's memory meanwhile.
        """
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload)

    def activation_checkpointing_disable(self) -> None:
        """`gradient_checkpointing_disable` under the name that transformers 5 has for it."""
        self.gradient_checkpointing_disable()

    @property
    def is_activation_checkpointing(self) -> bool:
        """`is_gradient_checkpointing` under the name that transformers 5 has for it."""
        return self.is_gradient_checkpointing

    def enable_input_require_grads(self) -> None:
        """Let patch embeddings require gradients, so that adapters in a frozen encoder get theirs."""
        embeddings = self.get_input_embeddings()
        self._require_grads_hooks = [embeddings.register_forward_hook(_require_gradient)]

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        hooks: list[RemovableHandle] = self.__dict__.pop("_require_grads_hooks", [])
        for hook in hooks:
            hook.remove()

    @classmethod
    def _from_config(cls, config: EncoderConfig, **options: Any) -> Self:
        """A new model of a configuration, which is copied.

        Args:
            config: The configuration.
            **options: `dtype` or `torch_dtype`, `attn_implementation`, and the class's own arguments.
        """
        config = copy.deepcopy(config)
        older = options.pop("torch_dtype", None)
        config.dtype = options.pop("dtype", older) or config.dtype
        implementation = options.pop("attn_implementation", None)
        model = cls(config, **options)
        model.set_attn_implementation(implementation)
        return model.to(config.dtype)

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        output_loading_info: Literal[False] = False,
        **options: Any,
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        output_loading_info: Literal[True],
        **options: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        config: ViTMAEConfig | ViTConfig | str | os.PathLike[str] | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        subfolder: str = "",
        use_safetensors: bool | None = None,
        output_loading_info: bool = False,
        **options: Any,
    ) -> Any:
        """Load a model, in evaluation mode.

        Weights may be in any of the four layouts of `checkpoint.keys`. A head that the checkpoint lacks (a
        decoder, a classifier, a pooler) is newly made, and with `ignore_mismatched_sizes` so is whatever has
        another shape: both are listed in a `NewParametersWarning` and in `loading_info`.

        Args:
            pretrained_model_name_or_path: A folder, a `.safetensors`, an authors' `.pth`, or a hub id; None
                with `config` and `state_dict`.
            *model_args: Passed to the class after its configuration.
            config: A configuration, or where to read one, in place of the checkpoint's own.
            state_dict: Weights to load where no name or path is given.
            cache_dir: The folder of the local cache; None is the hub client's own.
            force_download: Download again what is cached.
            local_files_only: Take files from the cache alone.
            token: The hub's access token; True for the stored one, False for none.
            revision: The hub's branch, tag or commit; None is "main".
            subfolder: The folder inside the folder or repository that holds the files.
            use_safetensors: True for safetensors weights only, False for torch files only, None for either.
            output_loading_info: Return the model with `loading_info` as a dict.
            **options: Arguments of `from_checkpoint`; `device_map` with one device; `low_cpu_mem_usage`
                and others that have no effect here.

        Raises:
            ModelNotFound: There is no such folder, file or hub id.
            CheckpointError: The weights cannot be read, or do not fit the configuration.
            ConfigError: A field's value or an argument is wrong or not supported.
        """
        options = _check_options(options)
        hub_options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
            "revision": revision,
            "subfolder": subfolder,
        }
        if torch.empty(0).is_meta:
            raise RuntimeError(
                "You are using `from_pretrained` with a meta device context manager, which keeps no weights; "
                "leave it out, or make the model from its configuration"
            )
        own_config: Any = config
        if isinstance(config, str | os.PathLike):
            own_config = cls.config_class.from_pretrained(config, **hub_options)
        if pretrained_model_name_or_path is None:
            checkpoint = _checkpoint_in_memory(own_config, state_dict)
        else:
            if state_dict is not None:
                raise ConfigError("state_dict", "...", "cannot be given together with a model's name or path")
            files = find_checkpoint(
                pretrained_model_name_or_path, use_safetensors=use_safetensors, **hub_options
            )
            checkpoint = read_checkpoint(files, own_config)
            options = {"name_or_path": os.fspath(pretrained_model_name_or_path), **options}
        model = cls.from_checkpoint(checkpoint, *model_args, **options)
        assert model.loading_info is not None
        return (model, model.loading_info.to_dict()) if output_loading_info else model

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *model_args: Any,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        attn_implementation: AttentionImplementation | None = None,
        ignore_mismatched_sizes: bool = False,
        **overrides: Any,
    ) -> Self:
        """As `from_pretrained`, from a checkpoint that was read already.

        Args:
            checkpoint: The checkpoint; the model gets copies of its configuration and weights.
            *model_args: Passed to the class after its configuration.
            dtype: A dtype or its name, or "auto" for the file's own; None is float32.
            torch_dtype: The older name of `dtype`.
            device: Where the model is put; None is the CPU.
            attn_implementation: "sdpa" or "eager"; None is what the configuration says.
            ignore_mismatched_sizes: Make parameters of other shapes anew, rather than refuse them.
            **overrides: Fields of the configuration to replace, and the class's own arguments.

        Raises:
            CheckpointError: The weights do not fit the configuration.
            ConfigError: A field's value or an argument is wrong.
        """
        arguments = {name: overrides.pop(name) for name in cls.init_options if name in overrides}
        config = cls._config_of(checkpoint, overrides)
        dtype = choose_dtype(torch_dtype if dtype is None else dtype, checkpoint)
        config.dtype = dtype
        with torch.device("meta"):  # nothing is drawn or filled that the checkpoint will replace
            model = cls(config, *model_args, **arguments)
        expected = {cls.state_prefix + name: value.shape for name, value in model.state_dict().items()}
        info = match_names(
            expected, checkpoint, model.head_prefixes(), ignore_mismatched_sizes=ignore_mismatched_sizes
        )
        made = {*info.new, *(name for name, _, _ in info.mismatched)}
        if made:
            _check_memory(model)
            model = cls(config, *model_args, **arguments)
            _warn(checkpoint, info)
        prefix = len(cls.state_prefix)
        state = {n[prefix:]: checkpoint.state[n].to(dtype, copy=True) for n in expected if n not in made}
        model.load_state_dict(state, strict=not made, assign=True)
        model.loading_info = info
        model.set_attn_implementation(attn_implementation)
        return model.to(device, dtype).eval()

    def head_prefixes(self) -> tuple[str, ...]:
        """Beginnings of names that a checkpoint may lack, under the hub's names.

        They are `newly_made` where the class has it, else all parts beside the encoder.
        """
        if self.newly_made or not hasattr(self, self.base_model_prefix):
            return self.newly_made
        parts = (name for name, _ in self.named_children() if name != self.base_model_prefix)
        return tuple(f"{name}." for name in parts)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        dtype: torch.dtype | None = None,
        max_shard_size: int | str = "50GB",
        safe_serialization: bool = True,
        save_function: Callable[..., Any] | None = None,
        push_to_hub: bool = False,
        variant: str | None = None,
    ) -> None:
        """Write config.json and model.safetensors in the hub's layout, which `transformers` reads too.

        Args:
            save_directory: The folder, which is made where it does not exist.
            is_main_process: With False nothing is written, for the other processes of a distributed run.
            state_dict: Weights to write in place of the model's own, under the same names.
            dtype: The dtype of the file (float16 for half the size); None is the model's own.
            max_shard_size: Weights of more bytes than that, a number or "5GB", go into several files with an
                index.
            safe_serialization: Must be True: weights are always written as safetensors.
            save_function: Ignored.
            push_to_hub: Must be False: nothing is uploaded from here.
            variant: Must be None.

        Raises:
            CheckpointError: A weight is not finite in `dtype`; nothing is written.
            ConfigError: An argument is not supported.
        """
        if not safe_serialization:
            raise ConfigError(
                "safe_serialization",
                safe_serialization,
                "is not supported: weights are written as safetensors",
            )
        if push_to_hub:
            raise ConfigError("push_to_hub", push_to_hub, NO_UPLOADS)
        if variant is not None:
            raise ConfigError("variant", variant, "is not supported: the file is model.safetensors")
        if not is_main_process:
            return
        weights = self.state_dict() if state_dict is None else state_dict
        dtype = dtype or next(value.dtype for value in weights.values())
        config = copy.deepcopy(self.config)
        config.dtype = dtype
        values = {**config.to_dict(), "architectures": [type(self).__name__]}
        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        state = {name: value.to(dtype) for name, value in weights.items()}
        write_shards(state, target, max_shard_size)
        write_json(target / CONFIG_NAME, values)

    def _or_configured(self, name: str, given: bool | None) -> bool:
        """An argument of `forward`, or what the configuration says where it was not given."""
        chosen: bool = getattr(self.config, name) if given is None else given
        return chosen

    @classmethod
    def _config_of(cls, checkpoint: Checkpoint, overrides: dict[str, Any]) -> EncoderConfig:
        """A copy of the checkpoint's configuration, of the model's class, with some fields replaced."""
        config: EncoderConfig = checkpoint.config
        if not isinstance(config, cls.config_class):
            name_or_path, config = config.name_or_path, cls.config_class.from_dict(config.to_dict())
            config.name_or_path = name_or_path
        return copy.deepcopy(config).with_overrides(overrides)


def _check_memory(model: nn.Module) -> None:
    """Raise `CheckpointError` for a model, made on the meta device, that no memory of this machine holds."""
    size = 4 * sum(parameter.numel() for parameter in model.state_dict().values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # bytes; POSIX
    if size > memory:
        raise CheckpointError(
            f"the configuration calls for a model of {size / 1e9:,.0f} GB, of which the checkpoint has part, "
            f"and this machine has {memory / 1e9:,.0f} GB of memory."
        )


def _checkpoint_on_host(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Activation checkpointing whose saved inputs are kept in the host's memory."""
    with save_on_cpu(pin_memory=torch.cuda.is_available()):
        return checkpoint_activations(function, *args, **options)


def _require_gradient(module: nn.Module, args: object, output: Tensor) -> None:
    """A forward hook: let the output require a gradient."""
    output.requires_grad_(True)


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for `from_checkpoint`: without those that have no effect.

    Raises `ConfigError` for those that are not supported.
    """
    options = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    for name, reason in _NOT_SUPPORTED.items():
        value = options.pop(name, None)
        if value:
            raise ConfigError(name, value, reason)
    if options.get("device_map") is not None:
        options["device"] = _single_device(options["device_map"])
    options.pop("device_map", None)
    return options


def _single_device(device_map: Any) -> torch.device:
    """The device of a device map that names only one. Raises `ConfigError` for others."""
    where = device_map[""] if isinstance(device_map, Mapping) and set(device_map) == {""} else device_map
    if isinstance(where, int | torch.device) and not isinstance(where, bool):
        return torch.device(where)
    if isinstance(where, str) and where not in ("balanced", "balanced_low_0", "sequential", "disk"):
        return choose_device(where)
    raise ConfigError("device_map", device_map, _ON_ONE_DEVICE)


def _checkpoint_in_memory(
    config: ViTMAEConfig | ViTConfig | None, state_dict: Mapping[str, Tensor] | None
) -> Checkpoint:
    """A checkpoint of given weights. Raises `ConfigError` where the configuration or they are missing."""
    for name, value in (("config", config), ("state_dict", state_dict)):
        if value is None:
            raise ConfigError(name, None, "must be given where no name or path of a model is")
    assert config is not None
    assert state_dict is not None
    place = Path("state_dict")
    try:
        state, layout = to_hub_names(state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error
    return Checkpoint(CheckpointFiles(place), config, state, layout)


def _warn(checkpoint: Checkpoint, info: LoadingInfo) -> None:
    """Warn of parameters that were newly made."""
    where = display_path(checkpoint.files.weights)
    if info.new:
        message = f"{where} lacks {len(info.new)} parameters, newly made and to be trained: "
        warnings.warn(message + ", ".join(info.new), NewParametersWarning, stacklevel=4)
    if info.mismatched:
        sizes = ", ".join(f"{name} {found} for {wanted}" for name, found, wanted in info.mismatched)
        message = f"{where} has other sizes; newly made and to be trained: {sizes}"
        warnings.warn(message, NewParametersWarning, stacklevel=4)
