"""What every model here has: a configuration, `from_pretrained` and `save_pretrained`."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, overload

import torch
from torch import nn

from vitmae_search.errors import display_path
from vitmae_search.vitmae.checkpoint.checkpoint import (
    Checkpoint,
    LoadingInfo,
    choose_dtype,
    match_names,
    read_checkpoint,
)
from vitmae_search.vitmae.checkpoint.locate import CONFIG_NAME, find_checkpoint
from vitmae_search.vitmae.checkpoint.weights import write_json, write_shards
from vitmae_search.vitmae.config import EncoderConfig, ViTConfig, ViTMAEConfig
from vitmae_search.vitmae.layers import AttentionImplementation, set_attention, set_checkpointing


class NewParametersWarning(UserWarning):
    """Parameters that the checkpoint does not have were newly made, and need training."""


class PreTrainedModel(nn.Module):
    """A module made from a configuration, which it keeps as `config`.

    `loading_info` is None for a model that was made from its configuration alone.
    """

    config_class: ClassVar[type[EncoderConfig]] = ViTMAEConfig
    state_prefix: ClassVar[str] = ""
    """What comes before the model's own names in a checkpoint of a model with a head."""
    newly_made: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names that a checkpoint may lack: the head's."""
    made_with: ClassVar[tuple[str, ...]] = ()
    """Arguments of the class, beside its configuration, that `from_pretrained` takes too."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        config.validate()
        self.config = config
        self.loading_info: LoadingInfo | None = None

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def num_parameters(self) -> int:
        """How many numbers training changes; a ViTMAE's position tables are not among them."""
        return sum(parameter.numel() for parameter in self.parameters())

    def set_attn_implementation(self, implementation: AttentionImplementation | None) -> None:
        """Compute attention with "sdpa" or "eager"; the results are the same.

        None is "sdpa", or "eager" where the configuration has `output_attentions`.
        """
        set_attention(self, implementation or ("eager" if self.config.output_attentions else "sdpa"))

    def gradient_checkpointing_enable(self) -> None:
        """In training, compute each layer again for its gradient: less memory, a third more time."""
        set_checkpointing(self, True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        set_checkpointing(self, False)

    @overload
    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        output_loading_info: Literal[False] = False,
        **options: Any,
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, output_loading_info: Literal[True], **options: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        config: ViTMAEConfig | ViTConfig | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        attn_implementation: AttentionImplementation | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **overrides: Any,
    ) -> Any:
        """Load a folder, a `.safetensors`, an authors' `.pth`, or a hub id; in evaluation mode.

        Weights in any of the four layouts become `dtype` (`torch_dtype` is its older name): float32, a
        dtype or its name, or "auto" for the file's own. `device` is the CPU unless given. `overrides`
        replace fields of the configuration. A head that the checkpoint lacks (a decoder, a classifier, a
        pooler) is newly made, and with `ignore_mismatched_sizes` so is whatever has another shape: both
        are listed in a `NewParametersWarning` and in `loading_info`. With `output_loading_info` the model
        comes with that as a dict. Raises `ModelNotFound`, `CheckpointError`, `ConfigError`.
        """
        files = find_checkpoint(name_or_path, revision=revision, local_files_only=local_files_only)
        checkpoint = read_checkpoint(files, config)
        model = cls.from_checkpoint(
            checkpoint,
            dtype=torch_dtype if dtype is None else dtype,
            device=device,
            attn_implementation=attn_implementation,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            **overrides,
        )
        assert model.loading_info is not None
        return (model, model.loading_info.to_dict()) if output_loading_info else model

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        attn_implementation: AttentionImplementation | None = None,
        ignore_mismatched_sizes: bool = False,
        **overrides: Any,
    ) -> Self:
        """As `from_pretrained`, from a checkpoint that was read already."""
        arguments = {name: overrides.pop(name) for name in cls.made_with if name in overrides}
        config, dtype = cls._config_of(checkpoint, overrides), choose_dtype(dtype, checkpoint)
        with torch.device("meta"):  # nothing is drawn or filled that the checkpoint will replace
            model = cls(config, **arguments)
        expected = {cls.state_prefix + name: value.shape for name, value in model.state_dict().items()}
        info = match_names(
            expected, checkpoint, cls.newly_made, ignore_mismatched_sizes=ignore_mismatched_sizes
        )
        made = {*info.new, *(name for name, _, _ in info.mismatched)}
        if made:
            model = cls(config, **arguments)
            _warn(checkpoint, info)
        prefix = len(cls.state_prefix)
        state = {n[prefix:]: checkpoint.state[n].to(dtype, copy=True) for n in expected if n not in made}
        model.load_state_dict(state, strict=not made, assign=True)
        model.loading_info = info
        model.set_attn_implementation(attn_implementation)
        return model.to(device, dtype).eval()

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        max_shard_size: int | str = "50GB",
    ) -> None:
        """Write config.json and model.safetensors in the hub's layout, which `transformers` reads too.

        `dtype` (float16, say, for half the size) is that of the file, not of the model. Weights of more
        than `max_shard_size`, bytes or "5GB", go into several files with an index. Raises
        `CheckpointError` for weights that are not finite in `dtype`.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        dtype = dtype or self.dtype
        values = {**self.config.to_dict(), "architectures": [type(self).__name__]}
        values.pop("torch_dtype", None)  # what transformers 4 called it
        values["dtype"] = str(dtype).removeprefix("torch.")
        state = {name: value.to(dtype) for name, value in self.state_dict().items()}
        write_shards(state, target, max_shard_size)
        write_json(target / CONFIG_NAME, values)

    def _choice(self, name: str, given: bool | None) -> bool:
        """An argument of `forward`, or what the configuration says where it was not given."""
        chosen: bool = getattr(self.config, name) if given is None else given
        return chosen

    @classmethod
    def _config_of(cls, checkpoint: Checkpoint, overrides: dict[str, Any]) -> EncoderConfig:
        """The checkpoint's configuration as the class wants it, with some fields replaced."""
        config: EncoderConfig = checkpoint.config
        if not isinstance(config, cls.config_class):
            config = cls.config_class.from_dict(config.to_dict())
        return config.with_overrides(overrides) if overrides else config


def _warn(checkpoint: Checkpoint, info: LoadingInfo) -> None:
    where = display_path(checkpoint.files.weights)
    if info.new:
        message = f"{where} lacks {len(info.new)} parameters, newly made and to be trained: "
        warnings.warn(message + ", ".join(info.new), NewParametersWarning, stacklevel=4)
    if info.mismatched:
        sizes = ", ".join(f"{name} {found} for {wanted}" for name, found, wanted in info.mismatched)
        message = f"{where} has other sizes; newly made and to be trained: {sizes}"
        warnings.warn(message, NewParametersWarning, stacklevel=4)
