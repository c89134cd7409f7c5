"""The rest of the reference's processor: paths, JSON, single steps, devices, and refusals by name."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import ViTImageProcessorPil
from transformers.image_utils import SizeDict

from vitmae_search.errors import ConfigError, DamagedPhoto, UnreadablePhoto, UnsupportedPhoto
from vitmae_search.vitmae import AutoImageProcessor, ViTImageProcessor

FIELDS: dict[str, Any] = {"size": {"height": 24, "width": 40}, "image_mean": [0.1, 0.2, 0.3], "resample": 3}


@pytest.fixture
def picture(photos: dict[str, Image.Image]) -> Image.Image:
    return photos["china"].resize((60, 50))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("something went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_path_is_a_picture(suffix: str, picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    picture.save(path)
    ours = ViTImageProcessor()
    expected = ours(Image.open(path), return_tensors="np").pixel_values
    for given in (path, str(path), [str(path)]):
        assert np.array_equal(ours(given, return_tensors="np").pixel_values, expected)
    if suffix == "png":
        theirs = ViTImageProcessorPil()(str(path), return_tensors="np")["pixel_values"]
        assert np.array_equal(expected, theirs)
    assert ours([path, picture], return_tensors="pt").pixel_values.shape[0] == 2


def test_a_path_s_picture_is_upright_as_in_the_reference(picture: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    mine = ViTImageProcessor()(tmp_path / "turned.png", return_tensors="np").pixel_values
    theirs = ViTImageProcessorPil()(str(tmp_path / "turned.png"), return_tensors="np")["pixel_values"]
    assert np.array_equal(mine, theirs)
    turned = picture.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(mine, ViTImageProcessor()(turned, return_tensors="np").pixel_values)


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/cat.png",
        "http://127.0.0.1/cat.png",
        "FTP://a/b",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)
def test_a_web_address_is_refused_and_nothing_is_fetched(address: str, no_network: None) -> None:
    with pytest.raises(
        ValueError, match="is a web address, and nothing is downloaded here; save the picture"
    ):
        ViTImageProcessor()(address)


def test_files_that_are_no_pictures_are_refused_by_name(picture: Image.Image, tmp_path: Path) -> None:
    processor = ViTImageProcessor()
    with pytest.raises(UnreadablePhoto, match=r"gone\.png: No such file"):
        processor(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UnsupportedPhoto, match=r"text\.png: not a picture in a format"):
        processor(str(tmp_path / "text.png"))
    picture.save(tmp_path / "half.png")
    whole = (tmp_path / "half.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedPhoto, match=r"half\.png: .*truncated"):
        processor(tmp_path / "half.png")


def test_the_single_steps_are_the_reference_s(picture: Image.Image) -> None:
    ours, theirs = ViTImageProcessor(), ViTImageProcessorPil()
    planes = np.moveaxis(np.asarray(picture), -1, 0)
    for size, resample in (({"height": 31, "width": 17}, 3), ({"height": 70, "width": 90}, 2)):
        expected = theirs.resize(planes, SizeDict(**size), resample=resample)
        for image in (planes, picture, torch.from_numpy(planes.copy())):
            found = ours.resize(image, size, resample)
            assert isinstance(found, torch.Tensor if isinstance(image, torch.Tensor) else np.ndarray)
            assert np.asarray(found).dtype == np.uint8
            assert np.array_equal(np.asarray(found), expected)
        last = ours.resize(planes, size, resample, data_format="channels_last")
        assert np.array_equal(np.moveaxis(last, -1, 0), expected)
    rescaled = theirs.rescale(planes, 1 / 255)
    assert np.array_equal(ours.rescale(planes), rescaled)
    assert np.array_equal(ours.rescale(torch.from_numpy(planes.copy()), 1 / 255).numpy(), rescaled)
    for mean, std in ((0.5, 0.25), ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])):
        expected = theirs.normalize(rescaled, mean, std)
        assert np.array_equal(ours.normalize(rescaled, mean, std), expected)
        moved = ours.normalize(np.moveaxis(rescaled, 0, -1), mean, std)
        assert np.array_equal(np.moveaxis(moved, -1, 0), expected)
        batch = ours.normalize(np.stack([rescaled, rescaled]), mean, std)
        assert np.array_equal(batch[1], expected)
    assert np.array_equal(ours.normalize(rescaled), theirs.normalize(rescaled, 0.5, 0.5))
    with pytest.raises(ValueError, match="mean must have 3 numbers, one for each channel, not 2"):
        ours.normalize(rescaled, [0.1, 0.2])


def test_the_steps_make_the_whole(picture: Image.Image) -> None:
    ours = ViTImageProcessor(**FIELDS)
    stepwise = ours.normalize(ours.rescale(ours.resize(picture)))
    assert np.array_equal(stepwise, ours(picture, return_tensors="np").pixel_values[0])
    unit = np.asarray(picture, dtype=np.float32) / np.float32(255)
    assert np.allclose(ours.resize(unit), ours.resize(picture) / 255, atol=1e-7)


def test_json_goes_both_ways(tmp_path: Path) -> None:
    ours = ViTImageProcessor(**FIELDS)
    files = ours.save_pretrained(tmp_path / "new/folder")
    theirs = ViTImageProcessorPil.from_pretrained(tmp_path / "new/folder")
    assert files == [str(tmp_path / "new/folder/preprocessor_config.json")]
    assert [str(path) for path in theirs.save_pretrained(tmp_path / "new/folder")] == files
    assert json.loads(ours.to_json_string()) == ours.to_dict()
    assert ours.to_json_string().endswith("}\n")
    ours.to_json_file(tmp_path / "mine.json")
    assert (tmp_path / "mine.json").read_text() == ours.to_json_string()
    for again in (
        ViTImageProcessor.from_json_file(tmp_path / "mine.json"),
        ViTImageProcessor.from_pretrained(tmp_path / "mine.json"),
        ViTImageProcessor.from_dict(ours.to_dict()),
        ViTImageProcessor.from_json_file(files[0]),
    ):
        assert again == ours
    same = ViTImageProcessorPil.from_json_file(tmp_path / "mine.json").to_dict()
    assert {name: same[name] for name in ("size", "resample", "image_processor_type")} == {
        name: ours.to_dict()[name] for name in ("size", "resample", "image_processor_type")
    }
    with pytest.raises(ConfigError, match="push_to_hub=True: is not supported: nothing is uploaded"):
        ours.save_pretrained(tmp_path, push_to_hub=True)


def test_a_dict_with_overrides() -> None:
    values = ViTImageProcessor(**FIELDS).to_dict()
    changed = ViTImageProcessor.from_dict(values, do_convert_rgb=False, do_resize=False, size=None)
    assert (changed.do_convert_rgb, changed.do_resize) == (False, False)
    assert changed.height_width == (24, 40)
    assert ViTImageProcessorPil.from_dict(values, do_convert_rgb=False).do_convert_rgb is False
    with pytest.raises(ConfigError, match="do_convert=True: is not a field of ViTImageProcessor"):
        ViTImageProcessor.from_dict(values, do_convert=True)


@pytest.mark.parametrize("kind", [ViTImageProcessor, AutoImageProcessor])
def test_every_keyword_that_chooses_files(kind: Any, tmp_path: Path) -> None:
    ViTImageProcessor(**FIELDS).save_pretrained(tmp_path / "inner")
    loaded = kind.from_pretrained(
        pretrained_model_name_or_path=tmp_path,
        cache_dir=tmp_path / "cache",
        token=False,
        force_download=False,
        local_files_only=True,
        revision="main",
        subfolder="inner",
        do_normalize=False,
        backend="pil",
        use_fast=False,
        disable_grouping=None,
    )
    assert loaded == ViTImageProcessor(**FIELDS, do_normalize=False)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("proxies", {"https": "proxy:80"}, "set HTTPS_PROXY in the environment"),
        ("return_unused_kwargs", True, "an argument that is no field is refused"),
        ("image_processor_filename", "other.json", "give the path of the file itself"),
        ("trust_remote_code", True, "code from a model's repository is never run"),
        ("use_fast", True, "by Pillow alone"),
        ("backend", "torchvision", "by Pillow alone"),
        ("do_center_crop", True, "sees the whole picture"),
        ("crop_size", 224, "sees the whole picture"),
        ("do_pad", True, "sees the whole picture"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(
    name: str, value: Any, reason: str, picture: Image.Image, tmp_path: Path
) -> None:
    ViTImageProcessor().save_pretrained(tmp_path)
    arguments: dict[str, Any] = {name: value}
    for load in (ViTImageProcessor.from_pretrained, AutoImageProcessor.from_pretrained):
        with pytest.raises(ConfigError, match=f"{name}=.*: is not supported: .*{reason}"):
            load(tmp_path, **arguments)
    with pytest.raises(ConfigError, match=f"{name}=.*: is not supported"):
        ViTImageProcessor()(picture, **arguments)
    assert ViTImageProcessor()(picture, **{name: None}).keys() == {"pixel_values"}


@pytest.mark.parametrize(
    "fields", [{"size": (24, 40)}, {"size": [24, 40]}, {"size": {"height": 24, "width": 40}}]
)
def test_a_size_is_read_as_the_reference_reads_it(fields: Any) -> None:
    mine, theirs = ViTImageProcessor(**fields), ViTImageProcessorPil(**fields)
    assert (mine.size.height, mine.size.width) == (theirs.size.height, theirs.size.width) == (24, 40)
    assert mine.size["height"] == theirs.size["height"]
    assert mine.model_input_names == theirs.model_input_names


def test_the_result_is_put_on_a_device(picture: Image.Image, device: str) -> None:
    processor = ViTImageProcessor(size=32)
    on_cpu = processor(picture, return_tensors="pt", device="cpu").pixel_values
    there = processor(picture, return_tensors="pt", device=device).pixel_values
    assert there.device.type == device
    assert torch.equal(there.cpu(), on_cpu)
    assert isinstance(processor(picture, return_tensors="np", device="cpu").pixel_values, np.ndarray)
    assert isinstance(processor(picture, device=torch.device("cpu")).pixel_values, list)
    for kind in (None, "np"):
        with pytest.raises(ConfigError, match="device='meta': needs return_tensors"):
            processor(picture, return_tensors=kind, device="meta")
    with pytest.raises(ConfigError, match="data_format='channels'"):
        processor(picture, data_format="channels")


def test_four_channels_say_what_they_are_taken_for(
    picture: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    clear = np.asarray(picture.convert("RGBA")).copy()
    clear[..., 3] = np.linspace(0, 255, clear.shape[1], dtype=np.uint8)
    processor = ViTImageProcessor()
    found = processor(clear, return_tensors="np").pixel_values
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "taken for RGBA, transparency laid on white; array[..., :3] would drop it" in record.getMessage()
    expected = processor(Image.fromarray(clear), return_tensors="np").pixel_values
    assert np.array_equal(found, expected)
    assert np.array_equal(processor(np.moveaxis(clear, -1, 0), return_tensors="np").pixel_values, expected)
    message = r"a 4-channel array is not RGB, and do_convert_rgb is off; array\[\.\.\., :3\] drops the fourth"
    with pytest.raises(ValueError, match=message):
        processor(clear, do_convert_rgb=False)
    with pytest.raises(ValueError, match="a 1-channel array is not RGB"):
        processor(clear[..., 0], do_convert_rgb=False)
    assert processor(clear[..., :3], do_convert_rgb=False).pixel_values[0].shape == (3, 224, 224)


def test_half_precision_tensors_are_pictures(picture: Image.Image) -> None:
    unit = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255
    expected = ViTImageProcessor()(unit, return_tensors="pt").pixel_values
    for dtype in (torch.bfloat16, torch.float16):
        found = ViTImageProcessor()(unit.to(dtype), return_tensors="pt").pixel_values
        assert float((found - expected).abs().max()) < 0.05


def test_the_reference_refuses_what_is_said_of_it(picture: Image.Image) -> None:
    """What docs/reference-parity.md says of the reference: it has no such check, or another."""
    clear = picture.convert("RGBA")
    for image in (clear, np.asarray(clear)):
        with pytest.raises(ValueError, match="mean must have 4 elements"):
            transformers.ViTImageProcessorPil()(image)
