"""What every model here has: a configuration, `from_pretrained` and `save_pretrained`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import nn

from vitmae_search.errors import CheckpointError, display_path
from vitmae_search.vitmae.checkpoint_keys import DECODER_LAYERS, ENCODER_LAYERS
from vitmae_search.vitmae.checkpoints import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    find_checkpoint,
    read_checkpoint,
)
from vitmae_search.vitmae.config import ViTMAEConfig, write_json
from vitmae_search.vitmae.layers import AttentionImplementation, set_attention
from vitmae_search.vitmae.weights import write_weights


class NewParametersWarning(UserWarning):
    """Parameters that the checkpoint does not have were newly made, and need training."""


@dataclass(frozen=True, slots=True)
class LoadingInfo:
    """What loading did: names newly made (the decoder's or none), and names that found no place.

    Both are the hub's names (`checkpoint_keys`).
    """

    new: tuple[str, ...]
    unused: tuple[str, ...]


class PreTrainedModel(nn.Module):
    """A module made from a `ViTMAEConfig`, which it keeps as `config`.

    `loading_info` is None for a model that was made from its configuration alone.
    """

    state_prefix: ClassVar[str] = ""
    """What comes before the model's own names in a checkpoint of `ViTMAEForPreTraining`."""

    def __init__(self, config: ViTMAEConfig) -> None:
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
        """How many numbers training changes; the position tables are not among them."""
        return sum(parameter.numel() for parameter in self.parameters())

    def set_attn_implementation(self, implementation: AttentionImplementation) -> None:
        """Compute attention with "sdpa" or "eager"; the results are the same."""
        set_attention(self, implementation)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        config: ViTMAEConfig | None = None,
        dtype: torch.dtype = torch.float32,
        attn_implementation: AttentionImplementation = "sdpa",
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a folder, a `.safetensors`, an authors' `.pth`, or a hub id; in evaluation mode, on the CPU.

        Weights in any of the four layouts become `dtype`. An encoder alone may become a model with a
        decoder: its new parameters are listed in a `NewParametersWarning` and in `loading_info`. Raises
        `ModelNotFound`, `CheckpointError`, `ConfigError`.
        """
        files = find_checkpoint(name_or_path, revision=revision, local_files_only=local_files_only)
        checkpoint = read_checkpoint(files, config)
        return cls.from_checkpoint(checkpoint, dtype=dtype, attn_implementation=attn_implementation)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        dtype: torch.dtype = torch.float32,
        attn_implementation: AttentionImplementation = "sdpa",
    ) -> Self:
        """As `from_pretrained`, from a checkpoint that was read already."""
        with torch.device("meta"):  # nothing is drawn or filled that the checkpoint will replace
            model = cls(checkpoint.config)
        expected = {cls.state_prefix + name: value.shape for name, value in model.state_dict().items()}
        new = _check_names(expected, checkpoint)
        if new:
            model = cls(checkpoint.config)
            warnings.warn(
                f"{display_path(checkpoint.files.weights)} is an encoder alone: {len(new)} parameters of the "
                f"decoder are newly made and need training: {', '.join(new)}",
                NewParametersWarning,
                stacklevel=3,
            )
        prefix = len(cls.state_prefix)
        state = {
            name[prefix:]: checkpoint.state[name].to(dtype, copy=True) for name in expected if name not in new
        }
        model.load_state_dict(state, strict=not new, assign=True)
        model.loading_info = LoadingInfo(tuple(new), tuple(sorted(checkpoint.state.keys() - expected.keys())))
        model.set_attn_implementation(attn_implementation)
        return model.to(dtype).eval()

    def save_pretrained(self, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors in the hub's layout, which `transformers` reads too.

        `dtype` (float16, say, for half the size) is that of the file, not of the model. Raises
        `CheckpointError` for weights that are not finite in it.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        dtype = dtype or self.dtype
        state = {name: value.to(dtype) for name, value in self.state_dict().items()}
        write_weights(state, target / WEIGHTS_NAME)
        values = {**self.config.to_dict(), "architectures": [type(self).__name__]}
        values.pop("torch_dtype", None)  # what transformers 4 called it
        values["dtype"] = str(dtype).removeprefix("torch.")
        write_json(target / CONFIG_NAME, values)


def _check_names(expected: Mapping[str, torch.Size], checkpoint: Checkpoint) -> list[str]:
    """The expected names that are to be newly made: the whole decoder's, or none.

    Raises `CheckpointError` for anything else that is missing, for layers beyond the configuration's,
    and for tensors of other shapes.
    """
    state, where = checkpoint.state, display_path(checkpoint.files.weights)
    missing = [name for name in expected if name not in state]
    new = missing if not checkpoint.has_decoder and all(n.startswith("decoder.") for n in missing) else []
    if missing and not new:
        raise CheckpointError(f"{where} lacks {_some(missing)}, which its configuration calls for.")
    stacks = [s for s in (ENCODER_LAYERS, DECODER_LAYERS) if any(name.startswith(s) for name in expected)]
    surplus = sorted(n for n in state if n.startswith(tuple(stacks)) and n not in expected)
    if surplus:
        raise CheckpointError(f"{where} has {_some(surplus)}, for which its configuration has no place.")
    wrong = [
        f"{name} is {tuple(state[name].shape)} and should be {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if wrong:
        raise CheckpointError(f"{where} does not have its configuration's sizes: {_some(wrong)}.")
    return new


def _some(names: list[str], limit: int = 3) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
