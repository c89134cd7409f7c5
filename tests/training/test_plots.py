"""Loss curves and sheets of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.training.plots import draw_curves, draw_sheet


@pytest.mark.parametrize(
    "points",
    [[], [(1.0, 0.5)], [(0.0, 0.7), (1.0, 0.7)], [(i / 10, 1 / (1 + i)) for i in range(300)]],
)
def test_a_loss_curve_is_drawn_from_any_number_of_points(
    points: list[tuple[float, float]], tmp_path: Path
) -> None:
    draw_curves({"": points}, tmp_path / "loss.png", "loss")
    with Image.open(tmp_path / "loss.png") as image:
        blue = (np.asarray(image.convert("RGB"))[..., 2] > 150) & (np.asarray(image)[..., 0] < 60)
    assert blue.any() == (len(points) > 1)


def test_a_sheet_has_every_image_in_its_row_and_column(tmp_path: Path) -> None:
    colours = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    rows = [[np.full((5, 7, 3), value, np.uint8) for value in row] for row in colours]
    draw_sheet(rows, tmp_path / "sheet.png", zoom=2)
    with Image.open(tmp_path / "sheet.png") as image:
        shown = np.asarray(image)[::2, ::2, 0]
    assert shown.shape == (2 * 9 + 4, 3 * 11 + 4)
    np.testing.assert_array_equal(shown[6::9, 7::11], colours)
