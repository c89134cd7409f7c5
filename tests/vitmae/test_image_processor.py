"""The image processor: on RGB the same bits as the reference; all other pictures become RGB first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from transformers import ViTImageProcessorPil

from vitmae_search.errors import ConfigError, ModelNotFound
from vitmae_search.vitmae import IMAGENET_MEAN, IMAGENET_STD, ViTImageProcessor, ViTMAEConfig, find_checkpoint
from vitmae_search.vitmae.image_processor import to_rgb

IMAGENET = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
SIZES = [(224, 224), (64, 64), (17, 33), (1, 1), (1, 40), (40, 1), (513, 300), (224, 100), (3, 3)]


def noise_picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def theirs(processor: Any, images: Any) -> NDArray[Any]:
    result: NDArray[Any] = processor(images, return_tensors="np")["pixel_values"]
    return result


@pytest.mark.parametrize("options", [{}, IMAGENET, {**IMAGENET, "size": {"height": 48, "width": 80}}])
def test_the_same_bits_as_the_reference_at_every_size(options: dict[str, Any]) -> None:
    ours, reference = ViTImageProcessor(**options), ViTImageProcessorPil(**options)
    for height, width in SIZES:
        picture = Image.fromarray(noise_picture(height, width))
        mine = ours(picture, return_tensors="np").pixel_values
        assert mine.dtype == np.float32
        assert np.array_equal(mine, theirs(reference, picture)), (height, width)


def test_the_same_bits_on_real_photos_one_or_many(photos: dict[str, Image.Image]) -> None:
    ours, reference = ViTImageProcessor(**IMAGENET), ViTImageProcessorPil(**IMAGENET)
    expected = reference(list(photos.values()), return_tensors="pt")["pixel_values"]
    assert torch.equal(ours(list(photos.values()), return_tensors="pt").pixel_values, expected)
    for number, photo in enumerate(photos.values()):
        alone = ours(photo, return_tensors="pt")["pixel_values"]
        assert torch.equal(alone, expected[number : number + 1])


@pytest.mark.parametrize(
    "options",
    [
        {"do_resize": False},
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"resample": 3, "size": {"height": 20, "width": 50}},
        {"resample": 0},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    ],
)
def test_every_step_can_be_changed(options: dict[str, Any], photos: dict[str, Image.Image]) -> None:
    mine = ViTImageProcessor(**options)(photos["coffee"], return_tensors="np").pixel_values
    expected = theirs(ViTImageProcessorPil(**options), photos["coffee"])
    assert mine.dtype == expected.dtype
    assert np.array_equal(mine, expected)


@pytest.mark.parametrize("shape", [(30, 40), (3, 50), (40, 3), (1, 9), (9, 1)])
def test_arrays_and_tensors_in_both_orders(shape: tuple[int, int]) -> None:
    last = noise_picture(*shape)
    first = np.moveaxis(last, -1, 0)
    processor = ViTImageProcessor()
    expected = processor(Image.fromarray(last), return_tensors="pt").pixel_values
    ambiguous = 3 in shape
    for array, order in ((last, "channels_last"), (first, "channels_first")):
        for picture in (array, torch.from_numpy(np.ascontiguousarray(array)), [array]):
            given: Any = order if ambiguous else None
            result = processor(picture, return_tensors="pt", input_data_format=given).pixel_values
            assert torch.equal(result, expected)


def test_where_both_ends_could_be_channels_the_first_is_as_in_the_reference() -> None:
    array = noise_picture(3, 50)
    mine = ViTImageProcessor()(array, return_tensors="np").pixel_values
    assert np.array_equal(mine, theirs(ViTImageProcessorPil(), array))


def test_a_batch_is_a_list(photos: dict[str, Image.Image]) -> None:
    pictures = [np.asarray(photo.resize((50, 40))) for photo in photos.values()]
    processor = ViTImageProcessor(size=16)
    one_by_one = processor(pictures, return_tensors="pt").pixel_values
    assert torch.equal(processor(np.stack(pictures), return_tensors="pt").pixel_values, one_by_one)
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    assert torch.equal(processor(batch, return_tensors="pt").pixel_values, one_by_one)
    as_list = processor(pictures).pixel_values
    assert isinstance(as_list, list)
    assert np.array_equal(np.stack(as_list), one_by_one.numpy())


def test_floats_in_0_to_1_are_pixels_too() -> None:
    pixels = noise_picture(20, 30)
    for factor, dtype in ((255, np.float32), (1, np.float64), (1, np.int64)):
        scaled = (pixels / factor if factor > 1 else pixels).astype(dtype)
        assert np.array_equal(np.asarray(to_rgb(scaled)[0]), pixels)
    for bad in (np.full((4, 4), -1.0), np.full((4, 4), 300), np.full((4, 4), np.nan)):
        with pytest.raises(ValueError, match="pixels must be 0 to 255"):
            to_rgb(bad)


MODES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "L": lambda rgb: rgb.convert("L"),
    "1": lambda rgb: rgb.convert("1"),
    "LA": lambda rgb: rgb.convert("LA"),
    "P": lambda rgb: rgb.quantize(16),
    "RGBA": lambda rgb: rgb.convert("RGBA"),
    "CMYK": lambda rgb: rgb.convert("CMYK"),
    "YCbCr": lambda rgb: rgb.convert("YCbCr"),
    "I;16": lambda rgb: Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257),
    "I": lambda rgb: rgb.convert("I"),
    "F": lambda rgb: rgb.convert("F"),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb_and_says_how(mode: str, photos: dict[str, Image.Image]) -> None:
    picture = MODES[mode](photos["coffee"])
    assert picture.mode == mode
    rgb, how = to_rgb(picture)
    assert (rgb.mode, rgb.size) == ("RGB", picture.size)
    assert how is not None
    assert how.startswith(f"{mode} picture: ")
    grey = np.asarray(photos["coffee"].convert("L"), dtype=float)
    correlation = np.corrcoef(grey.ravel(), np.asarray(rgb.convert("L"), dtype=float).ravel())[0, 1]
    assert correlation > (0.4 if mode == "1" else 0.97)  # "1" is dithered
    pixels = ViTImageProcessor()(picture, return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 224, 224)
    assert bool(torch.isfinite(pixels).all())


def test_sixteen_bits_become_the_eight_they_stand_for() -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    for picture in (Image.fromarray(values), values):
        rgb, _ = to_rgb(picture)
        assert np.array_equal(np.asarray(rgb)[..., 0].ravel(), np.arange(256))


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    for picture in (clear, palette, np.asarray(clear)):
        assert np.asarray(to_rgb(picture)[0]).min() == 255


def test_rgb_is_not_touched(photos: dict[str, Image.Image]) -> None:
    assert to_rgb(photos["china"]) == (photos["china"], None)


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 2, 2, 2)), np.zeros((5, 5, 7)), np.zeros((0, 4, 3))])
def test_what_is_no_picture_is_refused(bad: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"axes|axis"):
        to_rgb(bad)
    for thing, kind in ((b"photo.jpg", "bytes"), (3, "int"), ([None], "NoneType")):
        with pytest.raises(TypeError, match=f"not {kind}"):
            ViTImageProcessor()(thing)  # type: ignore[arg-type]


def test_different_sizes_make_no_batch(photos: dict[str, Image.Image]) -> None:
    with pytest.raises(ValueError, match="do_resize is off"):
        ViTImageProcessor(do_resize=False)([photos["coffee"], photos["china"]], return_tensors="pt")


def test_pixels_come_back_exactly(photos: dict[str, Image.Image]) -> None:
    processor = ViTImageProcessor(**IMAGENET)
    resized = processor.resize(photos["chelsea"])
    assert np.array_equal(processor.denormalize(processor.rescale_and_normalize(resized)), resized)
    batch = np.stack([resized, resized[:, ::-1]])
    assert np.array_equal(
        processor.rescale_and_normalize(batch)[1], processor.rescale_and_normalize(resized[:, ::-1])
    )


def test_a_file_of_2022_is_read(tmp_path: Path) -> None:
    old = {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "resample": 2,
        "size": 224,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    ours = ViTImageProcessor.from_pretrained(tmp_path)
    assert ours == ViTImageProcessor(**IMAGENET)
    picture = Image.fromarray(noise_picture(90, 70))
    expected = theirs(ViTImageProcessorPil.from_pretrained(tmp_path), picture)
    assert np.array_equal(ours(picture, return_tensors="np").pixel_values, expected)


def test_files_go_both_ways(tmp_path: Path) -> None:
    ours = ViTImageProcessor(size={"height": 32, "width": 64}, resample=3, **IMAGENET)
    ours.save_pretrained(tmp_path / "ours")
    reference = transformers.ViTImageProcessorPil.from_pretrained(tmp_path / "ours")
    reference.save_pretrained(tmp_path / "theirs")
    assert ViTImageProcessor.from_pretrained(tmp_path / "theirs") == ours
    picture = Image.fromarray(noise_picture(90, 70))
    assert np.array_equal(ours(picture, return_tensors="np").pixel_values, theirs(reference, picture))


def test_without_a_file_the_authors_statistics_at_the_models_size(tmp_path: Path) -> None:
    (tmp_path / "mae.pth").touch()
    files = find_checkpoint(tmp_path)
    processor = ViTImageProcessor.for_checkpoint(files, ViTMAEConfig(image_size=(32, 64)))
    assert processor == ViTImageProcessor(size={"height": 32, "width": 64}, **IMAGENET)
    with pytest.raises(ModelNotFound, match="has no preprocessor_config"):
        ViTImageProcessor.from_pretrained(tmp_path)
    ViTImageProcessor(size=16).save_pretrained(tmp_path)
    again = ViTImageProcessor.for_checkpoint(find_checkpoint(tmp_path), ViTMAEConfig())
    assert again == ViTImageProcessor(size=16)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"size": {"shortest_edge": 224}}, "size"),
        ({"size": 0}, "size"),
        ({"image_std": [0, 1, 1]}, "image_std"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"resample": 17}, "resample"),
        ({"do_center_crop": True}, "do_center_crop"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        ViTImageProcessor.from_dict(values)


def test_what_it_returns_moves_and_unpacks(photos: dict[str, Image.Image]) -> None:
    inputs = ViTImageProcessor(size=8)(photos["china"], return_tensors="pt")
    assert set({**inputs}) == {"pixel_values"}
    assert inputs.to(torch.float16).pixel_values.dtype == torch.float16
