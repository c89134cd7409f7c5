"""Pretraining that starts from a checkpoint's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vitmae_search.cli import main
from vitmae_search.errors import ModelNotFound, TrainingError
from vitmae_search.training import pretrain
from vitmae_search.training.log import PretrainLog
from vitmae_search.training.run_folder import STATE_FILE
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining

OPTIONS: dict[str, Any] = {"epochs": 2.0, "batch_size": 6, "precision": "fp32", "log_every": 1, "threads": 1}
STILL = {**OPTIONS, "learning_rate": 1e-30, "weight_decay": 0.0}


def losses(output: Path) -> list[float]:
    return [line.loss for line in PretrainLog(output / "log.jsonl").read()]


def test_encoder_decoder_architecture_and_normalisation_are_the_checkpoints(
    photo_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=(0.1, 0.2, 0.3)).save_pretrained(
        start_model
    )
    pretrain(photo_folder, tmp_path / "run", options={**STILL, "init": str(start_model)})
    before = ViTMAEForPreTraining.from_pretrained(start_model)
    after = ViTMAEForPreTraining.from_pretrained(tmp_path / "run")
    for name, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], value), name
    assert after.config.hidden_size == before.config.hidden_size
    assert ViTImageProcessor.from_pretrained(tmp_path / "run").image_mean == (0.1, 0.2, 0.3)


def test_the_runs_own_state_wins_over_the_checkpoint(
    photo_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    options = {**OPTIONS, "init": str(start_model), "learning_rate": 0.05}
    model = {"mask_ratio": 0.5}
    pretrain(photo_folder, tmp_path / "whole", model=model, options=options)
    parts = tmp_path / "parts"
    pretrain(photo_folder, parts, model=model, options=options, stop=lambda: True)
    for path in start_model.iterdir():
        path.unlink()  # it is not needed any more
    pretrain(photo_folder, parts, options=options)
    assert losses(parts) == losses(tmp_path / "whole")
    assert ViTMAEForPreTraining.from_pretrained(parts).config.mask_ratio == 0.5


def test_a_run_killed_before_its_first_state_starts_from_the_checkpoint_again(
    photo_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    options = {**OPTIONS, "init": str(start_model)}
    run = tmp_path / "run"
    pretrain(photo_folder, run, model={"mask_ratio": 0.5}, options=options)
    first = losses(run)
    (run / STATE_FILE).unlink()
    pretrain(photo_folder, run)
    assert losses(run) == first


def test_another_start_or_none_is_refused(photo_folder: Path, start_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(photo_folder, run, options={**OPTIONS, "init": str(start_model)}, stop=lambda: True)
    with pytest.raises(TrainingError, match="init="):
        pretrain(photo_folder, run, options={"init": "vitmae-tiny-patch8-64"})
    with pytest.raises(TrainingError, match="another model"):
        pretrain(photo_folder, run, model={"norm_pix_loss": False})
    with pytest.raises(ModelNotFound):
        pretrain(photo_folder, tmp_path / "other", options={"init": str(tmp_path / "nowhere")})


def test_the_command_takes_a_checkpoint_and_no_architecture_beside_it(
    photo_folder: Path, start_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", str(photo_folder), "-o", str(tmp_path / "run"), "--init", str(start_model)]
    fast = ["--epochs", "1", "--batch-size", "6", "--threads", "1"]
    assert main.run([*command, "--patch-size", "2"]) == 2
    assert "--patch-size cannot go with --init" in capsys.readouterr().err
    assert main.run([*command, *fast, "--mask-ratio", "0.5"]) == 0
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["model"]["mask_ratio"] == 0.5
    assert described["options"]["init"] == str(start_model)
