"""The network with random weights, as a training starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitmae_search.errors import NoDecoder
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel


def test_it_is_the_network_that_a_training_starts_from(open_model, embed_all, checkpoint: Path) -> None:
    embedder = open_model(layers="2,last", pooling="cls+moments", views="flip")
    before, draw = embed_all(embedder), torch.random.get_rng_state()
    untrained = embedder.random_init(seed=3)
    assert torch.equal(torch.random.get_rng_state(), draw), "the caller's random numbers are their own"
    assert untrained.model == "tiny-reference untrained"
    assert (untrained.shape, untrained.dimension, untrained.input_size) == (
        *(embedder.shape, embedder.dimension, embedder.input_size),
    )
    assert untrained.provenance.items() <= embedder.provenance.items(), "torch alone, in long runs as well"
    assert {**untrained.identity, "weights": None} == {**embedder.identity, "weights": None}

    torch.manual_seed(3)  # as `pretrain --seed 3` does
    fresh = ViTMAEForPreTraining(ViTMAEConfig.from_pretrained(checkpoint))
    ours = untrained._embedder._encoder.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in fresh.vit.state_dict().items())

    vectors = embed_all(untrained)
    assert np.abs(vectors - before).max() > 1e-2
    untrained.close()
    assert np.array_equal(embed_all(embedder), before)


def test_the_seed_decides_the_weights(open_model) -> None:
    embedder = open_model()
    digests = [embedder.random_init(seed).identity["weights"] for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(NoDecoder, match="untrained"):
        embedder.random_init(0)._embedder._with_decoder()


def test_a_bare_encoder_has_one(open_model, checkpoint: Path, tmp_path: Path) -> None:
    ViTMAEModel.from_pretrained(checkpoint).save_pretrained(tmp_path / "bare")
    embedder = open_model(model=str(tmp_path / "bare"))
    assert embedder.random_init(5).dimension == 32
