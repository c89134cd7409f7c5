"""Several views of a photo, averaged: its mirror image, or its corners and center."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from vitmae_search.embedding.testing import odd_images


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_photo_and_its_mirror_image_share_a_vector(open_model, photos) -> None:
    flip, single = open_model(views="flip"), open_model()
    batch = np.stack([flip.prepare(photo) for photo in photos])
    mirrored = np.ascontiguousarray(batch[:, :, ::-1])
    assert np.abs(flip.embed(batch) - flip.embed(mirrored)).max() < 1e-6
    assert np.abs(single.embed(batch) - single.embed(mirrored)).max() > 1e-3
    expected = unit(single.embed(batch) + single.embed(mirrored))
    assert np.abs(flip.embed(batch) - expected).max() < 1e-6
    # Mirroring the file, too: resizing treats left and right alike but for rounding.
    files = np.stack([flip.prepare(ImageOps.mirror(photo)) for photo in photos])
    assert np.abs(flip.embed(batch) - flip.embed(files)).max() < 1e-3


def test_five_crops_are_the_corners_and_the_center(open_model, photos) -> None:
    five, single = open_model(views="five"), open_model()
    assert (five.shape, five.input_size) == ((5, 32, 32, 3), 40)
    photo = photos[0].resize((200, 150))
    boxes = [(0, 0, 160, 120), (40, 0, 200, 120), (0, 30, 160, 150), (40, 30, 200, 150), (20, 15, 180, 135)]
    prepared = five.prepare(photo)
    for crop, box in zip(prepared, boxes, strict=True):
        inner = single.prepare(photo.crop(box))[1:-1, 1:-1]  # the filter sees what is beside the box
        assert np.array_equal(crop[1:-1, 1:-1], inner), box
    expected = unit(single.embed(prepared).sum(axis=0, keepdims=True))
    assert np.abs(five.embed(prepared[None]) - expected).max() < 1e-6


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_unusual_images_have_five_crops_too(open_model, photos, mode: str) -> None:
    prepare = open_model(views="five").prepare
    for image in [*odd_images(), photos[0].convert(mode), Image.new(mode, (1, 1))]:
        assert prepare(image).shape == (5, 32, 32, 3)
    grey = prepare(Image.new("RGB", (1, 3000), (7, 8, 9)))
    assert (grey == (7, 8, 9)).all()


def test_views_do_not_change_reconstructions(open_model, photos) -> None:
    panels = [open_model(views=views).reconstruct(photos[0], seed=1).pasted for views in ("1", "five")]
    assert np.array_equal(*panels)
