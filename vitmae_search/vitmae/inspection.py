"""What the encoder computes on its way: the tokens after each layer, and who attends to whom."""

from __future__ import annotations

import torch
from torch import Tensor

from vitmae_search.vitmae.modeling import ViTMAEModel


@torch.inference_mode()
def tokens_and_attention(model: ViTMAEModel, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """Encode one whole image, and keep everything.

    Args:
        model: The encoder; its attention is set to "eager", which alone has weights to return.
        pixel_values: (1, C, H, W), normalised, of any size that patches tile.

    Returns:
        The tokens after each layer, (1 + depth, 1 + L, D), CLS first: 0 before the first layer, the last
        after the final norm. The attention weights, (depth, heads, 1 + L, 1 + L), whose rows sum to 1. Both
        are float32, on the CPU.
    """
    model.set_attn_implementation("eager")
    found = model.eval()(
        pixel_values.to(model.device, model.dtype),
        interpolate_pos_encoding=True,
        mask_ratio=0.0,
        output_hidden_states=True,
        output_attentions=True,
        return_dict=True,
    )
    states = (*found.hidden_states[:-1], found.last_hidden_state)
    return (
        torch.cat(states).float().cpu(),
        torch.cat(found.attentions).float().cpu(),
    )
