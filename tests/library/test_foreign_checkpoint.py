"""A foreign checkpoint through `Library`: vectors as the reference computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from vitmae_search.catalog import Catalog
from vitmae_search.errors import ModelError
from vitmae_search.library import Library


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViTMAE that transformers saved, every parameter random, positions and mask token too."""
    folder = tmp_path_factory.mktemp("checkpoint")
    config = transformers.ViTMAEConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, image_size=48,
        patch_size=8, decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, norm_pix_loss=True,
    )  # fmt: skip
    model = transformers.ViTMAEForPreTraining(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def reference_vectors(checkpoint: Path, paths: list[str]) -> np.ndarray:
    """Mean of the patch tokens of the reference's encoder at mask ratio 0, unit length."""
    model = transformers.ViTMAEModel.from_pretrained(checkpoint, mask_ratio=0.0).eval()
    processor = transformers.ViTImageProcessorPil.from_pretrained(checkpoint)
    noise = torch.arange(36, dtype=torch.float32)[None]
    rows = []
    for path in paths:
        with Image.open(path) as image:
            pixels = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            tokens = model(pixels, noise=noise).last_hidden_state[0, 1:]
        mean = tokens.mean(0)
        rows.append((mean / mean.norm()).numpy())
    return np.stack(rows)


def test_vectors_are_the_references(checkpoint: Path, real_photos: dict[str, Path], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("chelsea", "coffee", "rocket", "china", "camera"):
        (photos / real_photos[name].name).write_bytes(real_photos[name].read_bytes())
    folder = tmp_path / "library"
    options = {"pooling": "mean", "layers": "last"}
    with Library.open(
        folder, model=str(checkpoint), options=options, precision="fp32", decode="exact", batch_size=3
    ) as library:
        report = library.index(photos)
        assert (report.added, report.failed) == (5, 0)
        reconstruction = library.reconstruct(real_photos["rocket"], mask_ratio=0.5, seed=1)
        assert reconstruction.mask.shape == (6, 6)
        assert reconstruction.mask.sum() == 18
    with Catalog.open(folder) as catalog:
        (space,) = catalog.spaces()
        found = catalog.photos()
        ours = np.stack([catalog.vector(space.space_id, photo.content_id) for photo in found])
    theirs = reference_vectors(checkpoint, [photo.path for photo in found])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.abs(ours @ ours.T - np.eye(len(ours))).max() > 1e-3, "different photos differ"
    assert not np.allclose(ours, np.roll(theirs, 1, axis=0), atol=1e-4), "rows would not match if shuffled"


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path, real_photos: dict[str, Path]) -> None:
    with Library.open(tmp_path / "library", model=str(tmp_path / "nothing")) as library:
        with pytest.raises(ModelError, match="nothing"):
            library.index(real_photos["rocket"].parent)
        assert library.status().photos == 0
