"""Full fine-tuning: every weight is trained, on crops that are mixed with one another.

Learning rates that shrink from the head down to the pixels (Clark et al. 2020, `util/lr_decay.py`).

Stochastic depth (Huang et al. 2016): whole residual branches are left out, photo by photo.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitmae_search.training.data.random_resized_crop import random_crops
from vitmae_search.training.data.sampler import step_seed
from vitmae_search.training.devices import computing
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.mixup import draw_mix, mix_pixels, soft_cross_entropy, soft_targets
from vitmae_search.training.finetuning.model import Classifier, with_weights
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.finetuning.task import Pixels, StepRows
from vitmae_search.training.transfer import send
from vitmae_search.vitmae import ViTModel

_IN_LAYER = re.compile(r"vit\.encoder\.layer\.(\d+)\.")


def layer_number(name: str, depth: int) -> int:
    """0 for the embeddings, i + 1 for layer i of `depth`, depth + 1 for the final norm and the head."""
    if name.startswith("vit.embeddings."):
        return 0
    found = _IN_LAYER.match(name)
    return int(found[1]) + 1 if found else depth + 1


def layer_groups(
    model: nn.Module, *, depth: int, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups for AdamW, each with the "scale" of its rate, layer_decay^(depth + 1 - number).

    Biases, norms, the CLS token and positions have no weight decay. Every trained parameter is in one
    group, frozen ones in none.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        spared = parameter.ndim <= 1 or name.endswith(("cls_token", "position_embeddings"))
        number = layer_number(name, depth)
        empty = {
            "params": [],
            "scale": layer_decay ** (depth + 1 - number),
            "weight_decay": 0.0 if spared else weight_decay,
        }
        groups.setdefault((number, spared), empty)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def drop_path(branch: Tensor, rate: float) -> Tensor:
    """Each photo's branch (N, ...) is zero with probability `rate`, else divided by 1 - rate.

    So its expectation is the branch. Draws from torch's own generator.
    """
    shape = (len(branch),) + (1,) * (branch.ndim - 1)
    kept = torch.rand(shape, device=branch.device) >= rate
    return branch * kept.to(branch.dtype) / (1 - rate)


def add_drop_path(encoder: ViTModel, greatest: float) -> None:
    """In training, drop both branches of each layer: rates rise evenly from 0 to `greatest`, as in timm.

    As hooks on what makes the branches, so that the weights keep their names.
    """
    layers = encoder.encoder.layer
    rates = torch.linspace(0, greatest, len(layers)).tolist()
    for layer, rate in zip(layers, rates, strict=True):
        if rate > 0:
            layer.get_submodule("attention").register_forward_hook(_Attended(rate))
            layer.get_submodule("output").register_forward_hook(_Mapped(rate))


class _Mapped:
    def __init__(self, rate: float) -> None:
        self._rate = rate

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return drop_path(output, self._rate) if module.training else output


class _Attended:
    """As `_Mapped`, for a module that returns attention weights, too."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def __call__(
        self, module: nn.Module, args: Any, output: tuple[Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        return (drop_path(output[0], self._rate), output[1]) if module.training else output


_BETAS = (0.9, 0.999)
_AT_ONCE = 64  # photos a forward pass of the validation


class FullFinetuning:
    """The task `full`. `model` is trained in place."""

    def __init__(
        self,
        model: Classifier,
        pixels: Pixels,
        photos: LabelledPhotos,
        options: FinetuneOptions,
        device: torch.device,
    ) -> None:
        self._model, self._pixels, self._photos = model.to(device), pixels, photos
        self._options, self._device = options, device
        self._rows = StepRows(photos, options)
        model.set_attn_implementation("sdpa" if options.attention == "sdpa" else "eager")
        add_drop_path(model.vit, options.drop_path)
        self.trained: nn.Module = model
        groups = layer_groups(
            model,
            depth=model.config.num_hidden_layers,
            layer_decay=options.layer_decay,
            weight_decay=options.weight_decay,
        )
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, lr=options.peak_rate, betas=_BETAS, fused=True
        )

    def loss(self, step: int) -> Tensor:
        options = self._options
        rows = self._photos.training[self._rows.at(step)]
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
        mix = draw_mix(rng, mixup=options.mixup, cutmix=options.cutmix, side=side)
        labels = send(torch.from_numpy(self._photos.labels[rows]), self._device)
        targets = soft_targets(labels, len(self._photos.names), smoothing=options.label_smoothing, mix=mix)
        torch.manual_seed(step_seed(options.seed, step))  # drop path, and dropout where the model has any
        with computing(self._device, options.precision):
            logits = self._model.train()(mix_pixels(self._pixels.of(rows, crops), mix)).logits
        return soft_cross_entropy(logits, targets)

    def validate(self) -> Tensor:
        rows = self._photos.validation
        self._model.eval()
        with torch.inference_mode():
            parts = np.array_split(rows, -(-len(rows) // _AT_ONCE))
            return torch.cat([self._model(self._pixels.whole(part)).logits.cpu() for part in parts])

    def classifier(self, state: dict[str, Any]) -> Classifier:
        return with_weights(self._model, state)
