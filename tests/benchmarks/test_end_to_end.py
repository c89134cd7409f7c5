"""The benchmark from files to a library, with a very small model and a few photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import end_to_end
from benchmarks.end_to_end import HEADER, EndToEndCase, Settings, measure
from benchmarks.synthetic_photos import make_photos

SIZE = (96, 64)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def test_a_row_has_what_its_header_says(tmp_path: Path, device: str) -> None:
    end_to_end.silence_warnings()
    photos = [path.read_bytes() for path in make_photos(tmp_path / "made", SIZE, 3)]
    setting = Settings(torch.device(device), "fp32", 1, 2)
    row = measure(EndToEndCase("debug", SIZE, 6, 2), photos, tmp_path / "case", setting)
    cells = dict(zip(HEADER, row, strict=True))
    assert (cells["model"], cells["photos"]) == ("debug", "96 × 64")
    numbers = [cells[name] for name in HEADER if name not in ("model", "photos", "share", "device memory")]
    assert all(float(number) > 0 for number in numbers)
    assert (cells["device memory"] == "-") == (device == "cpu")


@pytest.mark.parametrize(("device", "share"), [("cpu", "75 %"), ("cuda", "50 %")])
def test_the_share_is_of_one_after_the_other_on_a_cpu_and_of_the_slower_on_a_gpu(
    device: str, share: str
) -> None:
    seconds = {"reference": 10.0, "batches": 10.0, "ours": 4.0, "decoding": 2.0, "encoding": 1.0}
    taken = {name: np.array([value]) for name, value in seconds.items()}
    setting = Settings(torch.device(device), "auto", 1, 2)
    row = end_to_end._cells(EndToEndCase("base", SIZE, 8, 8), taken, setting, "-")
    assert dict(zip(HEADER, row, strict=True))["share"] == share
