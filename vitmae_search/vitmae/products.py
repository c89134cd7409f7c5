"""Linear layers of a prepacked encoder: x·Wᵀ + b in bf16, with an optional GELU, in one call."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

Gelu = Literal["none", "tanh"]
"""The exact GELU, or its tanh approximation, as `functional.gelu` names them."""

_ROWS_HINT = 1024
"""Rows for which oneDNN lays out a weight; any other number works as well."""


class Linear(Protocol):
    """A linear layer of (rows, in) bf16 to (rows, out) bf16."""

    def __call__(self, rows: Tensor, /) -> Tensor:
        """Apply the layer."""
        ...


def make_linear(
    weight: Tensor, bias: Tensor | None, device: torch.device, *, gelu: Gelu | None = None
) -> Linear:
    """The fastest implementation on this device.

    Args:
        weight: (out, in).
        bias: (out,).
        device: Where it computes.
        gelu: The activation after it.
    """
    weight = weight.detach().to(device, torch.bfloat16).contiguous()
    bias = None if bias is None else bias.detach().to(device, torch.bfloat16)
    linear_class = OneDNNLinear if device.type == "cpu" and can_prepack() else PlainLinear
    return linear_class(weight, bias, gelu)


@cache
def can_prepack() -> bool:
    """Whether `OneDNNLinear` works here: this torch has its operations, and oneDNN has bf16 on this CPU.

    oneDNN needs AVX512 or AVX-NE-CONVERT for bf16. Asking torch for CPU features is not enough, since their
    names differ between versions, so a small product is tried, once in each process.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    ones = torch.ones(32, 32, dtype=torch.bfloat16, device="cpu")
    try:
        OneDNNLinear(ones, ones[0], "none")(ones)
    except (AttributeError, RuntimeError):  # no such operation in this torch; no such instruction in this CPU
        return False
    return True


class OneDNNLinear:
    """oneDNN's, with the weight in its own layout; it cannot be moved to another device.

    It uses the operations that torch's compiler calls, which are not documented.

    Args:
        weight: (out, in) bf16.
        bias: (out,) bf16.
        gelu: The activation after it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: Gelu | None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT)
        self.bias = bias
        self.post_op: tuple[Any, ...] = ("none", [], "") if gelu is None else ("gelu", [], gelu)

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, in) to (rows, out), both bf16."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, *self.post_op)
        return result


class PlainLinear(nn.Module):
    """torch's own, whose weights can be moved.

    On CUDA the bias is added in the product, and so is GELU where torch can, but only in its tanh
    approximation. That replaces the exact GELU too: it changes vectors far less than rounding to bf16 does.

    Args:
        weight: (out, in) bf16.
        bias: (out,) bf16.
        gelu: The activation after it.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: Gelu | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.gelu = gelu

    def forward(self, rows: Tensor) -> Tensor:
        """(rows, in) to (rows, out), both bf16."""
        if self.bias is None:
            sums = rows @ self.weight.t()
        elif self.gelu is not None and rows.device.type == "cuda" and hasattr(torch, "_addmm_activation"):
            return torch._addmm_activation(self.bias, rows, self.weight.t(), use_gelu=True)
        else:
            sums = torch.addmm(self.bias, rows, self.weight.t())
        return sums if self.gelu is None else functional.gelu(sums, approximate=self.gelu)
