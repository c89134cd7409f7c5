"""Where a step's photos come from makes no difference to the training."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training import PretrainReport, pretrain
from vitmae_search.training.data.packed_photos import pack
from vitmae_search.training.data.photo_files import PhotoFilesDataset
from vitmae_search.training.log import PretrainLog
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.photo_source import FilesSource, open_photo_source

OPTIONS: dict[str, Any] = {
    "epochs": 4.0,
    "batch_size": 5,
    "learning_rate": 0.05,
    "precision": "fp32",
    "log_every": 2,
    "threads": 1,
}
Run = Callable[..., PretrainReport]


@pytest.fixture
def run(photo_folder: Path, tiny_model: dict[str, Any]) -> Run:
    def started(output: Path, stop: Callable[[], bool] = lambda: False, **options: Any) -> PretrainReport:
        return pretrain(photo_folder, output, model=tiny_model, options={**OPTIONS, **options}, stop=stop)

    return started


def curve(output: Path) -> list[tuple[float, float]]:
    return [(line.loss, line.gradient_norm) for line in PretrainLog(output / "log.jsonl").read()]


def rows_of_step(step: int) -> np.ndarray:
    return np.array([(5 * step + i * i) % 12 for i in range(5)])


@pytest.mark.parametrize("cache", ["auto", "host", "device", "none"])
def test_every_source_gives_the_same_photos(photo_folder: Path, tmp_path: Path, cache: str) -> None:
    packed = pack(photo_folder, tmp_path, side=16)
    photos = PhotoFilesDataset.of_folder(photo_folder, 16) if cache == "none" else packed
    source = open_photo_source(
        photos, rows_of_step, PretrainOptions(cache=cache, workers=0), torch.device("cpu")
    )
    for step in (0, 1, 2, 7, 8, 3):
        seen = source.at(step)
        assert seen.dtype == torch.uint8
        np.testing.assert_array_equal(seen.numpy(), packed.images[rows_of_step(step)])
    source.close()


def test_workers_decode_ahead_in_order_and_stop_on_close(photo_folder: Path, tmp_path: Path) -> None:
    packed = pack(photo_folder, tmp_path, side=16)
    source = FilesSource(PhotoFilesDataset.of_folder(photo_folder, 16), rows_of_step, workers=2, pinned=False)
    with ThreadPoolExecutor(1) as pool:  # a run need not be in the main thread
        seen = list(pool.map(source.at, range(6)))
    for step, images in enumerate(seen):
        np.testing.assert_array_equal(images.numpy(), packed.images[rows_of_step(step)])
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    source.close()
    assert not any(worker.is_alive() for worker in workers)


def test_the_loss_curve_equals_that_of_packed_photos_and_resumes_exactly(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "packed")
    run(tmp_path / "loose", cache="none", workers=0)
    left = iter((1, 1, 0, 1, 1, 0))
    for _ in range(3):
        report = run(tmp_path / "parts", lambda: next(left, 1) == 0, cache="none", workers=0)
    assert not report.interrupted
    assert not (tmp_path / "loose" / "photos").exists()
    assert curve(tmp_path / "loose") == curve(tmp_path / "packed")
    assert curve(tmp_path / "parts") == curve(tmp_path / "packed")
    run(tmp_path / "device", cache="device")
    assert curve(tmp_path / "device") == curve(tmp_path / "packed")


def test_a_photo_that_cannot_be_decoded_is_listed_and_another_takes_its_place(
    photo_folder: Path, tiny_model: dict[str, Any], tmp_path: Path
) -> None:
    damaged = shutil.copytree(photo_folder, tmp_path / "photos")
    files = sorted(damaged.rglob("*.jpg"))
    for i in (3, 4, 11):
        files[i].write_bytes(b"not a photo")
    photos = PhotoFilesDataset.of_folder(damaged, 16)
    for row, instead in ((3, 5), (4, 5), (11, 0), (6, 6)):
        np.testing.assert_array_equal(photos.image(row), photos.image(instead))
    options = {**OPTIONS, "cache": "none", "workers": 0}
    report = pretrain(damaged, tmp_path / "run", model=tiny_model, options=options)
    assert (report.photos, report.failed) == (12, 3)
    for path in files:
        path.write_bytes(b"not a photo")
    with pytest.raises(TrainingError, match="no photo could be read"):
        pretrain(damaged, tmp_path / "other", model=tiny_model, options=options)


def test_another_cache_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cache"):
        run(tmp_path, cache="disk")


def test_ctrl_c_reaches_the_run_and_not_its_workers(
    photo_folder: Path, tmp_path: Path, tiny_model: dict[str, Any]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(tiny_model))
    output = tmp_path / "run"
    command = [sys.executable, "-m", "vitmae_search", "pretrain", str(photo_folder), "-o", str(output)]
    options = ["--model", str(config), "--batch-size", "6", "--epochs", "1000000", "--threads", "1"]
    process = subprocess.Popen(
        [*command, *options, "--cache", "none", "--workers", "1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("training:"):
                break
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers, too
        err = process.stderr.read()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert (output / "model.safetensors").exists()
