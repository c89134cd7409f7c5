"""Why pictures match: the patches that correspond are those that show the same."""

from __future__ import annotations

import numpy as np
import pytest

from vitmae_search.errors import InspectionError
from vitmae_search.inspection import (
    attention_map,
    explain_match,
    feature_colors,
    layer_changes,
    mean_attention,
    patch_similarity,
    rollout,
)
from vitmae_search.records import Inspection

GRID = (4, 5)
RANDOM = np.random.default_rng(0)


def inspection(patches: np.ndarray, depth: int = 2) -> Inspection:
    """Of a picture whose patches (gh, gw, D) have the same features after each layer."""
    rows, columns, width = patches.shape
    tokens = np.concatenate([np.zeros((1, width)), patches.reshape(-1, width)]).astype(np.float32)
    attention = RANDOM.random((depth, 2, len(tokens), len(tokens))).astype(np.float32)
    mean = tokens[1:].mean(axis=0)
    return Inspection(
        picture=np.zeros((8 * rows, 8 * columns, 3), np.uint8),
        grid=(rows, columns),
        tokens=np.stack([tokens * (1 + layer) for layer in range(depth + 1)]),
        attention=attention / attention.sum(axis=3, keepdims=True),
        features=mean / np.linalg.norm(mean),
        shares=tokens[1:] / len(tokens[1:]) / np.linalg.norm(mean),
    )


@pytest.fixture
def patches() -> np.ndarray:
    return RANDOM.normal(size=(*GRID, 16)) + 0.5


@pytest.mark.parametrize("turn", ["mirror", "half", "quarter", "crop"])
def test_the_same_patches_elsewhere_correspond(patches: np.ndarray, turn: str) -> None:
    number = np.arange(20).reshape(GRID)
    change = {
        "mirror": lambda a: a[:, ::-1],
        "half": lambda a: a[::-1, ::-1],
        "quarter": lambda a: np.rot90(a),
        "crop": lambda a: a[1:3, 1:4],
    }[turn]
    found = explain_match(inspection(patches), inspection(change(patches)), ())
    assert {tuple(pair) for pair in found.pairs.tolist()} == {
        (int(own), place) for place, own in enumerate(change(number).ravel())
    }


def test_shares_sum_up_to_the_score_through_a_relu(patches: np.ndarray) -> None:
    maps = tuple(
        (RANDOM.normal(size=shape).astype(np.float32), RANDOM.normal(size=shape[0]).astype(np.float32))
        for shape in ((24, 16), (8, 24))
    )
    one, two = inspection(patches), inspection(RANDOM.normal(size=(*GRID, 16)) + 0.5)
    found = explain_match(one, two, maps)

    def vector(features: np.ndarray) -> np.ndarray:
        hidden = np.maximum(maps[0][0] @ features + maps[0][1], 0)
        out = maps[1][0] @ hidden + maps[1][1]
        return out / np.linalg.norm(out)

    score = float(vector(one.features) @ vector(two.features))
    assert found.score == pytest.approx(score, abs=1e-5)
    assert found.query_shares is not None
    assert found.query_shares.sum() + found.query_rest == pytest.approx(score, abs=1e-5)
    assert found.hit_shares is not None
    assert found.hit_shares.sum() + found.hit_rest == pytest.approx(score, abs=1e-5)


def test_attention_of_a_token(patches: np.ndarray) -> None:
    made = inspection(patches)
    both = mean_attention(made, 2)
    assert np.allclose(both, made.attention[1].mean(axis=0))
    assert np.array_equal(mean_attention(made, 1, 2), made.attention[0, 1])
    assert np.allclose(attention_map(made, both), both[0, 1:].reshape(GRID))
    assert np.allclose(attention_map(made, both, (1, 2)), both[1 + 7, 1:].reshape(GRID))
    assert np.allclose(attention_map(made, both, "mean"), both[1:, 1:].mean(axis=0).reshape(GRID))


def test_rollout_by_hand(patches: np.ndarray) -> None:
    made = inspection(patches)
    half = [(a.mean(axis=0) + np.eye(21)) / 2 for a in made.attention]
    assert np.allclose(rollout(made), half[1] @ half[0], atol=1e-6)
    assert np.allclose(rollout(made, 1), half[0], atol=1e-6)
    assert np.allclose(rollout(made).sum(axis=1), 1, atol=1e-5)


def test_colors_are_the_same_for_the_same_thing_in_all_pictures(patches: np.ndarray) -> None:
    mirrored = patches[:, ::-1]
    one, two = feature_colors([inspection(patches), inspection(mirrored)], 2)
    assert np.array_equal(one, two[:, ::-1])
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 10


def test_a_picture_of_one_color_has_colors(patches: np.ndarray) -> None:
    flat = np.ones_like(patches)
    assert feature_colors([inspection(flat)], 0)[0].shape == (*GRID, 3)
    assert np.isfinite(patch_similarity(inspection(flat), inspection(flat), 0)).all()


def test_layers_that_only_scale_change_nothing(patches: np.ndarray) -> None:
    made = inspection(patches)
    assert np.abs(layer_changes(made)).max() < 1e-6
    other = inspection(RANDOM.normal(size=(*GRID, 16)))
    states = np.stack([made.tokens[0], other.tokens[0]])
    mixed = Inspection(made.picture, GRID, states, made.attention[:1], made.features, None)
    assert layer_changes(mixed)[0] > 0.5


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda made: mean_attention(made, 3), "layers 1 to 2, not 3"),
        (lambda made: mean_attention(made, 1, 3), "heads 1 to 2, not 3"),
        (lambda made: rollout(made, 0), "layers 1 to 2, not 0"),
        (lambda made: feature_colors([made], 3), "layers 0 to 2, not 3"),
        (lambda made: attention_map(made, mean_attention(made, 1), (4, 0)), "rows 0 to 3 and columns 0 to 4"),
    ],
)
def test_what_is_not_there_is_said(patches: np.ndarray, ask, said: str) -> None:
    with pytest.raises(InspectionError, match=said):
        ask(inspection(patches))
