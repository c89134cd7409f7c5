"""Linear probing: its features, and the norm that is folded into the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vitmae_search.errors import TrainingError
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.features import cached_features
from vitmae_search.training.finetuning.model import fold_batch_norm
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.finetuning.probe import encode_views, feature_rows
from vitmae_search.training.finetuning.task import PixelLoader
from vitmae_search.vitmae import ViTConfig, ViTImageProcessor, ViTModel

CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}


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
