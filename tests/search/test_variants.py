"""Which variant of a query's picture wins."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from vitmae_search.photos.views import margin
from vitmae_search.records import QueryVariant, ScoreCalibration
from vitmae_search.search.variants import (
    AS_IT_IS,
    best_turned,
    best_upright,
    is_clear,
    likely_turns,
    turned_variants,
    turns,
    upright_variants,
)

TRIMMED = QueryVariant(trimmed=True)


def test_a_picture_without_borders_is_tried_as_it_is(real_photos: dict[str, Path]) -> None:
    with Image.open(real_photos["coffee"]) as image:
        photo = image.convert("RGB")
    assert list(upright_variants(photo, None)) == [AS_IT_IS]
    framed = upright_variants(margin(photo), None)
    assert list(framed) == [AS_IT_IS, TRIMMED]
    assert abs(framed[TRIMMED].width - photo.width) < 8


def test_turns_are_the_three_others_and_keep_the_trimming() -> None:
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), (255, 0, 0))
    turned = turned_variants(turns(TRIMMED), image, None)
    assert list(turned) == turns(TRIMMED)
    assert list(turned) == [QueryVariant(True, 90), QueryVariant(True, 180), QueryVariant(True, 270)]
    # Counter-clockwise, what is top left comes bottom left, bottom right, top right.
    for picture, corner in zip(turned.values(), ((0, 2), (2, 1), (1, 0)), strict=True):
        assert picture.getpixel(corner) == (255, 0, 0)


def test_large_pictures_are_reduced_to_twice_the_models_size_or_more() -> None:
    page = margin(Image.radial_gradient("L").convert("RGB").resize((1000, 800)))
    framed = upright_variants(page, 64)
    assert framed[AS_IT_IS] is page
    for picture in (framed[TRIMMED], *turned_variants(turns(TRIMMED), framed[TRIMMED], 64).values()):
        assert 128 <= min(picture.size) < 256


def test_the_better_upright_one_wins_and_the_picture_as_it_is_in_a_tie() -> None:
    assert best_upright({AS_IT_IS: 0.4, TRIMMED: 0.5}) == TRIMMED
    assert best_upright({AS_IT_IS: 0.5, TRIMMED: 0.5}) == AS_IT_IS


def test_a_turned_one_has_to_stand_out() -> None:
    first, second, third = turns(AS_IT_IS)
    scores = {first: 0.6, second: 0.71, third: 0.2}
    assert best_turned(AS_IT_IS, 0.5, scores) == second
    assert best_turned(AS_IT_IS, 0.6, scores) == AS_IT_IS
    assert best_turned(AS_IT_IS, 1.0, dict.fromkeys(scores, 1.0)) == AS_IT_IS


def test_without_any_turned_one_the_upright_one_wins() -> None:
    assert best_turned(AS_IT_IS, 0.2, {}) == AS_IT_IS


def test_guesses_are_worth_embedding_if_they_find_more_than_the_upright_one_and_than_chance() -> None:
    first, second, third = turns(AS_IT_IS)
    measured = ScoreCalibration(0.9, 0.4, 100)
    assert likely_turns(0.5, {first: 0.59, second: 0.58, third: 0.1}, measured) == []
    assert likely_turns(0.5, {first: 0.61, second: 0.59, third: 0.1}, measured) == [first]
    assert likely_turns(0.7, {first: 0.65, second: 0.64, third: 0.1}, measured) == []
    assert likely_turns(0.5, {first: 0.73, second: 0.75, third: 0.1}, measured) == [first, second]
    assert likely_turns(0.5, {first: 0.69, second: 0.75, third: 0.61}, measured) == [second]


def test_without_a_calibration_every_turn_is_worth_embedding() -> None:
    scores = dict.fromkeys(turns(AS_IT_IS), 0.0)
    for measured in (None, ScoreCalibration(0.8, None, 100), ScoreCalibration(None, 0.4, 100)):
        assert likely_turns(0.5, scores, measured) == turns(AS_IT_IS)


def test_only_a_calibrated_score_is_clear() -> None:
    assert not is_clear(1.0, None)
    assert not is_clear(1.0, ScoreCalibration(None, 0.2, 100))
    assert is_clear(0.7, ScoreCalibration(0.7, 0.2, 100))
    assert not is_clear(0.69, ScoreCalibration(0.7, 0.2, 100))


def test_a_variant_says_what_was_done() -> None:
    assert AS_IT_IS.text == ""
    assert TRIMMED.text == "without its borders"
    assert QueryVariant(True, 90).text == "without its borders and turned left by 90°"
    assert QueryVariant(turned=270).text == "turned right by 90°"
