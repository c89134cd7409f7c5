"""A reconstruction as a picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import StorageError
from vitmae_search.photos.reconstruction_sheet import (
    GAP,
    TITLE_HEIGHT,
    compose_sheet,
    encode_png,
    enlarge,
    reconstruction_sheet,
    save_reconstruction,
    titled_sheet,
)
from vitmae_search.records import Reconstruction


@pytest.fixture
def made() -> Reconstruction:
    panels = [np.full((64, 64, 3), value, np.uint8) for value in (10, 80, 150, 220)]
    panels[0][:32] = 30
    mask, error = np.zeros((8, 8), np.bool_), np.zeros((8, 8), np.float32)
    return Reconstruction(*panels, mask, error, None, 0.0, "none")


def test_the_four_panels_stand_side_by_side(made: Reconstruction) -> None:
    sheet = np.asarray(reconstruction_sheet(made))
    assert sheet.shape == (256, 4 * 256 + 3 * GAP, 3)
    lefts = [i * (256 + GAP) for i in range(4)]
    assert [int(sheet[-1, left, 0]) for left in lefts] == [10, 80, 150, 220]
    assert sheet[0, 0, 0] == 30, "upright"
    assert (sheet[:, 256 : 256 + GAP] == 255).all()


def test_a_file_and_a_download_are_the_same(made: Reconstruction, tmp_path: Path) -> None:
    save_reconstruction(made, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == encode_png(reconstruction_sheet(made))
    with Image.open(io.BytesIO(encode_png(reconstruction_sheet(made)))) as image:
        assert image.format == "PNG"
    with pytest.raises(StorageError, match="cannot write"):
        save_reconstruction(made, tmp_path / "no" / "out.png")


def test_enlarging_keeps_every_pixel_square() -> None:
    panel = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    large = enlarge(panel, 50)
    factor = large.shape[0] // panel.shape[0]
    assert large.shape == (8 * factor, 12 * factor, 3)
    assert min(large.shape[:2]) >= 50
    assert (large[::factor, ::factor] == panel).all()
    assert (enlarge(large, 10) == large).all()


def test_the_titled_sheet_holds_every_panel_pixel_for_pixel() -> None:
    panels = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    sheet = np.asarray(titled_sheet([("One", panels[0]), ("Two", panels[1])]))
    for panel in panels:
        large = enlarge(panel)
        height, width = large.shape[:2]
        found = any(
            (sheet[TITLE_HEIGHT : TITLE_HEIGHT + height, left : left + width] == large).all()
            for left in range(sheet.shape[1] - width + 1)
        )
        assert found
    assert (sheet[:TITLE_HEIGHT] < 128).any(), "the titles"


def test_a_sheet_has_rows_and_columns_with_gaps_and_a_margin() -> None:
    panels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((2, 3, 5, 7, 3), np.uint8)
    sheet = np.asarray(compose_sheet(list(panels), gap=2, margin=3, top=4))
    assert sheet.shape == (4 + 5 + 2 + 5 + 3, 3 + 7 + 2 + 7 + 2 + 7 + 3, 3)
    np.testing.assert_array_equal(sheet[4::7, 3::9, 0][:2, :3], panels[:, :, 0, 0, 0])
    assert (sheet == 255).all(axis=2).sum() == sheet.shape[0] * sheet.shape[1] - 6 * 5 * 7
