"""Full fine-tuning: all weights are trained, with layer-wise decay, stochastic depth, mixup and CutMix."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitmae_search.training.data.random_resized_crop import random_crops
from vitmae_search.training.data.sampler import step_seed
from vitmae_search.training.devices import precision_context
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.mixup import mix_pixels, sample_mix, soft_cross_entropy, soft_targets
from vitmae_search.training.finetuning.model import Classifier, with_weights
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.finetuning.task import BatchSampler, PixelLoader
from vitmae_search.training.transfer import to_device
from vitmae_search.vitmae import ViTModel

_BETAS = (0.9, 0.999)
_VALIDATION_BATCH = 64


class FullFinetuning:
    """The mode "full".

    Args:
        model: Trained in place.
        pixels: Loads the photos.
        photos: The data set.
        options: The run's options.
        device: The device that trains.
    """

    def __init__(
        self,
        model: Classifier,
        pixels: PixelLoader,
        photos: LabelledPhotos,
        options: FinetuneOptions,
        device: torch.device,
    ) -> None:
        self._model, self._pixels, self._photos = model.to(device), pixels, photos
        self._options, self._device = options, device
        self._batches = BatchSampler(photos, options)
        model.set_attn_implementation("sdpa" if options.attention == "sdpa" else "eager")
        add_drop_path(model.vit, options.drop_path)
        self.trained: nn.Module = model
        groups = layer_decay_groups(
            model,
            depth=model.config.num_hidden_layers,
            layer_decay=options.layer_decay,
            weight_decay=options.weight_decay,
        )
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, lr=options.peak_rate, betas=_BETAS, fused=True
        )

    def loss(self, step: int) -> Tensor:
        """See `Task`."""
        options = self._options
        rows = self._photos.training[self._batches.at(step)]
        generator = torch.Generator().manual_seed(step_seed(options.seed, step))
        crops = random_crops(
            len(rows),
            *self._pixels.stored_shape,
            scale=options.crop_scale,
            flip=options.flip,
            generator=generator,
        )
        side = self._model.config.image_shape[0]
        rng = np.random.default_rng((options.seed, step))
        mix = sample_mix(rng, mixup=options.mixup, cutmix=options.cutmix, side=side)
        labels = to_device(torch.from_numpy(self._photos.labels[rows]), self._device)
        targets = soft_targets(labels, len(self._photos.names), smoothing=options.label_smoothing, mix=mix)
        torch.manual_seed(step_seed(options.seed, step))  # for drop path and dropout
        with precision_context(self._device, options.precision):
            logits = self._model.train()(mix_pixels(self._pixels.load(rows, crops), mix)).logits
        return soft_cross_entropy(logits, targets)

    def validate(self) -> Tensor:
        """See `Task`."""
        rows = self._photos.validation
        self._model.eval()
        with torch.inference_mode():
            parts = np.array_split(rows, -(-len(rows) // _VALIDATION_BATCH))
            return torch.cat([self._model(self._pixels.load_whole(part)).logits.cpu() for part in parts])

    def classifier(self, state: dict[str, Any]) -> Classifier:
        """See `Task`."""
        return with_weights(self._model, state)


_LAYER_NAME = re.compile(r"vit\.encoder\.layer\.(\d+)\.")


def layer_id(name: str, depth: int) -> int:
    """The number of the layer that a parameter belongs to, as `util/lr_decay.py` of facebookresearch/mae.

    Args:
        name: The parameter's name.
        depth: Layers of the encoder.

    Returns:
        0 for the embeddings, i + 1 for layer i, depth + 1 for the final norm and the head.
    """
    if name.startswith("vit.embeddings."):
        return 0
    found = _LAYER_NAME.match(name)
    return int(found[1]) + 1 if found else depth + 1


def layer_decay_groups(
    model: nn.Module, *, depth: int, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups with layer-wise learning-rate decay (Clark et al. 2020; Bao et al. 2022, BEiT).

    Args:
        model: Its frozen parameters are left out.
        depth: Layers of the encoder.
        layer_decay: A layer's rate as a share of the rate of the layer above it, in (0, 1].
        weight_decay: For all parameters but biases, norms, the CLS token and positions.

    Returns:
        Groups for AdamW, each with the "scale" of its rate, layer_decay^(depth + 1 - `layer_id`).
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        no_decay = parameter.ndim <= 1 or name.endswith(("cls_token", "position_embeddings"))
        number = layer_id(name, depth)
        empty = {
            "params": [],
            "scale": layer_decay ** (depth + 1 - number),
            "weight_decay": 0.0 if no_decay else weight_decay,
        }
        groups.setdefault((number, no_decay), empty)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def drop_path(branch: Tensor, rate: float) -> Tensor:
    """Stochastic depth (Huang et al. 2016): drop a residual branch for some of the photos.

    What remains is divided by 1 - rate, so that the expectation is the branch. Uses torch's global generator.

    Args:
        branch: (N, …), the branch of each photo.
        rate: Probability of dropping it, in [0, 1).
    """
    shape = (len(branch),) + (1,) * (branch.ndim - 1)
    kept = torch.rand(shape, device=branch.device) >= rate
    return branch * kept.to(branch.dtype) / (1 - rate)


def add_drop_path(encoder: ViTModel, max_rate: float) -> None:
    """Add drop path to both branches of every layer, in training mode.

    It is added as forward hooks, so that the weights keep their names.

    Args:
        encoder: Changed in place.
        max_rate: The last layer's rate; rates rise linearly from 0, as in timm.
    """
    layers = encoder.encoder.layer
    rates = torch.linspace(0, max_rate, len(layers)).tolist()
    for layer, rate in zip(layers, rates, strict=True):
        if rate > 0:
            layer.get_submodule("attention").register_forward_hook(_AttentionDropPath(rate))
            layer.get_submodule("output").register_forward_hook(_MLPDropPath(rate))


class _MLPDropPath:
    """Forward hook on the module that makes the MLP's branch."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return drop_path(output, self._rate) if module.training else output


class _AttentionDropPath:
    """Forward hook on the attention, which returns its branch and the attention weights."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def __call__(
        self, module: nn.Module, args: Any, output: tuple[Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        return (drop_path(output[0], self._rate), output[1]) if module.training else output
