"""Files that are no weights: the error says in one sentence what they are, and nothing opens them."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from vitmae_search.errors import CheckpointError
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining

Models = Callable[..., ViTMAEForPreTraining]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
WEB_PAGES = (
    b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>",
    b"\xef\xbb\xbf\n <html lang='en'>",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
)
TEXTS = (
    b"just some words\n",
    "Gewichte für später".encode(),
    ("x" * 511 + "ü and more").encode(),  # a character cut in two where the first bytes end
    "words".encode("utf-16"),
    b'{"a": 1}',
    b"(dp0\nS'a'\np1\nI1\ns.",  # a pickle of protocol 0
)
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 446\n"


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    """No test here may warn. Warnings are recorded: one that is raised would be caught as an error."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    assert [str(warning.message) for warning in seen] == []


def refusal(path: Path, **options: Any) -> str:
    """The message after the path that it starts with; checked to be one sentence on one line."""
    with pytest.raises(CheckpointError) as caught:
        ViTMAEForPreTraining.from_pretrained(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    rest = message.removeprefix(str(path))
    assert "\n" not in rest
    assert re.findall(r"\. |\.$", rest) in ([], ["."])
    return rest


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        *((page, "web page") for page in WEB_PAGES),
        *((text, "text file") for text in TEXTS),
        (LFS_POINTER, "git-lfs pointer"),
    ],
)
def test_text_is_named_for_what_it_is(content: bytes, kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    message = refusal(path)
    assert f" is a {kind}, " in message
    assert "run code" not in message


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_plain_pickle_is_not_opened(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "raw.bin"
    path.write_bytes(pickle.dumps({"a": 1}, protocol))
    assert f"is a Python pickle (protocol {protocol}), and opening it could run code" in refusal(path)
    path.write_bytes(bytes([0x80, protocol]) + b".")  # pops from an empty stack
    assert "is a Python pickle" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_another_protocol_of_torchs_own(protocol: int, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "mae.pth"
    content = {"model": {"a": torch.zeros(3)}}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert f"protocol {protocol}" in refusal(path)


def test_torchs_older_format_is_read(random_model: Models, tmp_path: Path) -> None:
    model, path = random_model(), tmp_path / "mae.pth"
    torch.save({"model": model.state_dict()}, path, _use_new_zipfile_serialization=False)
    loaded = ViTMAEForPreTraining.from_pretrained(path, config=model.config)
    assert all(loaded.state_dict()[name].equal(value) for name, value in model.state_dict().items())
    whole = path.read_bytes()
    for size in (5, 14, 15, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "is truncated or damaged" in refusal(path, config=model.config)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 100, 5000, -1])
def test_a_truncated_torch_file_says_that_alone(size: int, random_model: Models, tmp_path: Path) -> None:
    path = tmp_path / "mae.pth"
    torch.save({"model": random_model().state_dict()}, path)
    path.write_bytes(path.read_bytes()[:size])
    assert refusal(path) == " is truncated or damaged."


def test_damage_anywhere_is_refused(random_model: Models, tmp_path: Path) -> None:
    """Bytes of the pickle, changed at random, make torch raise errors of many kinds."""
    path = tmp_path / "mae.pth"
    torch.save({"model": random_model().state_dict()}, path, _use_new_zipfile_serialization=False)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    draw = np.random.default_rng(3)
    for _ in range(60):
        damaged = whole.copy()
        damaged[draw.integers(200, 3000, 20)] = draw.integers(0, 128, 20)  # 128 would start another protocol
        path.write_bytes(damaged.tobytes())
        with pytest.raises(CheckpointError, match=r"mae\.pth"):
            ViTMAEForPreTraining.from_pretrained(path)


def test_other_binary_files(real_photos: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(real_photos["china"].read_bytes())
    assert "is not a torch file" in refusal(path)
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    assert "is a zip archive that torch.save did not write" in refusal(path)


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; its files are still about
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2), check_trace=False).save(path)
    assert "is a TorchScript program" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_suffix_of_the_other_format(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=zipped)
    assert "is a torch file, not a safetensors file; name it .pth" in refusal(path)
    path = tmp_path / "model.pth"
    safetensors.torch.save_file({"a": torch.zeros(3)}, path)
    assert "is a safetensors file; name it .safetensors" in refusal(path)


def test_names_that_are_no_text_are_skipped(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(3)}, tmp_path / "mae.pth")
    assert "holds no tensors" in refusal(tmp_path / "mae.pth")


@pytest.mark.parametrize("decoder_width", [24, 512])
def test_the_error_holds_the_config_to_write(
    decoder_width: int, random_model: Models, tmp_path: Path
) -> None:
    """The JSON in the message, with the numbers of heads filled in, is the configuration."""
    heads = {24: 3, 512: 16}[decoder_width]
    model = random_model(decoder_hidden_size=decoder_width, decoder_num_attention_heads=heads)
    path = tmp_path / "mae.pth"
    torch.save({"model": model.state_dict()}, path)
    message = refusal(path)
    assert "no config.json beside it" in message
    assert "put one there" in message
    assert "config=" not in message
    values = json.loads(re.findall(r"\{.*\}", message)[0])
    unknown = {name for name, value in values.items() if value == "?"}
    both = {"num_attention_heads", "decoder_num_attention_heads"}
    assert unknown == (both if decoder_width == 24 else {"num_attention_heads"})
    values |= {name: getattr(model.config, name) for name in unknown}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert ViTMAEForPreTraining.from_pretrained(path).config == ViTMAEConfig.from_dict(model.config.to_dict())


@pytest.mark.parametrize(
    "name",
    [
        "vit.embeddings.position_embeddings",
        "vit.encoder.layer.0.intermediate.dense.weight",
        "decoder.decoder_layers.0.intermediate.dense.weight",
    ],
)
def test_a_part_that_is_missing_is_named(name: str, random_model: Models, tmp_path: Path) -> None:
    state = random_model().state_dict()
    del state[name]
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    assert f"lacks {name}" in refusal(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "vit.embeddings.patch_embeddings.projection.weight",
        "vit.embeddings.position_embeddings",
        "decoder.decoder_embed.weight",
    ],
)
@pytest.mark.parametrize("shape", [(), (5,), (0, 0)])
def test_tensors_of_other_ranks(
    name: str, shape: tuple[int, ...], random_model: Models, tmp_path: Path
) -> None:
    state = random_model().state_dict() | {name: torch.zeros(shape)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    refusal(tmp_path / "model.safetensors")
