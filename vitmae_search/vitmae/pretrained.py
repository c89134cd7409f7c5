"""What every model here has: a configuration and an attention implementation."""

from __future__ import annotations

import torch
from torch import nn

from vitmae_search.vitmae.config import ViTMAEConfig
from vitmae_search.vitmae.layers import AttentionImplementation, set_attention


class PreTrainedModel(nn.Module):
    """A module made from a `ViTMAEConfig`, which it keeps as `config`."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        config.validate()
        self.config = config

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def num_parameters(self) -> int:
        """How many numbers training changes; the position tables are not among them."""
        return sum(parameter.numel() for parameter in self.parameters())

    def set_attn_implementation(self, implementation: AttentionImplementation) -> None:
        """Compute attention with "sdpa" or "eager"; the results are the same."""
        set_attention(self, implementation)
