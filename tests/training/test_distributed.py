"""Several processes that share each batch train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vitmae_search.errors import ConfigError, DeviceError
from vitmae_search.training import pretrain
from vitmae_search.training.distributed import DistributedContext, init_distributed
from vitmae_search.training.log import PretrainLog
from vitmae_search.training_runs import read_film_strip

CPU = torch.device("cpu")
OPTIONS: dict[str, Any] = {
    "epochs": 4.0,
    "batch_size": 6,
    "learning_rate": 0.05,
    "precision": "fp32",
    "log_every": 1,
    "threads": 1,
    "contrastive": 0.5,
}
LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "vitmae_search")


def curve(output: Path) -> list[tuple[float, ...]]:
    lines = PretrainLog(output / "log.jsonl").read()
    return [(x.step, x.loss, x.contrastive or 0.0, x.rate, x.gradient_norm) for x in lines]


def finished_by_two(photo_folder: Path, output: Path) -> dict[str, Any]:
    """What two processes report that go on with a run to its end."""
    command = ["pretrain", str(photo_folder), "-o", str(output), "--device", "cpu", "--json"]
    done = subprocess.run(
        [sys.executable, *LAUNCH, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,  # processes that wait for different things wait for a day
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_two_processes_continue_the_loss_curve_of_one(
    photo_folder: Path, tiny_model: dict[str, Any], tmp_path: Path
) -> None:
    """Launched by Accelerate, over gloo where there is no GPU for each."""
    pretrain(photo_folder, tmp_path / "one", model=tiny_model, options=OPTIONS)
    together = tmp_path / "together"
    left = iter((False, False, True))
    pretrain(photo_folder, together, model=tiny_model, options=OPTIONS, stop=lambda: next(left))

    assert finished_by_two(photo_folder, together)["steps"] == 8  # one of the two tells
    assert [line[0] for line in curve(together)] == list(range(1, 9))
    for ours, theirs in zip(curve(together), curve(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert curve(together) != curve(tmp_path / "one")  # rounded otherwise: two have really summed
    assert (together / "model.safetensors").exists()


def test_two_processes_keep_a_film_strip_between_the_lines_of_the_log(
    photo_folder: Path, tiny_model: dict[str, Any], tmp_path: Path
) -> None:
    """The main process writes it; the numbers of the steps before are summed over both."""
    options = {**OPTIONS, "log_every": 20, "contrastive": 0.0}
    pretrain(photo_folder, tmp_path, model=tiny_model, options=options, stop=lambda: True)
    report = finished_by_two(photo_folder, tmp_path)
    assert (report["steps"], report["interrupted"]) == (8, False)
    assert [moment.step for moment in read_film_strip(tmp_path).moments] == [0, 1, 2, 4, 8]


def test_processes_split_a_batch_without_remainder() -> None:
    parts = [DistributedContext(CPU, index, 3).local_slice(12) for index in range(3)]
    assert [row for part in parts for row in range(12)[part]] == list(range(12))
    with pytest.raises(ConfigError, match="multiple of the 3 processes"):
        DistributedContext(CPU, 0, 3).local_slice(10)


def test_collectives_of_one_process_do_nothing() -> None:
    alone = init_distributed("cpu")
    assert (alone.device, alone.is_main, alone.world_size) == (CPU, True, 1)
    rows = torch.ones(2, 3)
    assert alone.all_gather(rows) is rows
    assert alone.sum([1.5, 2.0]) == [1.5, 2.0]
    with alone.main_process_first():
        alone.barrier()
    with pytest.raises(DeviceError):
        init_distributed("cuda:99")
