"""Reconstruct an image from some of its patches: numpy in, numpy out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitmae_search.errors import ConfigError, NoDecoder
from vitmae_search.records import Reconstruction
from vitmae_search.vitmae.image_processor import ImageInput, ViTImageProcessor
from vitmae_search.vitmae.layers import patchify, unpatchify
from vitmae_search.vitmae.loss import patch_errors, patch_statistics
from vitmae_search.vitmae.modeling import ViTMAEForPreTraining, ViTMAEModel

_GREY = 128
"""What removed patches are filled with in the masked panel."""
_DISTANCE_POWER = 3
"""Of the powers 1 to 8 the one that predicts removed patches' mean and deviation best, on real photos with
grids of 8 × 8 and 14 × 14 patches."""


def reconstruct(
    model: ViTMAEForPreTraining | ViTMAEModel,
    processor: ViTImageProcessor,
    image: ImageInput,
    *,
    mask_ratio: float = 0.75,
    seed: int = 0,
    mask: NDArray[np.bool_] | None = None,
) -> Reconstruction:
    """Remove patches of an image and let the decoder fill them in.

    A prediction in normalised pixels (`norm_pix_loss`) is brought back by the visible patches' mean and
    deviation: a removed patch's own would give away part of the answer.

    Args:
        model: The model; one without a trained decoder is refused.
        processor: Its image processor.
        image: An image as the processor takes it. The panels have the model's own size.
        mask_ratio: Share of patches to remove, 0 ≤ r < 1.
        seed: Of the noise that chooses them. It is drawn on the CPU, so that every device shows the same.
        mask: (gh, gw) bool, True = removed; decides in place of `mask_ratio` and `seed`.

    Raises:
        NoDecoder: The checkpoint is an encoder alone.
        ConfigError: A mask ratio outside [0, 1), or a mask of another shape.
    """
    if isinstance(model, ViTMAEModel) or (model.loading_info and model.loading_info.new):
        raise NoDecoder("this checkpoint is an encoder alone: it has no decoder that could reconstruct.")
    config = model.config
    height, width = config.image_shape
    processor = replace(processor, do_resize=True, size={"height": height, "width": width})
    pixels = torch.as_tensor(processor(image, return_tensors="np").pixel_values)
    logits, removed = _predict(model, pixels, mask_ratio, seed, _mask_tensor(mask, config.grid_size))
    patches = patchify(pixels, config.patch_size)
    errors = patch_errors(logits, patches, norm_pix_loss=config.norm_pix_loss)[0]
    if config.norm_pix_loss:
        mean, deviation = visible_statistics(patches[0], removed, config.grid_size)
        logits = logits * deviation + mean
    predicted = unpatchify(logits, config.patch_size, config.grid_size)
    ratio = mask_ratio if mask is None else float(removed.float().mean())
    return Reconstruction(
        **_panels(processor, pixels, predicted, removed.reshape(config.grid_size)),
        mask=removed.reshape(config.grid_size).numpy(),
        error=errors.reshape(config.grid_size).numpy(),
        loss=float(errors[removed].mean()) if bool(removed.any()) else None,
        mask_ratio=ratio,
        statistics="visible" if config.norm_pix_loss else "none",
        photo_shape=(image.height, image.width) if isinstance(image, Image.Image) else None,
    )


def visible_statistics(patches: Tensor, removed: Tensor, grid_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every patch, from visible patches alone.

    A visible patch has its own; a removed one the mean of the visible ones', weighted by their distance to
    the power of -3.

    Args:
        patches: (L, ph·pw·C).
        removed: (L,) bool.
        grid_size: (gh, gw).

    Returns:
        Both (L, 1); 0 and 1 where no patch is visible.
    """
    mean, deviation = patch_statistics(patches)
    if bool(removed.all()):
        return torch.zeros_like(mean), torch.ones_like(deviation)
    gh, gw = grid_size
    places = torch.cartesian_prod(torch.arange(gh), torch.arange(gw)).float()  # (L, 2): row, column
    weights = torch.cdist(places[removed], places[~removed]) ** -_DISTANCE_POWER  # (removed, visible)
    weights = weights / weights.sum(dim=1, keepdim=True)
    mean[removed] = weights @ mean[~removed]
    deviation[removed] = weights @ deviation[~removed]
    return mean, deviation


def _mask_tensor(mask: NDArray[np.bool_] | None, grid_size: tuple[int, int]) -> Tensor | None:
    """A mask (gh, gw) as the model takes it, (1, L). Raises `ConfigError` for one of another shape."""
    if mask is None:
        return None
    if mask.shape != grid_size:
        raise ConfigError("mask", mask.shape, f"must have the model's grid, {grid_size}")
    return torch.from_numpy(np.ascontiguousarray(mask, dtype=np.bool_)).reshape(1, -1)


@torch.inference_mode()
def _predict(
    model: ViTMAEForPreTraining, pixels: Tensor, mask_ratio: float, seed: int, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Logits (1, L, ph·pw·C) float32, and which patches are removed, (L,) bool; both on the CPU."""
    noise = torch.rand(1, model.config.num_patches, generator=torch.Generator().manual_seed(seed))
    training = model.training
    model.eval()
    try:
        output = model(pixels.to(model.device), noise, mask=mask, mask_ratio=mask_ratio)
    finally:
        model.train(training)
    return output.logits.float().cpu(), output.mask[0].bool().cpu()


def _panels(
    processor: ViTImageProcessor, pixels: Tensor, predicted: Tensor, removed: Tensor
) -> dict[str, Any]:
    """The four panels, each (H, W, 3) uint8, from (1, 3, H, W) tensors and `removed` (gh, gw)."""
    original, reconstruction = (
        np.moveaxis(processor.denormalize(image[0].numpy()), 0, -1) for image in (pixels, predicted)
    )
    ph, pw = original.shape[0] // removed.shape[0], original.shape[1] // removed.shape[1]
    hidden = removed.numpy().repeat(ph, axis=0).repeat(pw, axis=1)[..., None]  # (H, W, 1)
    return {
        "original": original,
        "masked": np.where(hidden, np.uint8(_GREY), original),
        "reconstruction": reconstruction,
        "pasted": np.where(hidden, reconstruction, original),
    }
