"""The app reads what trainings write into their folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitmae_search.training import finetune, pretrain
from vitmae_search.training_runs import list_training_runs, read_training_run


def test_a_pretraining_run_is_read_correctly(
    tmp_path: Path, photo_folder: Path, tiny_model: dict[str, object]
) -> None:
    output = tmp_path / "pretrained"
    options = {"epochs": 4.0, "batch_size": 4, "precision": "fp32", "log_every": 1}
    report = pretrain(photo_folder, output, model=tiny_model, options=options, stop=lambda: True)
    run = read_training_run(output)
    assert (run.state, run.kind, run.photos_folder) == ("interrupted", "pretrain", str(photo_folder))
    assert run.fraction == pytest.approx(report.epochs / 4, abs=1e-4)
    assert run.checkpoint == output

    report = pretrain(photo_folder, output)
    run = read_training_run(output)
    assert (run.state, run.fraction) == ("finished", 1.0)
    assert run.lines[-1]["step"] == report.steps
    assert {"epoch", "loss", "rate", "seconds", "images_per_second"} <= set(run.lines[-1])
    assert list_training_runs() == [output]


def test_a_fine_tuning_run_is_read_correctly(
    tmp_path: Path, coloured_folder: Path, start_model: Path
) -> None:
    output = tmp_path / "tuned"
    report = finetune(coloured_folder, output, model=str(start_model), options={"epochs": 2.0})
    run = read_training_run(output)
    assert (run.state, run.kind, run.checkpoint) == ("finished", "finetune", output)
    assert run.lines[-1]["accuracy"] == report.last_accuracy
    assert {"epoch", "loss", "val_loss", "rate", "seconds"} <= set(run.lines[-1])
    assert run.options["mode"] == "probe"
