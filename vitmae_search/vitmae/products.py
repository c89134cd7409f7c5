"""Products of a prepacked encoder: x·Wᵀ + b in bf16 by one call, with GELU after it where there is one."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

Gelu = Literal["none", "tanh"]
"""The exact GELU, or its tanh approximation, as `functional.gelu` names them."""

_ROWS = 1024
"""How many tokens a product is likely to have on a CPU; any other number works as well."""


class Product(Protocol):
    """(rows, in) to (rows, out), both bf16."""

    def __call__(self, rows: Tensor, /) -> Tensor: ...


def product(
    weight: Tensor, bias: Tensor | None, device: torch.device, *, gelu: Gelu | None = None
) -> Product:
    """The product with `weight` (out, in) and `bias` (out) that is the fastest on this device."""
    weight = weight.detach().to(device, torch.bfloat16).contiguous()
    bias = None if bias is None else bias.detach().to(device, torch.bfloat16)
    kind = CPUProduct if device.type == "cpu" and can_prepack() else PlainProduct
    return kind(weight, bias, gelu)


@cache
def can_prepack() -> bool:
    """Whether `CPUProduct` works here: this torch has its operations, and oneDNN supports bf16 on this CPU.

    oneDNN needs AVX512 or AVX-NE-CONVERT for bf16. Asking torch for CPU features is not enough, since their
    names differ between versions, so a small product is tried, once in each process.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    ones = torch.ones(32, 32, dtype=torch.bfloat16, device="cpu")
    try:
        CPUProduct(ones, ones[0], "none")(ones)
    except (AttributeError, RuntimeError):  # no such operation in this torch; no such instruction in this CPU
        return False
    return True


class CPUProduct:
    """oneDNN's, with the weight in its own layout; it cannot be moved to another device.

    Its operations are those that torch's own compiler calls. They are not documented.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: Gelu | None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        self.bias = bias
        self.then: tuple[Any, ...] = ("none", [], "") if gelu is None else ("gelu", [], gelu)

    def __call__(self, rows: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, *self.then)
        return result


class PlainProduct(nn.Module):
    """torch's own, whose weights can be moved. On CUDA, `addmm` of matrices adds the bias in the product.

    There GELU is in the product as well where torch has it, but in its tanh approximation only. It takes the
    place of the exact one too: vectors differ by far less from that than from the rounding to bf16.
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
