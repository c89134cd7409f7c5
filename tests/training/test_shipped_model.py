"""The checkpoint that comes with the package is small, complete, and has learnt something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from vitmae_search.bundled import bundled
from vitmae_search.embedding import Projection
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining, reconstruct

SHIPPED = bundled("data/models") / "vitmae-tiny-patch8-64"


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    from skimage import data

    return [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")]


def test_it_is_small_half_precision_and_has_a_card() -> None:
    weights = SHIPPED / "model.safetensors"
    assert weights.stat().st_size <= 25_000_000
    with safe_open(weights, framework="pt") as opened:
        assert {opened.get_slice(name).get_dtype() for name in opened.keys()} == {"F16"}  # noqa: SIM118
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert "non-commercial" in card
    for picture in Path(SHIPPED).glob("*.png"):
        assert picture.name in card


def test_it_reconstructs_real_photos_better_than_an_untrained_one(photos: list[Image.Image]) -> None:
    model = ViTMAEForPreTraining.from_pretrained(SHIPPED)
    processor = ViTImageProcessor.from_pretrained(SHIPPED)
    assert model.loading_info is not None
    assert model.loading_info.new == model.loading_info.unused == ()
    torch.manual_seed(0)
    untrained = ViTMAEForPreTraining(model.config).eval()
    shipped, made = (
        np.mean([reconstruct(m, processor, photo, seed=1).loss for photo in photos])
        for m in (model, untrained)
    )
    assert shipped < 0.75  # a prediction of each patch's mean is 1: pixels are normalised patch by patch
    assert made > 1


def test_its_projection_says_what_scores_mean_and_so_does_the_card() -> None:
    calibration = Projection.read(SHIPPED / "projection.safetensors").calibration
    assert calibration is not None
    assert calibration.same is not None
    assert calibration.alike is not None
    assert 0 < calibration.alike < calibration.same < 1
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert f"from {calibration.same} on 99 of 100 hits" in card
    assert f"below {calibration.alike} a hit" in card
