"""Mixup, CutMix and soft targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitmae_search.training.finetuning.mixup import (
    Mix,
    mix_pixels,
    sample_mix,
    soft_cross_entropy,
    soft_targets,
)


@given(
    seed=st.integers(0, 2**32),
    mixup=st.sampled_from([0.0, 0.2, 0.8]),
    cutmix=st.sampled_from([0.0, 1.0]),
    side=st.sampled_from([8, 16, 33]),
)
def test_pixels_are_mixed_by_the_share_of_the_targets(
    seed: int, mixup: float, cutmix: float, side: int
) -> None:
    mix = sample_mix(np.random.default_rng(seed), mixup=mixup, cutmix=cutmix, side=side)
    assert 0 <= mix.lam <= 1
    assert mixup or cutmix or mix == Mix(1.0)
    pixels = torch.arange(4.0)[:, None, None, None].expand(4, 3, side, side)
    mixed = mix_pixels(pixels, mix)
    targets = soft_targets(torch.arange(4), 5, smoothing=0.1, mix=mix)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    if mix.box is not None:
        top, left, bottom, right = mix.box
        assert (bottom - top) * (right - left) / side**2 == pytest.approx(1 - mix.lam)
        assert (mixed[0, :, top:bottom, left:right] == 3).all()
        assert float((mixed[0] == 0).double().mean()) == pytest.approx(mix.lam)
    kept = mix.lam * torch.arange(4.0) + (1 - mix.lam) * torch.arange(4.0).flip(0)
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), kept, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(targets[0, 0] - targets[0, 4], torch.tensor(0.9 * mix.lam))


def test_both_mixes_come_up_where_both_are_on() -> None:
    mixes = [sample_mix(np.random.default_rng(i), mixup=0.8, cutmix=1.0, side=32) for i in range(100)]
    assert 30 < sum(mix.box is None for mix in mixes) < 70
    assert all(sample_mix(np.random.default_rng(i), mixup=0.0, cutmix=1.0, side=32).box for i in range(20))
    assert not any(
        sample_mix(np.random.default_rng(i), mixup=0.8, cutmix=0.0, side=32).box for i in range(20)
    )


def test_soft_targets_and_their_loss_are_torchs_own() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    for smoothing in (0.0, 0.1):
        expected = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        targets = soft_targets(labels, 4, smoothing=smoothing)
        torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)
