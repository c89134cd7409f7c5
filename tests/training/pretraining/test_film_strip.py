"""The film strip of a run: the same photos over the steps, in a run that is whole, resumed, or goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.pretraining.test_pretrain import STEPS, StopAfter, run
from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training import PretrainReport
from vitmae_search.training_runs import film_strip, read_film_strip

__all__ = ["run"]  # the fixture

Run = Callable[..., PretrainReport]


def test_the_same_photos_are_reconstructed_after_ever_more_steps(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "run")
    strip = read_film_strip(tmp_path / "run")
    assert [moment.step for moment in strip.moments] == [0, 1, 2, 4, 8, STEPS]
    assert strip.originals.shape == (4, 16, 16, 3)
    assert strip.guesses.shape == (6, 4, 16, 16, 3)
    assert (strip.masks.sum(axis=(1, 2)) == 12).all()  # three quarters of 16 patches
    assert strip.moments[-1].loss < strip.moments[0].loss
    assert strip.moments[-1].epoch == pytest.approx(STEPS * 5 / 12, abs=1e-3)
    assert (strip.completed == strip.originals)[:, ~strip.hidden.repeat(3, axis=-1)].all()
    assert "loss" in strip._repr_html_()


@pytest.mark.parametrize("film", ["log", "even"])
def test_a_resumed_run_continues_its_strip(run: Run, tmp_path: Path, film: str) -> None:
    run(tmp_path / "whole", film=film)
    for steps in (4, 3, 99):
        run(tmp_path / "parts", StopAfter(steps), film=film)
    whole, parts = (read_film_strip(tmp_path / name) for name in ("whole", "parts"))
    assert parts.moments == whole.moments
    assert np.array_equal(parts.guesses, whole.guesses)
    if film == "even":  # more moments than steps: each step is one
        assert [moment.step for moment in whole.moments] == list(range(STEPS + 1))


def test_what_came_after_the_checkpoint_comes_again(run: Run, tmp_path: Path) -> None:
    run(tmp_path, StopAfter(5))
    state = (tmp_path / "state.pt").read_bytes()
    run(tmp_path, StopAfter(4))
    (tmp_path / "state.pt").write_bytes(state)  # as if it was killed before the second checkpoint
    run(tmp_path)
    assert [moment.step for moment in read_film_strip(tmp_path).moments] == [0, 1, 2, 4, 8, STEPS]


def test_ones_own_photo_is_named_and_kept_though_its_file_goes(
    run: Run, tmp_path: Path, photo: Image.Image
) -> None:
    own = tmp_path / "cat.png"
    photo.save(own)
    run(tmp_path / "run", StopAfter(2), film_photos=(str(own),))
    own.unlink()
    run(tmp_path / "run")
    strip = read_film_strip(tmp_path / "run")
    assert strip.names == ("cat.png", "", "", "")
    expected = np.asarray(photo.resize((16, 16), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(strip.originals[0] - expected).mean() < 8
    assert strip.moments[-1].step == STEPS


def test_a_photo_that_cannot_be_read_is_said_before_the_training(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(TrainingError, match=r"broken\.jpg cannot be in the film strip"):
        run(tmp_path / "run", film_photos=(str(broken),))
    with pytest.raises(ConfigError, match="film_photos"):
        run(tmp_path / "run", film_photos=("a",) * 5)


def test_a_run_without_a_strip_says_so_and_may_get_one_later(run: Run, tmp_path: Path) -> None:
    losses: dict[str, Any] = {}
    for name, film in (("without", "none"), ("with", "log")):
        losses[name] = run(tmp_path / name, StopAfter(5), film=film).loss
    assert losses["with"] == losses["without"]  # it changes nothing
    with pytest.raises(TrainingError, match="has no film strip"):
        read_film_strip(tmp_path / "without")
    run(tmp_path / "without", film="log")
    assert [moment.step for moment in read_film_strip(tmp_path / "without").moments] == [8, STEPS]


@pytest.mark.parametrize(("pixels", "steps"), [(4 * 16 * 16 * 3, [0, 2, STEPS]), (1, [STEPS])])
def test_of_a_strip_that_is_too_large_only_some_moments_are_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int, steps: list[int]
) -> None:
    run(tmp_path)
    monkeypatch.setattr(film_strip, "_MAX_PIXELS", pixels)
    strip = read_film_strip(tmp_path)
    assert [moment.step for moment in strip.moments] == steps
    assert len(strip.guesses) == len(steps)


@pytest.mark.parametrize(
    ("damaged", "left"),
    [
        ("photos.json", []),
        ("photos.png", []),
        ("moments.jsonl", [0, 1, 2]),
        ("000000002.png", [0, 1, 4]),
    ],
)
def test_a_damaged_strip_costs_what_is_damaged(
    run: Run, tmp_path: Path, damaged: str, left: list[int]
) -> None:
    run(tmp_path, StopAfter(5))
    path = tmp_path / "film" / damaged
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 5 // 6])  # of four moments, half the last
    if damaged.startswith("photos"):
        with pytest.raises(TrainingError, match="has no film strip"):
            read_film_strip(tmp_path)
    else:
        assert [moment.step for moment in read_film_strip(tmp_path).moments] == left
    run(tmp_path)  # it goes on, with a new strip where the photos are lost
    assert [moment.step for moment in read_film_strip(tmp_path).moments][-1] == STEPS
