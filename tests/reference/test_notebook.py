"""The well-known visualisation of a ViTMAE, its four panels and its last step, at full size.

NielsRogge/Transformers-Tutorials, ViTMAE/ViT_MAE_visualization_demo.ipynb: the panels are written anew
here from what it shows, through the public names that it uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.vitmae import (
    NewParametersWarning,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEForPreTraining,
    reconstruct,
)

SEED = 2
TITLES = ("original", "masked", "reconstruction", "reconstruction + visible")


def panels(model: Any, processor: Any, image: Image.Image) -> dict[str, NDArray[np.int64]]:
    """Four pictures, (H, W, 3), 0 to 255, cut off as the notebook cuts them off; and the mask."""
    pixel_values = processor(image, return_tensors="pt").pixel_values
    torch.manual_seed(SEED)
    with torch.no_grad():
        outputs = model(pixel_values)
        prediction = model.unpatchify(outputs.logits)
        per_pixel = outputs.mask.unsqueeze(-1).expand(-1, -1, model.config.patch_size**2 * 3)
        mask = model.unpatchify(per_pixel)
    masked = pixel_values * (1 - mask)
    planes = (pixel_values, masked, prediction, masked + prediction * mask)
    mean, deviation = np.array(processor.image_mean), np.array(processor.image_std)
    shown = {}
    for title, plane in zip(TITLES, planes, strict=True):
        values = (plane[0].permute(1, 2, 0).numpy() * deviation + mean) * 255
        shown[title] = np.clip(values, 0, 255).astype(np.int64)
    return {**shown, "mask": mask[0, 0].numpy().astype(np.int64)}


@pytest.fixture
def image(photo: Path) -> Image.Image:
    return Image.open(photo)


def test_the_four_panels_are_the_reference_s(
    base: str, image: Image.Image, reference: Any, reference_processor: Any
) -> None:
    processor = ViTImageProcessor.from_pretrained(base)
    model = ViTMAEForPreTraining.from_pretrained(base)
    mine, theirs = panels(model, processor, image), panels(reference, reference_processor, image)
    assert np.array_equal(mine["mask"], theirs["mask"])
    assert mine["mask"].sum() == 147 * 16 * 16
    for title in TITLES:
        difference = np.abs(mine[title] - theirs[title])
        assert difference.max() <= 1, title
        assert (difference > 0).mean() < 0.001, title  # values that lie between two integers
        assert mine[title].std() > 10
    assert np.array_equal(mine["original"], theirs["original"])
    resized = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(mine["original"] - resized).max() <= 1
    shown = reconstruct(model, processor, image, mask=mine["mask"][::16, ::16].astype(bool))
    for title, panel in (("original", shown.original), ("reconstruction", shown.reconstruction)):
        assert np.abs(panel.astype(np.int64) - mine[title]).max() <= 1  # rounded, where that cuts off
    assert np.abs(shown.pasted.astype(np.int64) - mine["reconstruction + visible"]).max() <= 1


def test_its_last_step_makes_a_classifier(base: str) -> None:
    with pytest.warns(NewParametersWarning, match=r"classifier\.weight, classifier\.bias"):
        model = ViTForImageClassification.from_pretrained(base)
    assert model.loading_info is not None
    assert {name.split(".")[0] for name in model.loading_info.unused} == {"decoder"}
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).logits.shape == (1, 2)
