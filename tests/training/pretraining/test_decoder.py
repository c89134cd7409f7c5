"""A new decoder for a trained encoder, which stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vitmae_search.cli import main
from vitmae_search.errors import ConfigError
from vitmae_search.photos.decode import decode
from vitmae_search.photos.read import read_photo
from vitmae_search.training import PretrainOptions, pretrain
from vitmae_search.training.log import PretrainLog
from vitmae_search.training.pretraining.trainer import PretrainState
from vitmae_search.training.run_folder import STATE_FILE, load_state
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining, reconstruct

OPTIONS: dict[str, Any] = {
    "epochs": 3.0,
    "batch_size": 6,
    "learning_rate": 0.05,
    "precision": "fp32",
    "log_every": 1,
    "threads": 1,
    "freeze_encoder": True,
    "mask_ratios": (0.4, 0.8),
}
LARGER: dict[str, Any] = {
    "decoder_num_hidden_layers": 3,
    "decoder_hidden_size": 32,
    "decoder_num_attention_heads": 1,
    "decoder_intermediate_size": 128,
    "norm_pix_loss": False,
}


def weight_bits(folder: Path) -> dict[str, torch.Tensor]:
    """The weights' bits as integers: as numbers, 0.0 and -0.0 are equal."""
    state = ViTMAEForPreTraining.from_pretrained(folder).state_dict()
    return {name: value.view(torch.int32) for name, value in state.items()}


def losses(output: Path) -> list[float]:
    return [line.loss for line in PretrainLog(output / "log.jsonl").read()]


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "epochs": 8.0}, {"replicas": 2}, {"precision": "bf16"}])
def test_a_frozen_encoder_stays_the_same_to_the_bit_and_the_decoder_learns(
    changes: dict[str, Any], photo_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    model = ViTMAEForPreTraining.from_pretrained(start_model)
    model.vit.layernorm.bias.data[0] = -0.0
    model.save_pretrained(start_model)
    run = tmp_path / "run"
    options = {**OPTIONS, **changes, "init": str(start_model)}
    pretrain(photo_folder, run, model={"norm_pix_loss": False}, options=options)
    before, after = (weight_bits(folder) for folder in (start_model, run))
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert {name for name in changed if not name.startswith("decoder.")} == set()
    assert {"decoder.decoder_pred.weight", "decoder.mask_token"} <= changed


def test_only_the_decoders_gradient_is_computed(
    photo_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    pretrain(photo_folder, tmp_path / "run", options={**OPTIONS, "init": str(start_model)})
    state = load_state(PretrainState, tmp_path / "run")
    assert state is not None
    decoder = ViTMAEForPreTraining.from_pretrained(start_model).decoder
    assert len(state.optimizer["state"]) == len(list(decoder.parameters()))


def test_a_decoder_of_another_size_is_new_and_reconstructs(
    photo_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pretrain(photo_folder, run, model=LARGER, options={**OPTIONS, "init": str(start_model)})
    model = ViTMAEForPreTraining.from_pretrained(run)
    assert len(model.decoder.decoder_layers) == 3
    assert model.config.hidden_size == 16
    assert (run / "reconstructions.png").exists()
    image = decode(read_photo(next(photo_folder.rglob("*.jpg")))).image
    made = reconstruct(model, ViTImageProcessor.from_pretrained(run), image)
    assert made.statistics == "none"
    assert made.loss is not None


def test_more_layers_come_after_the_checkpoints_and_change_nothing_at_first(
    photo_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    still = {**OPTIONS, "learning_rate": 1e-30, "weight_decay": 0.0, "init": str(start_model)}
    pretrain(photo_folder, run, model={"decoder_num_hidden_layers": 3}, options=still)
    old, grown = (ViTMAEForPreTraining.from_pretrained(folder) for folder in (start_model, run))
    assert (len(old.decoder.decoder_layers), len(grown.decoder.decoder_layers)) == (1, 3)
    pixels, noise = torch.rand(2, 3, 16, 16), torch.rand(2, 16)
    with torch.no_grad():
        torch.testing.assert_close(grown(pixels, noise).logits, old(pixels, noise).logits)
    learning = {**OPTIONS, "init": str(run), "epochs": 1.0}
    pretrain(photo_folder, tmp_path / "next", options=learning)
    learnt = ViTMAEForPreTraining.from_pretrained(tmp_path / "next").decoder.decoder_layers[2]
    assert learnt.output.dense.weight.any()


def test_an_encoder_alone_gets_a_decoder(photo_folder: Path, start_model: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    ViTMAEForPreTraining.from_pretrained(start_model).vit.save_pretrained(encoder)
    run = tmp_path / "run"
    pretrain(photo_folder, run, model=LARGER, options={**OPTIONS, "init": str(encoder)})
    assert (run / "reconstructions.png").exists()


def test_a_decoder_of_the_same_size_goes_on_from_its_weights(
    photo_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    pretrain(photo_folder, first, model=LARGER, options={**OPTIONS, "init": str(start_model)})
    still = {**OPTIONS, "learning_rate": 1e-30, "weight_decay": 0.0, "init": str(first)}
    pretrain(photo_folder, second, options=still)
    before, after = (ViTMAEForPreTraining.from_pretrained(run).state_dict() for run in (first, second))
    assert all(torch.equal(before[name], value) for name, value in after.items())


def test_the_run_resumes_exactly(photo_folder: Path, start_model: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "init": str(start_model)}
    pretrain(photo_folder, tmp_path / "whole", model=LARGER, options=options)
    parts = tmp_path / "parts"
    report = pretrain(photo_folder, parts, model=LARGER, options=options, stop=lambda: True)
    assert report.interrupted
    pretrain(photo_folder, parts, model=LARGER, options=options)
    assert losses(parts) == losses(tmp_path / "whole")
    (parts / STATE_FILE).unlink()  # killed before its first state: the same new decoder again
    pretrain(photo_folder, parts)
    assert losses(parts) == losses(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"freeze_encoder": True}, "needs an initial checkpoint"),
        ({"freeze_encoder": True, "init": "x", "contrastive": 1.0}, "nothing to train"),
        ({"mask_ratios": (0.8, 0.4)}, "least ≤ greatest"),
        ({"mask_ratios": (0.5, 1.0)}, "greatest < 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        PretrainOptions(**options)


def test_the_command(
    photo_folder: Path, start_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["pretrain", str(photo_folder), "-o", str(run), "--init", str(start_model), "--freeze-encoder"]
    sizes = ["--decoder-layers", "3", "--decoder-width", "32", "--no-norm-pix-loss"]
    fast = ["--epochs", "1", "--batch-size", "6", "--threads", "1", "--mask-ratios", "0.4", "0.8"]
    assert main.run([*command, *sizes, *fast]) == 0, capsys.readouterr().err
    described = json.loads((run / "run.json").read_text())
    assert {name: described["model"][name] for name in LARGER} == LARGER
    assert described["options"]["mask_ratios"] == [0.4, 0.8]
    assert main.run([*command, *sizes, *fast]) == 0  # finished: the same command is no other training
    assert main.run([*command, "--decoder-width", "40"]) == 1
    assert "multiple of 32" in capsys.readouterr().err
