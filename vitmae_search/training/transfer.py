"""Copies of tensors from the host to the device that do not wait for the device."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_PINNED_DEVICES = {"cuda"}
"""Device types to which tensors are copied from pinned memory."""


def to_device(tree: T, device: torch.device) -> T:
    """Move tensors in nested tuples and dataclasses to the device.

    On CUDA they are copied from pinned memory, which torch keeps until the copy is done. A copy from pageable
    memory would wait until the device has finished its queue.

    Args:
        tree: A tensor, or tuples and dataclasses of tensors; other values stay as they are.
        device: Where to move them.
    """
    return _moved(tree, device)  # type: ignore[no-any-return]


def _moved(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, Tensor):
        return tree if tree.device.type == device.type else _copy(tree, device)
    if isinstance(tree, tuple):
        return tuple(_moved(child, device) for child in tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        return type(tree)(*(_moved(getattr(tree, field.name), device) for field in fields(tree)))
    return tree


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type not in _PINNED_DEVICES:
        return tensor.to(device)
    return _pinned(tensor).to(device, non_blocking=True)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory()
