"""The comparison with a decoder on the device, with Pillow in its place where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.gpu_decoding import Group, compare_group, nvjpeg_decoder, report, resize_on_device
from benchmarks.synthetic_photos import make_photos


def stand_in(files: Sequence[Tensor]) -> list[Tensor]:
    images = [Image.open(BytesIO(bytes(file.numpy()))).convert("RGB") for file in files]
    return [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def test_both_tables(device: str) -> None:
    if device == "cuda":
        pytest.importorskip("torchvision")
    decode = stand_in if device == "cpu" else nvjpeg_decoder(torch.device(device))
    speeds, drift = compare_group(decode, torch.device(device), 32, Group((96, 64), 3, 8), rounds=1)
    assert [float(line.split("|")[2]) > 0 for line in speeds.splitlines()[2:]] == [True] * 3
    mean, most, lowest = drift.splitlines()[-1].split("|")[2:5]
    assert float(mean) < 1
    assert int(most) < 16
    assert float(lowest) > 0.999


def test_resizing_is_nearly_pillows(tmp_path: Path) -> None:
    path = make_photos(tmp_path, (100, 70), 1)[0]
    with Image.open(path) as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    found = resize_on_device(
        stand_in([torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)]), 32
    )
    assert found.shape == (1, 32, 32, 3)
    apart = np.abs(found[0].numpy().astype(int) - expected)
    assert apart.max() <= 4, "Pillow rounds between its two passes"
    assert apart.mean() < 0.5


def test_without_torchvision_it_is_left_out_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchvision.io", None)
    (said,) = report(torch.device("cpu"), 32)
    assert said.startswith("nvJPEG is left out")
