"""The contrastive loss: its value, what it learns, and that runs with it resume exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vitmae_search.cli import main
from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training import PretrainReport, pretrain
from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.log import PretrainLog
from vitmae_search.training.pretraining.losses import Objective, info_nce, info_nce_gradients
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.trainer import PretrainState
from vitmae_search.training.run_folder import STATE_FILE, load_state
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining

OPTIONS: dict[str, Any] = {
    "epochs": 4.0,
    "batch_size": 5,
    "learning_rate": 0.05,
    "precision": "fp32",
    "log_every": 2,
    "contrastive": 0.5,
    "attention": "eager",
    "threads": 1,
}
STEPS = 10  # ⌈4 epochs · 12 photos / 5⌉
Run = Callable[..., PretrainReport]


def stop_after(steps: int) -> Callable[[], bool]:
    left = iter(range(steps - 1, -1, -1))
    return lambda: next(left) == 0


@pytest.fixture
def run(photo_folder: Path, tiny_model: dict[str, Any]) -> Run:
    def started(output: Path, stop: Callable[[], bool] = lambda: False, **options: Any) -> PretrainReport:
        return pretrain(photo_folder, output, model=tiny_model, options={**OPTIONS, **options}, stop=stop)

    return started


def curve(output: Path) -> list[tuple[float | None, ...]]:
    lines = PretrainLog(output / "log.jsonl").read()
    return [(x.step, x.loss, x.reconstruction, x.contrastive, x.gradient_norm) for x in lines]


def test_info_nce_is_the_sum_of_the_simclr_paper() -> None:
    torch.manual_seed(0)
    projections = torch.randn(2, 3, 4)
    views = [functional.normalize(v, dim=0) for v in projections.flatten(0, 1)]  # photo i is views i, i + 3
    losses = []
    for i, view in enumerate(views):
        other = (i + 3) % 6
        among = sum(torch.exp(view @ views[k] / 0.2) for k in range(6) if k != i)
        losses.append(-torch.log(torch.exp(view @ views[other] / 0.2) / among))
    torch.testing.assert_close(info_nce(projections, 0.2), torch.stack(losses).mean())


def test_the_gradient_for_the_parts_is_that_of_the_whole() -> None:
    torch.manual_seed(1)
    whole = torch.randn(2, 5, 8, requires_grad=True)
    loss = info_nce(whole, 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    value, gradients = info_nce_gradients(
        [whole[:, :2], whole[:, 2:]], 0.1, DistributedContext(torch.device("cpu"))
    )
    assert value == pytest.approx(loss.item())
    torch.testing.assert_close(torch.cat(gradients, dim=1), whole.grad)


def test_two_masked_views_of_each_photo_and_the_error_of_the_first(tiny_model: dict[str, Any]) -> None:
    torch.manual_seed(2)
    mae = ViTMAEForPreTraining(ViTMAEConfig(**tiny_model)).eval()
    pixels, noise = torch.randn(6, 3, 16, 16), torch.rand(6, 16)
    objective = Objective(mae, PretrainOptions(contrastive=1.0))
    outcome = objective(pixels, noise, 2)
    first = mae(pixels[:3], noise=noise[:3]).loss
    torch.testing.assert_close(outcome.reconstruction, first)
    assert outcome.projections.shape == (2, 3, 128)

    kept = noise.argsort(dim=1)[:, :4]  # a quarter of 16 patches is seen
    hidden = torch.ones(6, 16, dtype=torch.bool).scatter(1, kept, False)
    pixel_hidden = hidden.view(6, 1, 4, 1, 4, 1).expand(6, 3, 4, 4, 4, 4).reshape(6, 3, 16, 16)
    other = torch.where(pixel_hidden, torch.randn_like(pixels), pixels)
    same: Tensor = objective(other, noise, 2).projections
    torch.testing.assert_close(same, outcome.projections)


@pytest.mark.parametrize(
    "options", [{}, {"precision": "bf16"}, {"replicas": 2}, {"reconstruction": 0.0}], ids=str
)
def test_an_interrupted_run_resumes_exactly(run: Run, tmp_path: Path, options: dict[str, Any]) -> None:
    run(tmp_path / "whole", **options)
    for steps in (3, 4, 99):
        run(tmp_path / "parts", stop_after(steps), **options)
    whole = curve(tmp_path / "whole")
    assert len(whole) == STEPS // 2
    assert curve(tmp_path / "parts") == whole
    first, second = (
        load_state(PretrainState, tmp_path / "whole"),
        load_state(PretrainState, tmp_path / "parts"),
    )
    assert first is not None
    assert second is not None
    assert first.projector is not None
    assert second.projector is not None
    for name, value in [*first.model.items(), *first.projector.items()]:
        assert torch.equal(value, {**second.model, **second.projector}[name]), name


def test_threads_that_share_a_batch_train_as_one(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "one")
    run(tmp_path / "two", replicas=2)
    for ours, theirs in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_the_loss_is_the_weighted_sum_and_every_term_is_drawn_and_logged(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], photo_folder: Path
) -> None:
    run(tmp_path, contrastive=0.25, reconstruction=2.0)
    for line in PretrainLog(tmp_path / "log.jsonl").read():
        assert line.reconstruction is not None
        assert line.contrastive is not None
        assert line.loss == pytest.approx(2.0 * line.reconstruction + 0.25 * line.contrastive)
    assert set(PretrainLog(tmp_path / "log.jsonl").curves()) == {"reconstruction", "contrastive"}
    with Image.open(tmp_path / "loss.png") as picture:
        pixels = np.asarray(picture)
    halves = np.split(pixels, 2)  # each term with axes of its own: their scales differ
    for half in halves:
        assert (half == (31, 98, 173)).all(axis=2).any(), "no curve"
    assert not np.array_equal(*halves)
    command = ["pretrain", str(photo_folder), "-o", str(tmp_path), "--contrastive", "0.25"]
    assert main.run(command) == 0
    assert main.run([*command[:-1], "0.5"]) == 1
    assert "contrastive=0.25" in capsys.readouterr().err


def test_without_it_the_log_is_as_it_was_and_old_logs_are_read(run: Run, tmp_path: Path) -> None:
    run(tmp_path, contrastive=0.0)
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert set(lines[0]) == {
        *("step", "epoch", "loss", "rate", "gradient_norm", "seconds", "images_per_second")
    }
    assert PretrainLog(tmp_path / "log.jsonl").read()[0].contrastive is None
    assert set(PretrainLog(tmp_path / "log.jsonl").curves()) == {""}


def test_the_checkpoint_is_a_plain_one_and_the_projector_is_left_out(run: Run, tmp_path: Path) -> None:
    run(tmp_path)
    model = ViTMAEForPreTraining.from_pretrained(tmp_path)
    assert model.loading_info is not None
    assert not model.loading_info.new
    assert not model.loading_info.unused
    state = load_state(PretrainState, tmp_path)
    assert state is not None
    assert set(state.model) == set(model.state_dict())
    assert state.projector


def test_it_learns_which_views_are_of_one_photo(photo_folder: Path, tmp_path: Path) -> None:
    model = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model |= {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    model |= {"decoder_intermediate_size": 32, "image_size": 16, "patch_size": 4}
    options = {**OPTIONS, "epochs": 100.0, "batch_size": 12, "contrastive": 1.0, "reconstruction": 0.0}
    pretrain(photo_folder, tmp_path, model={**model, "mask_ratio": 0.5}, options=options)
    values = [line.contrastive or 0.0 for line in PretrainLog(tmp_path / "log.jsonl").read()]
    chance = np.log(23)
    assert abs(values[0] - chance) < 0.5
    assert np.mean(values[-10:]) < 0.85 * chance


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(run: Run, tmp_path: Path) -> None:
    run(tmp_path, stop_after(4))
    state = load_state(PretrainState, tmp_path)
    assert state is not None
    assert state.projector is not None
    state.projector["0.bias"][0] = float("nan")
    torch.save({name: getattr(state, name) for name in state.__slots__}, tmp_path / STATE_FILE)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=r"the loss is nan .* at step 4"):
        run(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("contrastive", {"contrastive": -1.0}),
        ("temperature", {"temperature": 0.0}),
        ("reconstruction", {"contrastive": 0.0, "reconstruction": 0.0}),
    ],
)
def test_weights_out_of_range_are_refused(
    run: Run, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=name):
        run(tmp_path, **options)


def test_nothing_to_reconstruct_is_refused_unless_its_weight_is_zero(
    photo_folder: Path, tiny_model: dict[str, Any], tmp_path: Path
) -> None:
    whole = {**tiny_model, "mask_ratio": 0.0}
    with pytest.raises(ConfigError, match="mask_ratio"):
        pretrain(photo_folder, tmp_path / "a", model=whole, options=OPTIONS)
    options = {**OPTIONS, "reconstruction": 0.0}
    assert pretrain(photo_folder, tmp_path / "b", model=whole, options=options).steps == STEPS
