"""The head: it starts as its linear map, improves retrieval, and is deterministic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vitmae_search.embedding import Projection
from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training.adaptation.discriminant import fit_discriminant
from vitmae_search.training.adaptation.head import AffineMap, HeadOptions, HeadProgress, train_head

Features = NDArray[np.float32]
SMALL: dict[str, Any] = {"hidden": 64, "batch_size": 64, "learning_rate": 2e-3, "epochs": 12}


@pytest.fixture(scope="module")
def start(views: Features) -> AffineMap:
    return fit_discriminant(views[:160], dimension=12)


def projected(maps: tuple[AffineMap, ...], features: Features) -> Features:
    weights, biases = zip(*maps, strict=True)
    return Projection(weights, biases, "head")(features.reshape(-1, features.shape[-1])).reshape(
        *features.shape[:-1], -1
    )


def loss_of(maps: tuple[AffineMap, ...], features: Features, temperature: float = 0.07) -> float:
    """Of finding each photo by each of its views, over (N, V, F)."""
    out = projected(maps, features).astype(np.float64)
    scores = np.einsum("nvd,md->vnm", out[:, 1:], out[:, 0]) / temperature
    right = np.einsum("vnn->vn", scores)
    return float((np.log(np.exp(scores).sum(axis=2)) - right).mean())


def test_an_untrained_head_is_the_linear_map(views: Features, start: AffineMap) -> None:
    maps = train_head(views[:160], views[160:], start, HeadOptions(**SMALL | {"max_seconds": 1e-9}))
    assert [weight.shape for weight, _ in maps] == [(64, 48), (12, 64)]
    assert all(array.dtype == np.float32 for pair in maps for array in pair)
    np.testing.assert_allclose(projected(maps, views), projected((start,), views), atol=1e-5)


def test_training_improves_on_the_linear_map_on_held_out_photos(views: Features, start: AffineMap) -> None:
    seen: list[HeadProgress] = []
    options = HeadOptions(**SMALL | {"epochs": 40})
    maps = train_head(views[:160], views[160:], start, options, on_progress=seen.append)
    assert [moment.epoch for moment in seen] == list(range(1, 41))
    assert sum(moment.loss for moment in seen[-10:]) < sum(moment.loss for moment in seen[:10])
    assert loss_of(maps, views[160:]) < loss_of((start,), views[160:]) - 0.01


def test_a_training_that_makes_it_worse_returns_the_initial_map(views: Features, start: AffineMap) -> None:
    """A hundred times the rate, on views that belong to other photos: nothing that could be kept."""
    mixed = views[:160].copy()
    mixed[:, 1:] = np.random.default_rng(0).permutation(mixed[:, 1:])
    maps = train_head(mixed, views[160:], start, HeadOptions(**SMALL | {"learning_rate": 0.2, "warmup": 0.0}))
    np.testing.assert_allclose(projected(maps, views), projected((start,), views), atol=1e-5)


@pytest.mark.parametrize("changed", [{}, {"neighbours": 0.3}])
def test_equal_seeds_give_equal_heads_and_others_do_not(
    views: Features, start: AffineMap, changed: dict[str, float]
) -> None:
    def trained(seed: int) -> tuple[AffineMap, AffineMap]:
        options = HeadOptions(**SMALL | changed | {"seed": seed, "epochs": 2})
        return train_head(views[:160], views[160:], start, options)

    once, again, other = trained(1), trained(1), trained(2)
    for pair, same in zip(once, again, strict=True):
        for a, b in zip(pair, same, strict=True):
            np.testing.assert_array_equal(a, b)
    assert np.abs(once[0][0] - other[0][0]).max() > 1e-4


def test_near_photos_come_closer_when_they_are_positives(views: Features, start: AffineMap) -> None:
    """Neighbouring pieces overlap: with them as positives their vectors end up more alike."""

    def likeness(neighbours: float) -> float:
        options = HeadOptions(**SMALL | {"neighbours": neighbours, "epochs": 4})
        out = projected(train_head(views[:160], views[160:], start, options), views[160:, 0])
        scores = out @ out.T
        np.fill_diagonal(scores, -1)
        return float(np.sort(scores, axis=1)[:, -5:].mean())

    assert likeness(0.9) > likeness(0.0)


def test_fewer_photos_than_a_batch_will_do(views: Features, start: AffineMap) -> None:
    train_head(views[:5], views[5:8], start, HeadOptions(**SMALL | {"epochs": 1, "batch_size": 512}))


def test_a_loss_that_is_not_finite_stops_the_training(views: Features, start: AffineMap) -> None:
    damaged = views[:160].copy()
    damaged[7, 2, 3] = math.nan
    with pytest.raises(TrainingError, match="the head's loss is nan"):
        train_head(damaged, views[160:], start, HeadOptions(**SMALL))


def test_what_the_callback_raises_ends_it(views: Features, start: AffineMap) -> None:
    def stop(moment: HeadProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_head(views[:160], views[160:], start, HeadOptions(**SMALL), on_progress=stop)


@pytest.mark.parametrize(
    "values",
    [
        *({"epochs": 0}, {"learning_rate": 0.0}, {"temperature": -1.0}, {"warmup": 1.0}),
        *({"neighbours": 1.5}, {"batch_size": 1}, {"hidden": 23}),
    ],
)
def test_values_out_of_range_are_refused(views: Features, start: AffineMap, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        train_head(views[:160], views[160:], start, HeadOptions(**SMALL | values))


def test_one_view_or_one_photo_is_too_few(views: Features, start: AffineMap) -> None:
    for features, aside in ((views[:1], views), (views, views[:1]), (views[:, :1], views[:, :1])):
        with pytest.raises(TrainingError, match="at least two photos"):
            train_head(features, aside, start)
