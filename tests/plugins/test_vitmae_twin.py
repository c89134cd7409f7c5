"""The twin that has learnt nothing, and the projection file beside a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vitmae_search.embedding import Untrained
from vitmae_search.errors import NoDecoder
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel


def test_the_twin_is_the_network_that_a_training_begins_with(open_model, embed_all, checkpoint: Path) -> None:
    embedder = open_model(layers="2,last", pooling="cls+moments", views="flip", precision="bf16")
    before, draw = embed_all(embedder), torch.random.get_rng_state()
    twin = embedder.untrained(seed=3)
    assert torch.equal(torch.random.get_rng_state(), draw), "the caller's random numbers are their own"
    assert twin.model == "tiny-reference untrained"
    assert (twin.shape, twin.dimension, twin.input_size) == (
        *(embedder.shape, embedder.dimension, embedder.input_size),
    )
    assert twin.provenance == embedder.provenance
    assert {**twin.identity, "weights": None} == {**embedder.identity, "weights": None}

    torch.manual_seed(3)  # as `pretrain --seed 3` does
    fresh = ViTMAEForPreTraining(ViTMAEConfig.from_pretrained(checkpoint))
    ours = twin._embedder._encoder.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in fresh.vit.state_dict().items())

    vectors = embed_all(twin)
    assert np.abs(vectors - before).max() > 1e-2
    twin.close()
    assert np.array_equal(embed_all(embedder), before)


def test_the_seed_decides_the_twin(open_model) -> None:
    embedder = open_model()
    digests = [embedder.untrained(seed).identity["weights"] for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(NoDecoder, match="untrained"):
        embedder.untrained(0)._embedder._with_decoder()


def test_a_bare_encoder_has_a_twin(open_model, checkpoint: Path, tmp_path: Path) -> None:
    ViTMAEModel.from_pretrained(checkpoint).save_pretrained(tmp_path / "bare")
    embedder = open_model(model=str(tmp_path / "bare"))
    assert isinstance(embedder._embedder, Untrained)
    assert embedder.untrained(5).dimension == 32


def test_the_projection_beside_a_checkpoint_is_found(open_model, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with-projection"
    shutil.copytree(checkpoint, folder)
    assert open_model(model=str(folder))._embedder.projection is None
    (folder / "projection.safetensors").write_bytes(b"the host reads it")
    embedder = open_model(model=str(folder))
    assert embedder._embedder.projection == str(folder / "projection.safetensors")
    assert embedder.untrained(0)._embedder.projection is None, "it was fitted to what the training learnt"
    assert embedder.fingerprint("exact") == open_model(model=str(checkpoint)).fingerprint("exact")
    file = open_model(model=str(folder / "model.safetensors"))
    assert file._embedder.projection == str(folder / "projection.safetensors")
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    assert open_model(model=str(folder)).identity == embedder.identity, "it is not taken for the weights"
