"""Full fine-tuning: layer decay and drop path."""

from __future__ import annotations

import pytest
import torch

from vitmae_search.training.finetuning.full import add_drop_path, drop_path, layer_decay_groups
from vitmae_search.training.optim import set_learning_rate
from vitmae_search.vitmae import ViTConfig, ViTForImageClassification, ViTModel

CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}


@pytest.fixture
def classifier() -> ViTForImageClassification:
    return ViTForImageClassification(ViTConfig(**CONFIG, num_labels=3))


def test_layer_decay_reaches_every_parameter_once_with_its_layers_scale(
    classifier: ViTForImageClassification,
) -> None:
    groups = layer_decay_groups(classifier, depth=3, layer_decay=0.5, weight_decay=0.1)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in classifier.parameters())
    groups_by_parameter = {
        id(p): (group["scale"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    parameters = {name: groups_by_parameter[id(p)] for name, p in classifier.named_parameters()}
    assert parameters["vit.embeddings.cls_token"] == (0.5**4, 0.0)
    assert parameters["vit.embeddings.position_embeddings"] == (0.5**4, 0.0)
    assert parameters["vit.embeddings.patch_embeddings.projection.weight"] == (0.5**4, 0.1)
    assert parameters["vit.embeddings.patch_embeddings.projection.bias"] == (0.5**4, 0.0)
    for layer in range(3):
        stem = f"vit.encoder.layer.{layer}"
        assert parameters[f"{stem}.attention.attention.query.weight"] == (0.5 ** (3 - layer), 0.1)
        assert parameters[f"{stem}.output.dense.bias"] == (0.5 ** (3 - layer), 0.0)
        assert parameters[f"{stem}.layernorm_after.weight"] == (0.5 ** (3 - layer), 0.0)
    assert parameters["vit.layernorm.weight"] == (1.0, 0.0)
    assert parameters["classifier.weight"] == (1.0, 0.1)


def test_a_rate_is_set_by_each_groups_scale(classifier: ViTForImageClassification) -> None:
    groups = layer_decay_groups(classifier, depth=3, layer_decay=0.5, weight_decay=0.1)
    optimizer = torch.optim.AdamW(groups)
    set_learning_rate(optimizer, 0.8)
    assert {group["lr"] for group in optimizer.param_groups} == {0.8, 0.4, 0.2, 0.1, 0.05}


def test_frozen_parameters_are_in_no_group(classifier: ViTForImageClassification) -> None:
    classifier.vit.requires_grad_(False)
    groups = layer_decay_groups(classifier, depth=3, layer_decay=0.5, weight_decay=0.1)
    assert sum(len(group["params"]) for group in groups) == 2


def test_drop_path_drops_whole_branches_and_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(20000, 3, 2), 0.3)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    whole = dropped.flatten(1)
    assert (whole == whole[:, :1]).all()  # a photo's branch is dropped or kept as one
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])


def test_drop_path_acts_in_training_only_and_not_in_the_first_layer() -> None:
    encoder = ViTModel(ViTConfig(**CONFIG), add_pooling_layer=False)
    names = list(encoder.state_dict())
    pixels = torch.randn(64, 3, 16, 16)
    before = encoder.eval()(pixels, output_hidden_states=True).hidden_states
    add_drop_path(encoder, 0.9)
    assert list(encoder.state_dict()) == names
    after = encoder(pixels, output_hidden_states=True).hidden_states
    training = encoder.train()(pixels, output_hidden_states=True).hidden_states
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(training[1], before[1])
    assert not torch.allclose(training[2], before[2])
    # The last layer's two branches both go in 81 % of the photos: it then leaves them as they are.
    untouched = (training[3] == training[2]).flatten(1).all(dim=1).double().mean().item()
    assert 0.6 < untouched < 0.95
