"""A reconstruction as a picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import StorageError
from vitmae_search.photos.reconstruction_sheet import GAP, panels_image, panels_png, save_panels
from vitmae_search.records import Reconstruction


@pytest.fixture
def made() -> Reconstruction:
    panels = [np.full((64, 64, 3), value, np.uint8) for value in (10, 80, 150, 220)]
    panels[0][:32] = 30
    mask, error = np.zeros((8, 8), np.bool_), np.zeros((8, 8), np.float32)
    return Reconstruction(*panels, mask, error, None, 0.0, "none")


def test_the_four_panels_stand_side_by_side(made: Reconstruction) -> None:
    sheet = np.asarray(panels_image(made))
    assert sheet.shape == (256, 4 * 256 + 3 * GAP, 3)
    lefts = [i * (256 + GAP) for i in range(4)]
    assert [int(sheet[-1, left, 0]) for left in lefts] == [10, 80, 150, 220]
    assert sheet[0, 0, 0] == 30, "upright"
    assert (sheet[:, 256 : 256 + GAP] == 255).all()


def test_a_file_and_a_download_are_the_same(made: Reconstruction, tmp_path: Path) -> None:
    save_panels(made, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == panels_png(made)
    with Image.open(io.BytesIO(panels_png(made))) as image:
        assert image.format == "PNG"
    with pytest.raises(StorageError, match="cannot write"):
        save_panels(made, tmp_path / "no" / "out.png")
