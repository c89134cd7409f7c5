"""Reconstructions through the plugin: the model's own, and no vector changes for them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from vitmae_search.errors import CheckpointError, ConfigError, NoDecoder
from vitmae_search.vitmae import reconstruct


def test_reconstructions_are_the_models_and_change_no_vector(
    open_model, embed_all, checkpoint, photos
) -> None:
    from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining

    embedder = open_model(precision="bf16")
    before = embed_all(embedder)
    result = embedder.reconstruct(photos[1], mask_ratio=0.6, seed=5)
    model = ViTMAEForPreTraining.from_pretrained(checkpoint)
    processor = ViTImageProcessor.from_pretrained(checkpoint)
    expected = reconstruct(model, processor, photos[1], mask_ratio=0.6, seed=5)
    assert np.array_equal(result.mask, expected.mask)
    assert np.array_equal(result.reconstruction, expected.reconstruction)
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)
    assert result.mask.sum() == 16 - 6
    assert np.array_equal(embed_all(embedder), before)


def test_a_reconstruction_has_the_models_own_size(open_model, photos) -> None:
    assert open_model(image_size=48).reconstruct(photos[0]).original.shape == (32, 32, 3)
    with pytest.raises(ConfigError, match="mask"):
        open_model().reconstruct(photos[0], mask=np.zeros((3, 3), bool))


def test_an_encoder_alone_embeds_and_does_not_reconstruct(open_model, checkpoint, tmp_path, photos) -> None:
    from vitmae_search.vitmae import ViTMAEModel

    ViTMAEModel.from_pretrained(checkpoint).save_pretrained(tmp_path / "encoder")
    embedder = open_model(model=str(tmp_path / "encoder"))
    assert embedder.embed(embedder.prepare(photos[0])[None]).shape == (1, 32)
    with pytest.raises(NoDecoder, match="encoder is an encoder alone"):
        embedder.reconstruct(photos[0])


def test_weights_that_changed_on_disk_are_not_mixed_in(open_model, checkpoint, tmp_path, photos) -> None:
    from vitmae_search.vitmae import ViTMAEForPreTraining

    folder = tmp_path / "changing"
    shutil.copytree(checkpoint, folder)
    embedder = open_model(model=str(folder))
    model = ViTMAEForPreTraining.from_pretrained(folder)
    with torch.no_grad():
        model.vit.embeddings.cls_token += 1
    model.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="changed on disk"):
        embedder.reconstruct(photos[0])
