"""`inspect`: what the encoder computes on its way, and what each patch adds to the vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder, PluginHost, open_embedder
from vitmae_search.inspection import explain_match
from vitmae_search.records import Inspection


def opened(**options: str) -> GuardedEmbedder:
    return open_embedder(PluginHost().get("vitmae"), {"runtime": "torch", **options}, "cpu", "fp32")


@pytest.fixture(scope="module")
def photos(real_photos: dict[str, Path]) -> list[Image.Image]:
    return [Image.open(real_photos[name]).convert("RGB") for name in ("chelsea", "coffee")]


@pytest.fixture(scope="module")
def inspections(photos: list[Image.Image]) -> list[Inspection]:
    with opened() as embedder:
        return [embedder.inspect(photo) for photo in photos]


def test_the_shapes_are_those_of_the_bundled_model(inspections: list[Inspection]) -> None:
    made = inspections[0]
    assert (made.grid, made.picture.shape) == ((8, 8), (64, 64, 3))
    assert (made.tokens.shape, made.attention.shape) == ((13, 65, 192), (12, 3, 65, 65))
    assert np.allclose(made.attention.sum(axis=3), 1, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": "last", "pooling": "mean"},
        {"layers": "4,8", "pooling": "gem"},
        {"layers": "6,last", "pooling": "mean+moments"},
        {"layers": "4", "pooling": "grid"},
        {"layers": "last", "pooling": "mean", "image_size": "96"},
    ],
    ids=lambda options: "-".join(options.values()) or "bundled",
)
def test_the_patches_shares_sum_up_to_the_vector(photos: list[Image.Image], options: dict[str, str]) -> None:
    with opened(**options) as embedder:
        made = embedder.inspect(photos[0])
        expected = embedder.embed(embedder.prepare(photos[0])[None])[0]
    assert made.features @ expected >= 0.999999
    assert made.shares is not None
    assert np.abs(made.shares.sum(axis=0) - made.features).max() <= 1e-5
    assert made.shares.shape[0] == made.grid[0] * made.grid[1]


@pytest.mark.parametrize("options", [{"pooling": "cls", "layers": "last"}, {"views": "flip"}])
def test_what_is_no_sum_over_patches_has_no_shares(
    photos: list[Image.Image], options: dict[str, str]
) -> None:
    with opened(**options) as embedder:
        made = embedder.inspect(photos[0])
        expected = embedder.embed(embedder.prepare(photos[0])[None])[0]
    assert made.shares is None
    assert made.features @ expected >= 0.999999


def test_the_patches_shares_sum_up_to_the_score_of_a_search(
    photos: list[Image.Image], inspections: list[Inspection]
) -> None:
    with opened() as embedder:
        projection = embedder.own_projection()
        assert projection is not None
        vectors = projection(embedder.embed(np.stack([embedder.prepare(photo) for photo in photos])))
    found = explain_match(*inspections, tuple(zip(projection.weights, projection.biases, strict=True)))
    assert found.score == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    for shares, rest in ((found.query_shares, found.query_rest), (found.hit_shares, found.hit_rest)):
        assert shares is not None
        assert shares.sum() + rest == pytest.approx(found.score, abs=1e-5)
    assert found.query_shares is not None
    assert np.ptp(found.query_shares) > 1e-3, "patches do not all add the same"
