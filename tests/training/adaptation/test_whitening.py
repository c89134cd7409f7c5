"""Whitening: the covariance it gives, its shrinkage, and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError
from vitmae_search.training.adaptation.whitening import fit_whitening

Features = NDArray[np.float32]


def whitened(features: Features, **options: object) -> NDArray[np.float64]:
    weight, bias = fit_whitening(features, **options)  # type: ignore[arg-type]
    return features.astype(np.float64) @ weight.T + bias


def test_without_shrinkage_the_covariance_becomes_the_identity(features: Features) -> None:
    out = whitened(features, shrinkage=0.0, dimension=30)  # raw pixels less their mean: one axis is empty
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(out.T), np.eye(30), atol=1e-3)


def test_full_shrinkage_only_rotates_and_scales(features: Features) -> None:
    out = whitened(features, shrinkage=1.0)
    centred = features - features.mean(axis=0, dtype=np.float64)
    scale = np.linalg.norm(out) / np.linalg.norm(centred)
    np.testing.assert_allclose(out @ out.T, scale**2 * centred @ centred.T, atol=1e-3 * scale**2)


def test_the_variances_are_those_of_the_formula_and_fall(features: Features) -> None:
    out = whitened(features, shrinkage=0.3)
    values = np.linalg.eigvalsh(np.cov(features.T.astype(np.float64)))[::-1].clip(0)
    expected = values / (0.7 * values + 0.3 * values.mean())
    np.testing.assert_allclose(out.var(axis=0, ddof=1), expected, atol=1e-4)
    assert (np.diff(out.var(axis=0)) < 1e-6).all()


def test_fewer_dimensions_are_the_first_of_all(features: Features) -> None:
    weight, bias = fit_whitening(features)
    shorter, its_bias = fit_whitening(features, dimension=8)
    assert shorter.shape == (8, 48)
    assert its_bias.shape == (8,)
    assert shorter.dtype == its_bias.dtype == np.float32
    np.testing.assert_array_equal(shorter, weight[:8])
    np.testing.assert_array_equal(its_bias, bias[:8])


def test_fewer_photos_than_features_will_do(features: Features) -> None:
    weight, bias = fit_whitening(features[:10])
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()


def test_memory_mapped_half_precision_gives_nearly_the_same(features: Features, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "features", np.float16, "w+", shape=features.shape)
    mapped[:] = features
    assert np.abs(whitened(np.asarray(mapped, np.float32)) - whitened(features)).max() < 0.1
    weight, bias = fit_whitening(mapped)
    again, its_bias = fit_whitening(np.asarray(mapped, np.float32))
    np.testing.assert_array_equal(weight, again)
    np.testing.assert_array_equal(bias, its_bias)


@pytest.mark.parametrize(
    "options", [{"shrinkage": -0.1}, {"shrinkage": 1.5}, {"dimension": 0}, {"dimension": 49}]
)
def test_values_out_of_range_are_refused(features: Features, options: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        fit_whitening(features, **options)  # type: ignore[arg-type]


def test_features_without_variance_are_refused(features: Features) -> None:
    with pytest.raises(TrainingError, match="all alike"):
        fit_whitening(np.repeat(features[:1], 20, axis=0))
    with pytest.raises(TrainingError, match="at least two"):
        fit_whitening(features[:1])
    damaged = features.copy()
    damaged[3, 4] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        fit_whitening(damaged)
