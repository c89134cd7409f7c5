"""What `hidden_act` may be: a name, or a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import ConfigError

Activation: TypeAlias = Callable[[Tensor], Tensor]

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
"""The names. "gelu_new" and "gelu_pytorch_tanh" are one function: GELU in its tanh approximation."""


def is_activation(value: object) -> bool:
    """Whether it is one of the names, or a function without parameters of its own."""
    if isinstance(value, nn.Module):
        return not any(True for _ in value.parameters())  # they would be one set, shared by all layers
    return value in ACTIVATIONS if isinstance(value, str) else callable(value) and not isinstance(value, type)


def activation_function(activation: str | Activation) -> Activation:
    """The function of a name; a function is its own."""
    return _FUNCTIONS[activation] if isinstance(activation, str) else activation


def gelu_form(activation: Activation) -> Literal["none", "tanh"] | None:
    """How `functional.gelu` names the GELU that this is: exact or approximate. None for another function."""
    if activation is functional.gelu:
        return "none"
    return "tanh" if activation is _TANH_GELU else None


def activation_name(field: str, activation: str | Activation) -> str:
    """The name to write to JSON. Raises `ConfigError` for a function that has none here."""
    if isinstance(activation, str):
        return activation
    for name, function in _FUNCTIONS.items():
        if activation is function:
            return name
    raise ConfigError(field, activation, f"has no name for a file; choose one of {', '.join(ACTIVATIONS)}")
