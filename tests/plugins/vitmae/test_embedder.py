"""The ViTMAE plugin: it keeps the contract, and its vectors are the reference's."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.embedding.testing import CHECKS, PluginUnderTest, check_embedder, odd_images
from vitmae_search.errors import DeviceError

PLUGIN = bundled("plugins") / "vitmae"
DEFAULT = bundled("data") / "models" / "vitmae-tiny-patch8-64"
EmbedAll = Callable[[GuardedEmbedder], np.ndarray]


# The contract


@pytest.fixture(
    scope="module", params=["fp32 gem 1", "bf16 gem 1", "fp32 cls+moments five", "bf16 mean flip"]
)
def subject(request, checkpoint: Path):
    precision, pooling, views = request.param.split()
    options = {"model": str(checkpoint), "layers": "2,last", "pooling": pooling, "views": views}
    with PluginUnderTest(PLUGIN, options, precision=precision) as subject:
        yield subject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(check, subject: PluginUnderTest) -> None:
    check(subject)


@pytest.mark.skipif(not DEFAULT.is_dir(), reason="the default model is not trained yet")
def test_the_default_model_keeps_the_contract() -> None:
    check_embedder(PLUGIN)


# Parity with the reference


def reference_states(reference: Any, photos: list[Image.Image], size: int) -> list[torch.Tensor]:
    """What the reference sees and computes: hidden states at mask_ratio 0 in identity order.

    The last is its `last_hidden_state`, after the final layer norm.
    """
    import transformers

    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    processor = transformers.ViTImageProcessorPil(
        size={"height": size, "width": size}, image_mean=mean, image_std=deviation
    )
    pixels = torch.as_tensor(np.stack(processor(images=photos)["pixel_values"]))
    length = (size // 8) ** 2
    noise = torch.arange(length, dtype=torch.float32).expand(len(photos), -1)
    before = reference.config.mask_ratio
    reference.config.mask_ratio = 0.0
    try:
        with torch.no_grad():
            output = reference.vit(
                pixels, noise=noise, interpolate_pos_encoding=size != 32, output_hidden_states=True
            )
    finally:
        reference.config.mask_ratio = before
    assert torch.equal(output.ids_restore, noise.long())
    return [*output.hidden_states[:-1], output.last_hidden_state]


def pooled(states: torch.Tensor, part: str) -> torch.Tensor:
    patches = states[:, 1:].double()
    mean = patches.mean(1)
    cells = patches.reshape(len(patches), 4, side := math.isqrt(patches.shape[1]) // 4, 4, side, -1)
    vectors = {
        "cls": states[:, 0].double(),
        "mean": mean,
        "gem": (patches.sign() * patches.abs() ** 3).mean(1),
        "grid": cells.mean((2, 4)).flatten(1),
        "moments": torch.cat([mean, (patches**2).mean(1).sub(mean**2).sqrt()], dim=1),
    }[part]
    if part == "gem":
        vectors = vectors.sign() * vectors.abs() ** (1 / 3)
    return vectors / vectors.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("pooling", ["cls", "mean", "gem", "moments", "grid", "cls+mean", "moments+gem+cls"])
@pytest.mark.parametrize("layers", ["last", "-2", "1", "1,3,-1"])
def test_vectors_are_the_references(open_model, embed_all, reference, photos, pooling, layers) -> None:
    indices = {"last": [4], "-2": [3], "1": [1], "1,3,-1": [1, 3, 4]}[layers]
    embedder = open_model(layers=layers, pooling=pooling)
    states = reference_states(reference, photos, 32)
    parts = [pooled(states[i], part) for i in indices for part in pooling.split("+")]
    expected = torch.cat(parts, dim=1) / len(parts) ** 0.5
    vectors = embed_all(embedder)
    assert vectors.shape == (len(photos), sum(part.shape[1] for part in parts))
    assert np.abs(vectors - expected.numpy()).max() < 1e-5
    # The bound means something: other photos, and other layers, are farther away than that.
    assert np.abs(vectors - np.roll(vectors, 1, axis=0)).max(axis=1).min() > 1e-3
    assert np.abs(vectors[:, :32] - pooled(states[2], pooling.split("+")[0])[:, :32].numpy()).max() > 1e-3


def test_another_size_stretches_the_positions_as_the_reference_does(
    open_model, embed_all, reference, photos
) -> None:
    embedder = open_model(image_size=48)
    assert (embedder.shape, embedder.input_size) == ((48, 48, 3), 48)
    expected = pooled(reference_states(reference, photos, 48)[-1], "mean").numpy()
    assert np.abs(embed_all(embedder) - expected).max() < 1e-5


def test_a_file_a_folder_and_a_model_of_ours_give_the_same(
    open_model, embed_all, checkpoint: Path, tmp_path: Path
) -> None:
    from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining, ViTMAEModel

    vectors, identity = embed_all(open_model()), open_model().identity
    for cls in (ViTMAEForPreTraining, ViTMAEModel):
        folder = tmp_path / cls.__name__
        cls.from_pretrained(checkpoint).save_pretrained(folder)
        ViTImageProcessor.from_pretrained(checkpoint).save_pretrained(folder)
        assert open_model(model=str(folder)).identity == identity
        assert np.array_equal(embed_all(open_model(model=str(folder))), vectors)
    file = open_model(model=str(checkpoint / "model.safetensors"))
    assert file.identity == identity
    assert file.model == open_model().model == "tiny-reference"


def test_resizing_is_the_processors(open_model, photos) -> None:
    import transformers

    prepare = open_model().prepare
    processor = transformers.ViTImageProcessorPil(
        size={"height": 32, "width": 32}, do_rescale=False, do_normalize=False
    )
    for image in [*photos, *odd_images()]:
        expected = processor(images=image, input_data_format="channels_last")["pixel_values"][0]
        assert np.array_equal(prepare(image), np.moveaxis(np.asarray(expected), 0, -1))


# Precision and devices


def test_bf16_agrees_with_fp32(open_model, embed_all: EmbedAll) -> None:
    full, half = open_model(precision="fp32"), open_model(precision="bf16")
    a, b = embed_all(full), embed_all(half)
    assert (a * b).sum(axis=1).min() >= 0.9995
    assert not np.array_equal(a, b)
    assert (full.provenance["precision"], half.provenance["precision"]) == ("fp32", "bf16")
    assert full.identity == half.identity


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("cuda", "^cuda: (no CUDA device|this torch).*; (see .*, or )?choose cpu or auto"),
        ("cuda:1", "^cuda:1: (no CUDA device|this torch)"),
        ("mps", "^mps: no Apple GPU"),
    ],
)
def test_a_device_that_is_not_there_is_one_clear_sentence(open_model, device: str, reason: str) -> None:
    if getattr(torch, device.partition(":")[0]).is_available():
        pytest.skip("this machine has one")
    with pytest.raises(DeviceError, match=reason):
        open_model(device=device)


def test_vectors_are_the_cpus_in_fp32(open_model, embed_all: EmbedAll, device: str) -> None:
    expected = embed_all(open_model(device="cpu", precision="fp32"))
    assert np.abs(embed_all(open_model(device=device, precision="fp32")) - expected).max() < 1e-5
    half = open_model(device=device, precision="bf16")
    assert half.provenance["precision"] == "bf16"
    assert (embed_all(half) * expected).sum(axis=1).min() >= 0.9995
