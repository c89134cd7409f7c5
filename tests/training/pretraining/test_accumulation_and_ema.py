"""Gradient accumulation, activation checkpointing and EMA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vitmae_search.errors import ConfigError
from vitmae_search.training import PretrainReport, pretrain
from vitmae_search.training.log import PretrainLog
from vitmae_search.training.pretraining.trainer import EMA, PretrainState
from vitmae_search.training.run_folder import load_state
from vitmae_search.vitmae import ViTMAEForPreTraining
from vitmae_search.vitmae.layers import Layer

OPTIONS: dict[str, Any] = {
    "epochs": 4.0,
    "batch_size": 6,
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


def curve(output: Path) -> list[tuple[float, ...]]:
    lines = PretrainLog(output / "log.jsonl").read()
    return [(x.loss, x.gradient_norm, x.contrastive or 0.0) for x in lines]


def stop_after(steps: int) -> Callable[[], bool]:
    left = iter(range(steps - 1, -1, -1))
    return lambda: next(left) == 0


@pytest.mark.parametrize("contrastive", [0.0, 0.5])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_batch_in_rounds_is_the_batch(run: Run, tmp_path: Path, contrastive: float, replicas: int) -> None:
    run(tmp_path / "whole", contrastive=contrastive)
    run(tmp_path / "rounds", contrastive=contrastive, accumulate=3, replicas=replicas)
    assert len(curve(tmp_path / "whole")) == 4
    for ours, theirs in zip(curve(tmp_path / "rounds"), curve(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_rounds_of_unequal_length_count_by_their_photos(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "whole", batch_size=5)
    run(tmp_path / "rounds", batch_size=5, accumulate=3)
    for ours, theirs in zip(curve(tmp_path / "rounds"), curve(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("contrastive", [0.0, 0.5])
def test_an_interrupted_run_in_rounds_resumes_exactly(
    run: Run, tiny_model: dict[str, Any], tmp_path: Path, contrastive: float
) -> None:
    tiny_model["hidden_dropout_prob"] = 0.2
    options = {"accumulate": 2, "contrastive": contrastive, "ema": 0.9}
    run(tmp_path / "whole", **options)
    for steps in (3, 99):
        run(tmp_path / "parts", stop_after(steps), **options)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    for name in ("model.safetensors",):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_both_forward_passes_of_grad_cache_are_equal(
    run: Run, tiny_model: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitmae_search.training.pretraining.losses import Objective

    tiny_model["hidden_dropout_prob"] = 0.2
    seen: list[torch.Tensor] = []
    original = Objective.forward

    def recorded(self: Objective, *arguments: Any) -> Any:
        outcome = original(self, *arguments)
        assert outcome.projections is not None
        seen.append(outcome.projections.detach())
        return outcome

    monkeypatch.setattr(Objective, "forward", recorded)
    run(tmp_path, stop_after(1), accumulate=3, contrastive=1.0)
    assert len(seen) == 6
    for ahead, again in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(ahead, again)


def test_more_parts_than_photos_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cut into 8 parts"):
        run(tmp_path, accumulate=4, replicas=2)


def test_the_average_forgets_the_first_weights_and_then_decays() -> None:
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    average = EMA(model, 0.5)
    nn.init.ones_(model.weight)
    expected, seen = 0.0, []
    for t in range(12):
        average.update(model, t)
        old = min(0.5, (1 + t) / (10 + t))
        expected = old * expected + (1 - old)
        seen.append(float(average.model.weight))
        assert seen[-1] == pytest.approx(expected)
    assert seen[0] == pytest.approx(0.9)


def test_the_checkpoint_is_the_average_and_the_state_has_both(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "plain")
    run(tmp_path / "averaged", ema=0.99)
    assert curve(tmp_path / "averaged") == curve(tmp_path / "plain")
    state, plain = (
        load_state(PretrainState, tmp_path / "averaged"),
        load_state(PretrainState, tmp_path / "plain"),
    )
    assert state is not None
    assert plain is not None
    assert state.average is not None
    assert plain.average is None
    saved = ViTMAEForPreTraining.from_pretrained(tmp_path / "averaged").state_dict()
    name = "vit.encoder.layer.0.output.dense.weight"
    assert torch.equal(state.model[name], plain.model[name])
    assert torch.equal(saved[name], state.average[name])
    assert not torch.equal(saved[name], state.model[name])


@pytest.mark.parametrize("replicas", [1, 2])
def test_activations_computed_again_train_the_same_to_the_bit(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    calls = [0]
    original = Layer.forward

    def counted(self: Layer, *arguments: Any) -> Any:
        calls[0] += self.training
        return original(self, *arguments)

    monkeypatch.setattr(Layer, "forward", counted)
    run(tmp_path / "kept", replicas=replicas, contrastive=0.5)
    kept, calls[0] = calls[0], 0
    run(tmp_path / "again", replicas=replicas, contrastive=0.5, checkpoint_activations=True)
    assert calls[0] == pytest.approx(2 * kept, rel=0.2)
    assert curve(tmp_path / "again") == curve(tmp_path / "kept")
