"""Copies of tensors from the host to the device that do not wait for the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")

_PACKED_DEVICES = {"cuda"}
"""Device types to which all tensors go in one copy from pinned memory."""
_ALIGNMENT = 16
"""Bytes: every tensor in the packed buffer starts at a multiple of it, enough for any dtype."""


def to_device(tree: T, device: torch.device) -> T:
    """Move tensors in nested tuples and dataclasses to the device.

    On CUDA the tensors that are not there yet are packed into one pinned buffer and copied asynchronously.
    Many small copies from pageable memory would each wait until the device has finished its queue.

    Args:
        tree: A tensor, or tuples and dataclasses of tensors; other values stay as they are.
        device: Where to move them.
    """
    on_host = [leaf for leaf in _leaves(tree) if leaf.device.type != device.type]
    if not on_host:
        return tree
    packed = device.type in _PACKED_DEVICES
    copies = _packed_copy(on_host, device) if packed else [leaf.to(device) for leaf in on_host]
    by_id = {id(leaf): copy for leaf, copy in zip(on_host, copies, strict=True)}
    return cast(T, _replace_leaves(tree, by_id))


def _leaves(tree: object) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    else:
        for _, child in _children(tree):
            yield from _leaves(child)


def _children(tree: object) -> Iterable[tuple[object, object]]:
    if isinstance(tree, tuple):
        return enumerate(tree)
    if is_dataclass(tree):
        return ((field.name, getattr(tree, field.name)) for field in fields(tree))
    return ()


def _replace_leaves(tree: Any, by_id: dict[int, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return by_id.get(id(tree), tree)
    children = [_replace_leaves(child, by_id) for _, child in _children(tree)]
    if isinstance(tree, tuple):
        return tuple(children)
    tree_type: Any = type(tree)
    return tree_type(*children) if is_dataclass(tree) else tree


def _packed_copy(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    offsets, end = [], 0
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    buffer = _pinned(end)
    for tensor, view in zip(tensors, _views(buffer, tensors, offsets), strict=True):
        view.copy_(tensor)
    # torch's allocator does not reuse the pinned memory until the copy is done.
    return _views(buffer.to(device, non_blocking=True), tensors, offsets)


def _pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def _views(buffer: Tensor, like: Sequence[Tensor], offsets: Sequence[int]) -> list[Tensor]:
    """Views into the buffer of bytes at the offsets, each with the dtype and shape of its tensor."""
    return [
        buffer[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for tensor, offset in zip(like, offsets, strict=True)
    ]
