"""Fine-tuning's parts: layer decay, mixup, targets, drop path, the folded norm, plots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training.data.normalize import Normalize
from vitmae_search.training.data.random_resized_crop import resize_crops
from vitmae_search.training.finetuning.confusion import confusion_matrix, draw_confusion
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.features import cached_features
from vitmae_search.training.finetuning.full import add_drop_path, drop_path, layer_decay_groups
from vitmae_search.training.finetuning.mixup import (
    Mix,
    mix_pixels,
    sample_mix,
    soft_cross_entropy,
    soft_targets,
)
from vitmae_search.training.finetuning.model import fold_batch_norm
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.finetuning.probe import encode_views, feature_rows
from vitmae_search.training.finetuning.report import EpochLine, draw_log
from vitmae_search.training.finetuning.task import PixelLoader, full_frame_crops
from vitmae_search.training.optim import set_learning_rate
from vitmae_search.vitmae import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

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


@given(
    seed=st.integers(0, 2**32),
    mixup=st.sampled_from([0.0, 0.2, 0.8]),
    cutmix=st.sampled_from([0.0, 1.0]),
    side=st.sampled_from([8, 16, 33]),
)
def test_pixels_are_mixed_by_the_share_of_the_targets(
    seed: int, mixup: float, cutmix: float, side: int
) -> None:
    mix = sample_mix(np.random.default_rng(seed), mixup=mixup, cutmix=cutmix, side=side)
    assert 0 <= mix.lam <= 1
    assert mixup or cutmix or mix == Mix(1.0)
    pixels = torch.arange(4.0)[:, None, None, None].expand(4, 3, side, side)
    mixed = mix_pixels(pixels, mix)
    targets = soft_targets(torch.arange(4), 5, smoothing=0.1, mix=mix)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    if mix.box is not None:
        top, left, bottom, right = mix.box
        assert (bottom - top) * (right - left) / side**2 == pytest.approx(1 - mix.lam)
        assert (mixed[0, :, top:bottom, left:right] == 3).all()
        assert float((mixed[0] == 0).double().mean()) == pytest.approx(mix.lam)
    kept = mix.lam * torch.arange(4.0) + (1 - mix.lam) * torch.arange(4.0).flip(0)
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), kept, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(targets[0, 0] - targets[0, 4], torch.tensor(0.9 * mix.lam))


def test_both_mixes_come_up_where_both_are_on() -> None:
    mixes = [sample_mix(np.random.default_rng(i), mixup=0.8, cutmix=1.0, side=32) for i in range(100)]
    assert 30 < sum(mix.box is None for mix in mixes) < 70
    assert all(sample_mix(np.random.default_rng(i), mixup=0.0, cutmix=1.0, side=32).box for i in range(20))
    assert not any(
        sample_mix(np.random.default_rng(i), mixup=0.8, cutmix=0.0, side=32).box for i in range(20)
    )


def test_soft_targets_and_their_loss_are_torchs_own() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    for smoothing in (0.0, 0.1):
        expected = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        targets = soft_targets(labels, 4, smoothing=smoothing)
        torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)


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


def test_the_folded_norm_predicts_as_norm_and_head_did() -> None:
    torch.manual_seed(0)
    norm, head = nn.BatchNorm1d(24, affine=False, eps=1e-6), nn.Linear(24, 7)
    for _ in range(20):
        norm(torch.randn(32, 24) * torch.linspace(0.01, 30, 24) + torch.linspace(-5, 5, 24))
    weight, bias = fold_batch_norm(norm, head)
    features = torch.randn(100, 24) * torch.linspace(0.01, 30, 24)
    with torch.no_grad():
        unfused = head(norm.eval()(features))
    torch.testing.assert_close(nn.functional.linear(features, weight, bias), unfused, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5, "image_mean": (1, 1, 1), "image_std": (1, 1, 1)},
        {"image_mean": (0.4, 0.5, 0.6), "image_std": (0.2, 0.3, 0.25)},
    ],
)
def test_whole_photos_become_the_processors_own_pixels(fields: dict[str, object]) -> None:
    processor = ViTImageProcessor(size=16, **fields)  # type: ignore[arg-type]
    stored = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    expected = processor([Image.fromarray(image) for image in stored], return_tensors="pt")["pixel_values"]
    ours = Normalize.from_processor(processor)(
        resize_crops(torch.from_numpy(stored), full_frame_crops(2, 16, 16), 16)
    )
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_the_confusion_matrix_counts_pairs_and_is_drawn(tmp_path: Path) -> None:
    labels, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2])
    matrix = confusion_matrix(labels, predicted, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    draw_confusion(matrix, ["a", "b" * 80, "ü"], tmp_path / "few.png")
    many = np.eye(300, dtype=np.int64)
    draw_confusion(many, [str(i) for i in range(300)], tmp_path / "many.png")
    for name in ("few.png", "many.png"):
        with Image.open(tmp_path / name) as image:
            image.load()
            assert max(image.size) < 1600
            assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 2


def test_curves_of_one_epoch_and_of_many_are_drawn(tmp_path: Path) -> None:
    lines = [EpochLine(i, float(i), 2.0 / i, 2.2 / i, i / 10, 0.1, 1.0) for i in range(1, 8)]
    draw_log(lines[:1], tmp_path)
    one = (tmp_path / "loss.png").read_bytes()
    draw_log(lines, tmp_path)
    assert (tmp_path / "loss.png").read_bytes() != one
    assert (tmp_path / "accuracy.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("mode", "name", "value"),
    [
        ("probe", "mixup", 0.8),
        ("probe", "layer_decay", 0.5),
        ("full", "views", 3),
        ("full", "layer_decay", 0.0),
        ("full", "drop_path", 1.0),
        ("full", "batch_size", 1),
        ("probe", "val_share", 1.0),
        ("probe", "pooling", "gem"),
        ("probe", "learning_rate", float("nan")),
    ],
)
def test_invalid_options_are_refused_by_name(mode: str, name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        FinetuneOptions.for_mode(mode, **{name: value})


def test_the_recipes_come_back_from_json() -> None:
    for mode in ("probe", "full"):
        options = FinetuneOptions.for_mode(mode, seed=3, crop_scale=(0.3, 0.9))
        assert FinetuneOptions.from_json(options.to_json()) == options


def test_each_views_features_are_those_of_its_photo(tmp_path: Path) -> None:
    encoder = ViTModel(ViTConfig(**CONFIG), add_pooling_layer=False).eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 4, 4, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    training = np.sort(rng.permutation(90)[:70])
    photos = LabelledPhotos(
        images=images,
        labels=np.arange(90) % 3,
        names=("a", "b", "c"),
        training=training,
        validation=np.setdiff1d(np.arange(90), training),
        unlabelled=0,
        failures=(),
        signature="",
    )
    processor = ViTImageProcessor(size=16)
    options = FinetuneOptions.for_mode("probe", views=3, crop_scale=(0.9, 1.0), flip=False)
    cpu = torch.device("cpu")
    pixels = PixelLoader(images, processor, 16, cpu)
    features = encode_views(encoder, pixels, photos, tmp_path, options, device=cpu, signature="x")
    assert features is not None
    assert features.shape == (90 + 2 * 70, 16)

    def expected(shown: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            batch = processor([Image.fromarray(image) for image in shown], return_tensors="pt")
            return encoder(**batch).last_hidden_state[:, 0]

    places = rng.permutation(70)
    whole, first, second = (features[feature_rows(photos, places, places * 0 + view)] for view in range(3))
    chosen = images[training[places]]
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(torch.from_numpy(whole), expected(chosen), **close)
    torch.testing.assert_close(torch.from_numpy(np.array(features[:90])), expected(images), **close)
    assert not np.allclose(first, second, atol=1e-2)
    for cropped in (first, second):
        distances = np.linalg.norm(whole[:, None] - cropped[None], axis=2)
        assert (distances.argmin(axis=1) == np.arange(70)).mean() > 0.5  # by chance 1 in 70

    mirroring = FinetuneOptions.for_mode("probe")
    features = encode_views(encoder, pixels, photos, tmp_path, mirroring, device=cpu, signature="x")
    assert features is not None
    mirrored = features[feature_rows(photos, places, places * 0 + 1)]
    torch.testing.assert_close(torch.from_numpy(mirrored), expected(chosen[:, :, ::-1]), **close)


def test_features_continue_after_a_kill_from_the_recorded_rows(tmp_path: Path) -> None:
    expected = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    starts: list[int] = []

    def encode(start: int, end: int) -> NDArray[np.float32]:
        starts.append(start)
        return expected[start:end]

    def compute(signature: str, stop_at: int = 1000) -> NDArray[np.float32] | None:
        return cached_features(
            tmp_path, encode, shape=(300, 4), signature=signature, stop=lambda: len(starts) >= stop_at
        )

    assert compute("x", stop_at=2) is None
    with (tmp_path / "features.f32").open("ab") as stream:
        stream.write(b"written, and never recorded")
    found = compute("x")
    assert found is not None
    np.testing.assert_array_equal(found, expected)
    assert starts == [0, 64, 128, 192, 256]
    assert compute("x") is not None
    assert len(starts) == 5
    with (tmp_path / "features.f32").open("r+b") as stream:
        stream.truncate(100)  # shorter than recorded: of no use
    np.testing.assert_array_equal(compute("x"), expected)
    np.testing.assert_array_equal(compute("other"), expected)
    assert len(starts) == 15
    expected[200] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        compute("third")
