"""The original authors' model, from a clone of https://github.com/facebookresearch/mae, which needs timm."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from vitmae_search.vitmae import ViTMAEForPreTraining
from vitmae_search.vitmae.checkpoint.keys import to_hub_names


def authors_model(folder: Path, like: ViTMAEForPreTraining) -> Any:
    """The authors' model with the configuration and the weights of `like`.

    Args:
        folder: A clone of facebookresearch/mae.
        like: Our model.
    """
    config = like.config
    theirs = _authors_class(folder)(
        img_size=config.image_shape[0],
        patch_size=config.patch_shape[0],
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        decoder_embed_dim=config.decoder_hidden_size,
        decoder_depth=config.decoder_num_hidden_layers,
        decoder_num_heads=config.decoder_num_attention_heads,
        norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
        norm_pix_loss=config.norm_pix_loss,
    )
    _fill(theirs, like)
    return theirs


def _authors_class(folder: Path) -> Any:
    """`MaskedAutoencoderViT` from the unchanged clone.

    It needs parts of old versions: `numpy.float`, and a `Block` of timm that takes `qk_scale`, which it
    leaves at None. Both are provided here.
    """
    timm_models: Any = importlib.import_module("timm.models.vision_transformer")

    class Block(timm_models.Block):  # type: ignore[misc]
        def __init__(self, *sizes: Any, qk_scale: None = None, **options: Any) -> None:
            super().__init__(*sizes, **options)

    np.float = float  # type: ignore[attr-defined]  # looked up when a model is made
    with (
        mock.patch.object(sys, "path", [str(folder), *sys.path]),
        mock.patch.object(timm_models, "Block", Block),
    ):
        return importlib.import_module("models_mae").MaskedAutoencoderViT


@torch.no_grad()
def _fill(theirs: nn.Module, like: ViTMAEForPreTraining) -> None:
    """Copy our weights into the authors' model, through views of its tensors under the hub's names."""
    for name, value in to_hub_names(theirs.state_dict())[0].items():
        value.copy_(like.state_dict()[name])
