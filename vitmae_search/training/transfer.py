"""From the host's memory to the device's, without waiting for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")

_AT_ONCE = {"cuda"}
_ALIGNED = 16  # bytes that every tensor begins at a multiple of: enough for any type


def send(tree: T, device: torch.device) -> T:
    """Tensors in tuples and dataclasses within each other, all of them on the device.

    To a CUDA device what is not there yet goes in one copy from pinned memory, which neither side waits
    for: many small ones would each wait until the device has done all that was asked of it before.
    """
    away = [leaf for leaf in _leaves(tree) if leaf.device.type != device.type]
    if not away:
        return tree
    at_once = device.type in _AT_ONCE
    sent = _in_one_copy(away, device) if at_once else [leaf.to(device) for leaf in away]
    there = {id(leaf): copy for leaf, copy in zip(away, sent, strict=True)}
    return cast(T, _replaced(tree, there))


def _leaves(tree: object) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    else:
        for _, part in _parts(tree):
            yield from _leaves(part)


def _parts(tree: object) -> Iterable[tuple[object, object]]:
    if isinstance(tree, tuple):
        return enumerate(tree)
    if is_dataclass(tree):
        return ((field.name, getattr(tree, field.name)) for field in fields(tree))
    return ()


def _replaced(tree: Any, there: dict[int, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return there.get(id(tree), tree)
    parts = [_replaced(part, there) for _, part in _parts(tree)]
    if isinstance(tree, tuple):
        return tuple(parts)
    kind: Any = type(tree)
    return kind(*parts) if is_dataclass(tree) else tree


def _in_one_copy(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    starts, end = [], 0
    for tensor in tensors:
        starts.append(end)
        end += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    host = _pinned(end)
    for tensor, place in zip(tensors, _places(host, tensors, starts), strict=True):
        place.copy_(tensor)
    # torch's allocator keeps the pinned memory from others until the copy is over.
    return _places(host.to(device, non_blocking=True), tensors, starts)


def _pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def _places(buffer: Tensor, like: Sequence[Tensor], starts: Sequence[int]) -> list[Tensor]:
    """Views of the bytes from each start on, of each tensor's type and shape."""
    return [
        buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for tensor, start in zip(like, starts, strict=True)
    ]
