"""What the models return: dataclasses that can also be read by key or position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


@dataclass
class ModelOutput:
    """Fields that are not None are reachable as `out.name`, `out["name"]`, and by position.

    As in a dict, iteration, `len` and `in` are over their names.
    """

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in their order."""
        return tuple(getattr(self, name) for name in self.keys())

    def keys(self) -> tuple[str, ...]:
        """Names of the fields that are not None."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is not None)

    def values(self) -> tuple[Any, ...]:
        """The fields that are not None."""
        return self.to_tuple()

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Names and fields that are not None."""
        return tuple(zip(self.keys(), self.to_tuple(), strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

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
    """`logits` (N, L, ph·pw·C): every patch's pixel values, in patch order, seen patches included."""

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


@dataclass
class BaseModelOutputWithPooling(ModelOutput):
    """`pooler_output` (N, pooler_output_size) is the CLS token through the pooler; the rest as above."""

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ImageClassifierOutput(ModelOutput):
    """`loss` is a scalar, None without labels; `logits` (N, num_labels); the rest as above."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
