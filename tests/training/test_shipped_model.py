"""The checkpoint that comes with the package is small, complete, and has learnt something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from skimage import data

from benchmarks.reconstructions import Model, compare
from vitmae_search.bundled import bundled
from vitmae_search.embedding import Projection
from vitmae_search.vitmae import ViTMAEForPreTraining

SHIPPED = bundled("data/models") / "vitmae-tiny-patch8-64"


def test_it_is_small_half_precision_and_has_a_card() -> None:
    weights = SHIPPED / "model.safetensors"
    assert weights.stat().st_size <= 25_000_000
    with safe_open(weights, framework="pt") as opened:
        assert {opened.get_slice(name).get_dtype() for name in opened.keys()} == {"F16"}  # noqa: SIM118
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert "non-commercial" in card
    for picture in Path(SHIPPED).glob("*.png"):
        assert picture.name in card


def test_its_decoder_guesses_plain_pixels_closer_than_simple_fills(tmp_path: Path) -> None:
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()).save(tmp_path / f"{name}.png")
    model = Model(SHIPPED)
    assert not model.config.norm_pix_loss
    assert model.config.decoder_num_hidden_layers > 2
    photos = sorted(map(str, tmp_path.iterdir()))
    for mask_ratio in (0.5, 0.75):
        found = compare(photos, [model], mask_ratio)
        psnr, ssim = (
            {name: np.mean([getattr(figure, what) for figure in figures]) for name, figures in found.items()}
            for what in ("psnr", "ssim")
        )
        for simple in ("mean colour", "bicubic"):
            assert psnr[model.name] > psnr[simple] + 1
            assert ssim[model.name] > ssim[simple] + 0.05


def test_it_is_complete() -> None:
    model = ViTMAEForPreTraining.from_pretrained(SHIPPED)
    assert model.loading_info is not None
    assert model.loading_info.new == model.loading_info.unused == ()


def test_its_projection_says_what_scores_mean_and_so_does_the_card() -> None:
    calibration = Projection.read(SHIPPED / "projection.safetensors").calibration
    assert calibration is not None
    assert calibration.same is not None
    assert calibration.alike is not None
    assert 0 < calibration.alike < calibration.same < 1
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert f"from {calibration.same} on 99 of 100 hits" in card
    assert f"below {calibration.alike} a hit" in card
