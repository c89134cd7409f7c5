"""A reconstruction as a picture."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import StorageError
from vitmae_search.photos.error_map import heat
from vitmae_search.photos.reconstruction_sheet import (
    GAP,
    SHORTEST,
    TITLE_HEIGHT,
    completed_photo,
    completed_title,
    compose_sheet,
    encode_png,
    enlarge,
    reconstruction_sheet,
    save_reconstruction,
)
from vitmae_search.records import Reconstruction


@pytest.fixture
def made() -> Reconstruction:
    panels = [np.full((64, 64, 3), value, np.uint8) for value in (10, 80, 150, 220)]
    panels[0][:32] = 30
    panels[3][:, 32:] = 120
    mask, error = np.ones((8, 8), np.bool_), np.full((8, 8), 2.0, np.float32)
    return Reconstruction(*panels, mask, error, 2.0, 1.0, "none")


def test_the_completed_photo_is_large_and_the_raw_panels_stand_beside_it(made: Reconstruction) -> None:
    sheet = np.asarray(reconstruction_sheet(made))
    large = 2 * SHORTEST + TITLE_HEIGHT
    assert sheet.shape == (large + TITLE_HEIGHT + 2 * GAP, GAP + large + GAP + 2 * (SHORTEST + GAP), 3)
    bottom, left = sheet.shape[0] - GAP - 1, 2 * GAP + large
    assert sheet[bottom, GAP, 0] == 220
    assert sheet[bottom, left, 0] == 150, "every patch as guessed"
    assert (sheet[bottom, left + SHORTEST + GAP] == heat(np.array(1.0))).all()
    upper = GAP + TITLE_HEIGHT
    assert (sheet[upper, left, 0], sheet[upper, left + SHORTEST + GAP, 0]) == (80, 30)
    assert (sheet[:TITLE_HEIGHT, :large] < 128).any(), "its title"
    assert (sheet[:TITLE_HEIGHT, left:] < 128).any()


def test_softening_changes_the_completed_photo_alone_and_the_title_says_so(made: Reconstruction) -> None:
    soft, raw = (np.asarray(reconstruction_sheet(made, soften=soften)) for soften in (True, False))
    changed = np.argwhere((soft != raw).any(axis=2))
    assert changed[:, 1].max() < GAP + 2 * SHORTEST + TITLE_HEIGHT
    assert (changed[:, 0] > GAP + TITLE_HEIGHT).any()
    assert completed_title(made, soften=True) == "64 of 64 squares guessed; seams between guesses softened"
    assert completed_title(made, soften=False) == "64 of 64 squares guessed"


def test_the_completed_photo_has_the_photos_own_shape(made: Reconstruction) -> None:
    shapes = {(50, 50): (90, 90), (200, 300): (135, 90), (3000, 1000): (30, 90), (100, 300): (135, 45)}
    for shape, size in shapes.items():
        assert completed_photo(replace(made, photo_shape=shape), height=90).size == size
    tall = replace(made, photo_shape=(3000, 1000))
    assert reconstruction_sheet(tall).height == reconstruction_sheet(made).height


def test_a_wide_model_size_keeps_its_shape() -> None:
    panels = [np.full((32, 64, 3), value, np.uint8) for value in (10, 80, 150, 220)]
    mask, error = np.zeros((4, 8), np.bool_), np.zeros((4, 8), np.float32)
    wide = Reconstruction(*panels, mask, error, None, 0.0, "none")
    assert completed_photo(wide, height=200).size == (300, 150)


def test_a_file_and_a_download_are_the_same(made: Reconstruction, tmp_path: Path) -> None:
    save_reconstruction(made, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == encode_png(reconstruction_sheet(made))
    with Image.open(io.BytesIO(encode_png(reconstruction_sheet(made)))) as image:
        assert image.format == "PNG"
    save_reconstruction(made, tmp_path / "raw.png", soften=False)
    assert (tmp_path / "raw.png").read_bytes() == encode_png(reconstruction_sheet(made, soften=False))
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


def test_a_sheet_has_rows_and_columns_with_gaps_and_a_margin() -> None:
    panels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((2, 3, 5, 7, 3), np.uint8)
    sheet = np.asarray(compose_sheet(list(panels), gap=2, margin=3))
    assert sheet.shape == (3 + 5 + 2 + 5 + 3, 3 + 7 + 2 + 7 + 2 + 7 + 3, 3)
    np.testing.assert_array_equal(sheet[3::7, 3::9, 0][:2, :3], panels[:, :, 0, 0, 0])
    assert (sheet == 255).all(axis=2).sum() == sheet.shape[0] * sheet.shape[1] - 6 * 5 * 7
