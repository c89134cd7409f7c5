"""The discriminant of views: what it does to the covariances, and that it finds photos after changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vitmae_search.errors import TrainingError
from vitmae_search.evaluation import unit_rows
from vitmae_search.training.adaptation.discriminant import fit_discriminant
from vitmae_search.training.adaptation.whitening import fit_whitening

Features = NDArray[np.float32]


def mapped(features: Features, weight: Features, bias: Features) -> Features:
    return unit_rows(features.reshape(-1, features.shape[-1]) @ weight.T + bias).reshape(
        *features.shape[:-1], len(bias)
    )


def found(views: Features) -> float:
    """How often a view is nearest to its own photo as it is."""
    gallery = views[:, 0]
    best = (views[:, 1:] @ gallery.T).argmax(axis=2)
    return float((best == np.arange(len(views))[:, None]).mean())


def test_views_of_other_photos_are_found_more_often_than_with_whitening(views: Features) -> None:
    known, new = views[::2], views[1::2]
    plain, whitened = found(new), found(mapped(new, *fit_whitening(known[:, 0])))
    assert found(mapped(new, *fit_discriminant(known))) > max(plain, whitened) + 0.02


def test_views_differ_alike_in_all_directions_but_for_the_weights(views: Features) -> None:
    weight, bias = fit_discriminant(views, shrinkage=1e-9)
    out = views.astype(np.float64) @ weight.T + bias
    about = (out - out.mean(axis=1, keepdims=True)).reshape(-1, out.shape[-1])
    within = about.T @ about / (len(views) * 4)
    deviations = np.sqrt(np.diag(within))
    np.testing.assert_allclose(within / np.outer(deviations, deviations), np.eye(len(bias)), atol=2e-2)
    assert (np.diff(deviations) < 1e-6).all()  # the axis that tells most comes first


def test_vectors_have_a_mean_square_length_of_the_dimension(views: Features) -> None:
    weight, bias = fit_discriminant(views, dimension=12)
    assert weight.shape == (12, 48)
    assert bias.shape == (12,)
    assert weight.dtype == bias.dtype == np.float32
    out = views.reshape(-1, 48).astype(np.float64) @ weight.T + bias
    assert abs(out.var(axis=0).sum() / 12 - 1) < 0.1


def test_photos_are_processed_in_chunks(views: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    once = fit_discriminant(views)
    monkeypatch.setattr("vitmae_search.training.adaptation.discriminant._CHUNK", 50)
    for whole, parts in zip(once, fit_discriminant(views), strict=True):
        np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_features_in_half_precision_on_disk_will_do(views: Features, tmp_path: Path) -> None:
    stored = np.memmap(tmp_path / "views", np.float16, "w+", shape=views.shape)
    stored[:] = views
    once, again = fit_discriminant(stored), fit_discriminant(np.asarray(stored))
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "options", [{"shrinkage": 0.0}, {"shrinkage": 1.1}, {"dimension": 0}, {"dimension": 49}]
)
def test_values_out_of_range_are_refused(views: Features, options: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        fit_discriminant(views, **options)  # type: ignore[arg-type]


def test_views_without_variance_are_refused(views: Features) -> None:
    with pytest.raises(TrainingError, match="two views"):
        fit_discriminant(views[:, :1])
    with pytest.raises(TrainingError, match="same features"):
        fit_discriminant(np.repeat(views[:, :1], 4, axis=1))
    with pytest.raises(TrainingError, match="tells them apart"):
        fit_discriminant(np.repeat(views[:1], 20, axis=0))
    damaged = views.copy()
    damaged[3, 1, 4] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        fit_discriminant(damaged)
