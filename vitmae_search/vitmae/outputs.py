"""What the models return: dataclasses that can also be read by key or position."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


@dataclass
class ModelOutput:
    """Fields that are not None are reachable as `out.name`, `out["name"]`, and by position."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in their order."""
        return tuple(getattr(self, name) for name in self.keys())

    def keys(self) -> tuple[str, ...]:
        """Names of the fields that are not None."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is not None)

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]


@dataclass
class ViTMAEModelOutput(ModelOutput):
    """The encoder's output, with K kept patches of L.

    `last_hidden_state` (N, 1 + K, D) after the final layer norm, CLS first. `mask` (N, L), 1 = removed.
    `ids_restore` (N, L) int64. `hidden_states`: the embeddings and each layer's output, L + 1 tensors,
    the last one before the final layer norm. `attentions`: each layer's (N, heads, 1 + K, 1 + K).
    """

    last_hidden_state: Tensor | None = None
    mask: Tensor | None = None
    ids_restore: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ViTMAEDecoderOutput(ModelOutput):
    """`logits` (N, L, p²·C): every patch's pixel values, in patch order, seen patches included."""

    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ViTMAEForPreTrainingOutput(ModelOutput):
    """`loss` is a scalar, None where no patch was removed; the rest as in the encoder and the decoder."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    mask: Tensor | None = None
    ids_restore: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
