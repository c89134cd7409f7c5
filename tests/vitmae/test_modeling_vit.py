"""`ViTModel` and `ViTForImageClassification` against the reference, and from a ViTMAE's checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from vitmae_search.errors import CheckpointError, ConfigError
from vitmae_search.vitmae import (
    NewParametersWarning,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)
from vitmae_search.vitmae.checkpoint.keys import to_hub_names

TOLERANCE = 1e-5
Pair = Callable[..., tuple[Any, Any]]
Pixels = Callable[[int, int], Tensor]
Models = Callable[..., ViTMAEForPreTraining]

VARIANTS: dict[str, tuple[dict[str, Any], tuple[int, int] | None]] = {
    "plain": ({}, None),
    "flat": ({}, (24, 56)),
    "tall": ({}, (64, 16)),
    "unequal patches": ({"image_size": (32, 64), "patch_size": (8, 16)}, None),
    "another activation": ({"hidden_act": "relu", "qkv_bias": False}, (16, 64)),
    "dropout, evaluated": ({"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}, None),
}
CASES = pytest.mark.parametrize("variant", VARIANTS)


def distance(a: Any, b: Any) -> float:
    if isinstance(a, tuple):
        assert len(a) == len(b)
        return max(distance(x, y) for x, y in zip(a, b, strict=True))
    assert a.shape == b.shape
    return float((a.double() - b.double()).detach().abs().max())


def images(ours: Any, variant: str, pixels: Pixels) -> tuple[Tensor, bool]:
    size = VARIANTS[variant][1]
    return pixels(*(size or ours.config.image_shape)), size is not None


@CASES
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_encoder_and_its_pooler(variant: str, implementation: str, pair: Pair, pixels: Pixels) -> None:
    ours, reference = pair("ViTModel", **VARIANTS[variant][0])
    arguments: dict[str, Any] = {"output_hidden_states": True, "return_dict": False}
    if implementation == "eager":
        arguments["output_attentions"] = True
    pictures, interpolate = images(ours, variant, pixels)
    for model in (ours, reference):
        model.set_attn_implementation(implementation)
    with torch.inference_mode():
        mine = ours(pictures, interpolate, **arguments)
        theirs = reference(pictures, interpolate_pos_encoding=interpolate, **arguments)
        assert len(mine) == 3 + (implementation == "eager")
        assert distance(mine, theirs) <= TOLERANCE
        positions = ours.embeddings.position_embeddings.data
        positions[:, 1:] = positions[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2).clone()
        assert distance(ours(pictures, interpolate, **arguments), theirs) > 100 * TOLERANCE


@CASES
def test_classification_and_all_its_gradients(variant: str, pair: Pair, pixels: Pixels) -> None:
    ours, reference = pair("ViTForImageClassification", num_labels=5, **VARIANTS[variant][0])
    pictures, interpolate = images(ours, variant, pixels)
    labels = torch.tensor([4, 1])
    mine = ours(pictures, labels, interpolate)
    theirs = reference(pictures, labels=labels, interpolate_pos_encoding=interpolate)
    assert tuple(mine.keys()) == tuple(theirs.keys()) == ("loss", "logits")
    assert distance(mine.to_tuple(), theirs.to_tuple()) <= TOLERANCE
    mine.loss.backward()
    theirs.loss.backward()
    found = {name: parameter.grad for name, parameter in reference.named_parameters()}
    expected, _ = to_hub_names(found)
    assert expected.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        scale = float(expected[name].norm())
        error = float((parameter.grad - expected[name]).norm())
        assert error <= (1e-5 if name.endswith("key.bias") else 1e-4 * scale), name


PROBLEMS: dict[str, tuple[int, str | None, Callable[[], Tensor]]] = {
    "single": (5, None, lambda: torch.tensor([4, 1])),
    "single, 32 bits": (5, "single_label_classification", lambda: torch.tensor([4, 1])),
    "multi, by its labels": (5, None, lambda: torch.tensor([[0, 1, 1, 0, 0], [1, 0, 0, 0, 1.0]])),
    "multi": (5, "multi_label_classification", lambda: torch.rand(2, 5)),
    "regression, by its one logit": (1, None, lambda: torch.tensor([0.3, -2.0])),
    "regression of several": (3, "regression", lambda: torch.randn(2, 3)),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_problem_has_the_reference_s_loss(problem: str, pair: Pair, pixels: Pixels) -> None:
    count, kind, make_labels = PROBLEMS[problem]
    ours, reference = pair("ViTForImageClassification", num_labels=count, problem_type=kind)
    labels = make_labels()
    with torch.inference_mode():
        mine = ours(pixels(24, 48), labels=labels, interpolate_pos_encoding=True)
        theirs = reference(pixels(24, 48), labels=labels, interpolate_pos_encoding=True)
        assert distance(mine.loss, theirs.loss) <= TOLERANCE
        assert distance(mine.logits, theirs.logits) <= TOLERANCE
        plain = ours(pixels(24, 48), interpolate_pos_encoding=True, return_dict=False)
    assert len(plain) == 1
    assert ours.config.problem_type == kind  # the reference writes its guess into the configuration


def test_labels_of_the_wrong_shape_are_refused(pair: Pair, pixels: Pixels) -> None:
    ours, _ = pair("ViTForImageClassification", num_labels=3, problem_type="regression")
    with pytest.raises(RuntimeError, match="shape"):
        ours(pixels(32, 32), labels=torch.zeros(2, 2))
    ours.config.problem_type = "ranking"
    with pytest.raises(ConfigError, match="problem_type='ranking'"):
        ours(pixels(32, 32), labels=torch.zeros(2, 3))


def test_without_labels_there_is_no_head(tiny: Callable[..., dict[str, Any]], pixels: Pixels) -> None:
    fields = {name: value for name, value in tiny().items() if not name.startswith("decoder_")}
    model = ViTForImageClassification(ViTConfig(**fields, num_labels=0))
    assert isinstance(model.classifier, nn.Identity)
    assert model(pixels(32, 32)).logits.shape == (2, 32)


def test_dropout_in_training_falls_where_the_reference_s_does(pair: Pair, pixels: Pixels) -> None:
    fields = {"num_labels": 3, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}
    logits = []
    for model in pair("ViTForImageClassification", **fields):
        torch.manual_seed(3)
        logits.append(model.train()(pixels(32, 32)).logits)
    assert distance(logits[0], logits[1]) <= TOLERANCE
    torch.manual_seed(4)
    assert distance(model(pixels(32, 32)).logits, logits[1]) > 0.01


@pytest.fixture
def pretrained(random_model: Models, tmp_path: Path) -> tuple[ViTMAEForPreTraining, Path]:
    """A ViTMAE, and the folder it was saved to."""
    model = random_model()
    model.save_pretrained(tmp_path / "mae")
    return model, tmp_path / "mae"


def test_a_vitmae_becomes_a_classifier(pretrained: tuple[ViTMAEForPreTraining, Path], pixels: Pixels) -> None:
    mae, folder = pretrained
    labels = {0: "cat", 1: "dog", 2: "owl"}
    message = r"lacks 2 parameters.*classifier\.weight, classifier\.bias"
    with pytest.warns(NewParametersWarning, match=message):
        model, info = ViTForImageClassification.from_pretrained(
            folder, id2label=labels, output_loading_info=True
        )
    _, theirs = transformers.ViTForImageClassification.from_pretrained(
        folder, id2label=labels, output_loading_info=True
    )
    nothing = dict.fromkeys(theirs["unexpected_keys"], Tensor())
    unused, _ = to_hub_names({f"vit.{k}": v for k, v in mae.vit.state_dict().items()} | nothing)
    assert info["missing_keys"] == theirs["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert info["unexpected_keys"] == {k for k in mae.state_dict() if k.startswith("decoder.")}
    assert info["unexpected_keys"] == {k for k in unused if k.startswith("decoder.")}
    assert info["mismatched_keys"] == set()
    for name, value in mae.vit.state_dict().items():
        assert torch.equal(model.vit.state_dict()[name], value), name
    tokens = mae.vit.encode(pixels(32, 32), [2])[0]
    assert distance(model.vit(pixels(32, 32)).last_hidden_state, tokens) <= TOLERANCE
    assert 0 < float(model.classifier.weight.detach().std()) < 0.1
    assert model.config.id2label == labels


def test_a_classifier_goes_both_ways(pretrained: tuple[Any, Path], tmp_path: Path, pixels: Pixels) -> None:
    with pytest.warns(NewParametersWarning):
        ours = ViTForImageClassification.from_pretrained(pretrained[1], id2label={0: "cat", 1: "dog"})
    ours.save_pretrained(tmp_path / "ours")
    reference, info = transformers.ViTForImageClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values()), info
    assert reference.config.id2label == {0: "cat", 1: "dog"}
    with torch.inference_mode():
        expected = reference(pixels(32, 32)).logits
        assert distance(ours(pixels(32, 32)).logits, expected) <= TOLERANCE
        reference.save_pretrained(tmp_path / "theirs")
        again, info = ViTForImageClassification.from_pretrained(tmp_path / "theirs", output_loading_info=True)
        assert not any(info.values()), info
        assert distance(again(pixels(32, 32)).logits, expected) <= TOLERANCE
    assert again.config.label2id == {"cat": 0, "dog": 1}


def test_a_pooler_goes_both_ways(pair: Pair, tmp_path: Path, pixels: Pixels) -> None:
    ours, reference = pair("ViTModel", pooler_output_size=12)
    ours.save_pretrained(tmp_path / "ours")
    reference.save_pretrained(tmp_path / "theirs")
    loaded, info = transformers.ViTModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    again, info = ViTModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(info.values()), info
    with torch.inference_mode():
        pooled = loaded(pixels(32, 32)).pooler_output
        assert pooled.shape == (2, 12)
        assert distance(again(pixels(32, 32)).pooler_output, pooled) <= TOLERANCE


def test_a_pooler_is_left_out_on_request(pretrained: tuple[Any, Path], pair: Pair, tmp_path: Path) -> None:
    bare, info = ViTModel.from_pretrained(pretrained[1], add_pooling_layer=False, output_loading_info=True)
    assert bare.pooler is None
    assert not info["missing_keys"]
    pair("ViTModel")[0].save_pretrained(tmp_path)
    bare, info = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert info["unexpected_keys"] == {"vit.pooler.dense.weight", "vit.pooler.dense.bias"}
    with pytest.raises(ConfigError, match="is not a field of ViTMAEConfig"):
        ViTMAEModel.from_pretrained(pretrained[1], add_pooling_layer=False)


def test_a_fine_tuned_encoder_is_an_encoder(
    pretrained: tuple[Any, Path], tmp_path: Path, pixels: Pixels
) -> None:
    with pytest.warns(NewParametersWarning):
        tuned = ViTForImageClassification.from_pretrained(pretrained[1])
    with torch.no_grad():
        tuned.vit.embeddings.position_embeddings.add_(0.1)  # fine-tuning trains them
    tuned.save_pretrained(tmp_path / "tuned")
    encoder = ViTMAEModel.from_pretrained(tmp_path / "tuned")
    assert encoder.loading_info is not None
    assert encoder.loading_info.unused == ("classifier.bias", "classifier.weight")
    assert encoder.config.mask_ratio == 0.75
    with torch.inference_mode():
        expected = tuned.vit(pixels(24, 48), True).last_hidden_state
        found = encoder.encode(pixels(24, 48), [2], interpolate_pos_encoding=True)[0]
    assert distance(found, expected) <= TOLERANCE
    with pytest.warns(NewParametersWarning, match=r"vit\.pooler\.dense\.weight"):
        pooled = ViTModel.from_pretrained(tmp_path / "tuned")
    assert distance(pooled(pixels(24, 48), True).last_hidden_state, expected) <= TOLERANCE


def test_half_a_classifier_is_refused(pretrained: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.warns(NewParametersWarning):
        model = ViTForImageClassification.from_pretrained(pretrained[1])
    state = {name: value for name, value in model.state_dict().items() if name != "classifier.bias"}
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match=r"lacks classifier\.bias"):
        ViTForImageClassification.from_pretrained(tmp_path / "half.pth", config=model.config)


@pytest.mark.parametrize("size", [(32, 32), (24, 56), (64, 16)])
def test_feature_maps_are_in_the_image_s_order(size: tuple[int, int], pair: Pair, pixels: Pixels) -> None:
    ours, reference = pair("ViTModel")
    grid = (size[0] // 8, size[1] // 8)
    with torch.inference_mode():
        maps = ours.feature_maps(pixels(*size), [0, 2, 1], interpolate_pos_encoding=True)
        theirs = reference(pixels(*size), interpolate_pos_encoding=True, output_hidden_states=True)
    expected = [theirs.hidden_states[0], theirs.last_hidden_state, theirs.hidden_states[1]]
    for planes, tokens in zip(maps, expected, strict=True):
        assert planes.shape == (2, 32, *grid)
        for row in range(grid[0]):
            for column in range(grid[1]):
                token = tokens[:, 1 + row * grid[1] + column]
                assert distance(planes[:, :, row, column], token) <= TOLERANCE


def test_a_vitmae_has_feature_maps_too(random_model: Models, pixels: Pixels) -> None:
    model = random_model(image_size=(32, 64), patch_size=(8, 16), mask_ratio=0.75).vit
    with torch.inference_mode():
        (planes,) = model.feature_maps(pixels(32, 64), [2])
        tokens = model(pixels(32, 64), mask_ratio=0).last_hidden_state
        moved = model.feature_maps(pixels(32, 64).roll(8, dims=2), [0])[0]
        (embedded,) = model.feature_maps(pixels(32, 64), [0])
    assert planes.shape == (2, 32, 4, 4)
    assert torch.equal(planes[:, :, 2, 3], tokens[:, 1 + 2 * 4 + 3])
    positions = model.embeddings.position_embeddings[0, 1:].T.unflatten(1, (4, 4))
    assert distance((moved - positions)[:, :, 1], (embedded - positions)[:, :, 0]) <= TOLERANCE
