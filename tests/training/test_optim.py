from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitmae_search.training.optim import adamw, training_progress, warmup_cosine
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining


def test_the_rate_rises_linearly_then_falls_along_a_cosine() -> None:
    assert warmup_cosine(0.0, 0.1) == 0
    assert warmup_cosine(0.05, 0.1) == pytest.approx(0.5)
    assert warmup_cosine(0.1, 0.1) == pytest.approx(1.0)
    assert warmup_cosine(0.55, 0.1) == pytest.approx(0.5)
    assert warmup_cosine(1.0, 0.1) == pytest.approx(0.0, abs=1e-12)


def test_without_a_warm_up_it_starts_at_the_peak() -> None:
    assert warmup_cosine(0.0, 0.0) == 1.0


@given(st.floats(0, 1), st.floats(0, 0.99))
def test_the_rate_stays_within_bounds(progress: float, warmup: float) -> None:
    assert 0 <= warmup_cosine(progress, warmup) <= 1


def test_progress_follows_steps_or_time_whichever_is_further() -> None:
    assert training_progress(25, 100, 900.0, None) == 0.25
    assert training_progress(25, 100, 30.0, 60.0) == 0.5
    assert training_progress(75, 100, 30.0, 60.0) == 0.75
    assert training_progress(5, 100, 61.0, 60.0) == 1.0


def test_norms_biases_and_tokens_do_not_decay(tiny_model: dict[str, object]) -> None:
    model = ViTMAEForPreTraining(ViTMAEConfig(**tiny_model))
    optimizer = adamw(model, rate=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert set(decay_of) == {id(p) for p in names.values()}
    for name, parameter in names.items():
        spared = name.endswith((".bias", "cls_token", "mask_token")) or "norm" in name
        assert decay_of[id(parameter)] == (0.0 if spared else 0.05), name
