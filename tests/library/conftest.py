"""A library of small photos, embedded with the plugin that needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vitmae_search.library import Library
from vitmae_search.search import query


@pytest.fixture
def photos(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Path:
    """A folder of twelve photos, in two sub-folders: even/0.jpg, odd/1.jpg, ..."""
    folder = tmp_path / "photos"
    for seed in range(12):
        write_photo(folder / ("odd" if seed % 2 else "even") / f"{seed}.jpg", seed)
    return folder


@pytest.fixture
def library(tmp_path: Path, photos: Path) -> Iterator[Library]:
    """A library with `photos` in it."""
    with Library.open(tmp_path / "library", embedder="color_layout") as opened:
        opened.index(photos)
    with Library.open(tmp_path / "library") as opened:
        yield opened


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures are embedded, batch by batch."""
    found: list[int] = []
    embed_images = query.embed_images

    def counted(images: Any, embedder: Any) -> Any:
        found.append(len(images))
        return embed_images(images, embedder)

    monkeypatch.setattr(query, "embed_images", counted)
    return found
