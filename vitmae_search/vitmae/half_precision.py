"""An encoder that multiplies in bf16, for inference.

As with autocast, norms, the residual stream, and the sums inside products and softmax stay in fp32, so that
vectors stay close to fp32's. Unlike with autocast, weights are converted once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.vitmae.modeling import EncoderModel


def convert_to_bf16(model: EncoderModel) -> None:
    """Convert an encoder's products to bf16 in place; its outputs stay fp32.

    It can no longer be trained or saved.

    Args:
        model: In evaluation.
    """
    model.requires_grad_(False)
    model.embeddings.patch_embeddings.projection.to(torch.bfloat16)
    for module in list(model.encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Bf16Linear(child))


class Bf16Linear(nn.Module):
    """A linear layer of any dtype to bf16.

    Args:
        linear: Its weights are converted.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        bias: Tensor | None = linear.bias
        self.register_buffer("weight", linear.weight.detach().to(torch.bfloat16), persistent=False)
        self.register_buffer(
            "bias", None if bias is None else bias.detach().to(torch.bfloat16), persistent=False
        )

    def forward(self, rows: Tensor) -> Tensor:
        """(..., in) to (..., out) bf16."""
        return functional.linear(rows.to(torch.bfloat16), self.weight, self.bias)
