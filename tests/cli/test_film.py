"""`film`: the strip of a run as a figure, an animation, and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny_model import TINY_MODEL
from vitmae_search.cli import main
from vitmae_search.training import pretrain


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    options = {"epochs": 3, "batch_size": 2, "precision": "fp32", "threads": 1, "device": "cpu"}
    pretrain(folder / "photos", folder / "run", model=TINY_MODEL, options=options)
    return folder / "run"


def test_a_strip_as_a_figure_and_as_an_animation(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    figure, animation = tmp_path / "strip.png", tmp_path / "strip.gif"
    assert main.run(["film", str(run), "-o", str(figure), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [moment["step"] for moment in told["moments"]] == [0, 1, 2, 3]
    assert told["photos"] == ["", ""]
    assert told["moments"][-1]["loss"] == pytest.approx(sum(told["moments"][-1]["losses"]) / 2)
    with Image.open(figure) as image:
        assert image.width > 2 * image.height  # six columns of two photos
    assert main.run(["film", str(run), "--guesses", "-o", str(animation)]) == 0
    assert capsys.readouterr().out.startswith("4 moments, loss ")
    with Image.open(animation) as image:
        assert image.n_frames == 4  # type: ignore[attr-defined]
        assert image.size == (3 * 192 + 2 * 8, 2 * 200 + 34)


def test_what_is_no_strip_is_one_sentence(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    assert main.run(["film", str(tmp_path)]) == 1
    assert "has no film strip" in capsys.readouterr().err
    assert main.run(["film", str(run), "-o", str(tmp_path / "strip.mp4")]) == 1
    assert "figures are .png, .pdf, .svg files" in capsys.readouterr().err
