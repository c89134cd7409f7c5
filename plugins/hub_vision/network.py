"""The network: prepared photos, as bytes, to vectors of unit length; and a tokenized text to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import ModelError
from vitmae_search.vitmae.normalization import pixel_values

POOLINGS = ("pooler", "cls", "mean")
OWN_POOLING = "projection"
"""The pooling of a model with a text tower: the projection into the space that it shares with the text."""


class HubNetwork(nn.Module):
    """A model of `transformers` with its normalization.

    Args:
        model: The model.
        levels: (3, 256), as of `normalization_table`.
        pooling: "projection", or one of `POOLINGS`.
    """

    levels: Tensor

    def __init__(self, model: Any, levels: Tensor, pooling: str) -> None:
        super().__init__()
        self.model, self._pooling = model, pooling
        self.register_buffer("levels", levels)

    def forward(self, batch: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, D) float32 of unit length."""
        pixels = pixel_values(batch, self.levels)
        if self._pooling == OWN_POOLING:
            vectors = _pooled(self.model.get_image_features(pixel_values=pixels))
        else:
            vectors = _pool(self.model(pixel_values=pixels), self._pooling)
        if vectors.ndim != 2:
            raise ModelError(
                f"the model gives features of {tuple(vectors.shape[1:])}, not one vector a photo"
            )
        return functional.normalize(vectors.float(), dim=1)

    def text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """What a tokenizer gave for one text, (1, n) each, to (D,) float32 of unit length."""
        device = self.levels.device
        inputs = {name: value.to(device) for name, value in tokens.items()}
        return functional.normalize(_pooled(self.model.get_text_features(**inputs))[0].float(), dim=0)


def has_text_tower(model: Any) -> bool:
    """Whether a model puts photos and texts into one space."""
    return all(hasattr(model, f"get_{kind}_features") for kind in ("image", "text"))


def is_vision_model(model: Any) -> bool:
    """Whether a model takes photos."""
    return has_text_tower(model) or getattr(model, "main_input_name", "") == "pixel_values"


def _pooled(output: Any) -> Tensor:
    """The features; versions of `transformers` before 5 return them as they are."""
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found


def _pool(output: Any, pooling: str) -> Tensor:
    if pooling == "pooler":
        return torch.flatten(output.pooler_output, 1)  # convolutional models give (N, D, 1, 1)
    states: Tensor = output.last_hidden_state
    if states.ndim == 4:
        return states.mean(dim=(2, 3))  # (N, D, H, W): there is no first token
    return states[:, 0] if pooling == "cls" else states.mean(dim=1)
