"""The bundled model over real photos, on the CPU in fp32, which each device is compared with.

Each test runs on both devices; those on "cuda" are marked `gpu` (see the fixture `device`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder, load_drop_in, open_embedder
from vitmae_search.library import Library, write_samples

Vectors = dict[str, np.ndarray]
"""Each photo's features, (D,) float32, by its path."""

_KEPT = 60  # six photos in ten views each


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For what is made once for many tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITMAE_SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sample photos."""
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    for path in sorted(folder.glob("*.jpg"))[_KEPT:]:
        path.unlink()
    return folder


@pytest.fixture(scope="session")
def reference(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of them, made on the CPU in fp32."""
    folder = tmp_path_factory.mktemp("reference") / "library"
    with Library.open(folder, device="cpu", precision="fp32") as library:
        assert library.index(samples).added == _KEPT
    return folder


@pytest.fixture(scope="session")
def features() -> Callable[[Library], Vectors]:
    """The features that a library holds."""

    def read(library: Library) -> Vectors:
        catalog = library._catalog()
        (space,) = [space for space in catalog.spaces() if space.projection is None]
        found = {photo.path: catalog.vector(space.space_id, photo.content_id) for photo in catalog.photos()}
        return {path: vector for path, vector in found.items() if vector is not None}

    return read


@pytest.fixture
def open_bundled() -> Iterator[Callable[..., GuardedEmbedder]]:
    """Open the bundled model, or another, behind the guard; closed after the test."""
    plugin = load_drop_in(bundled("plugins") / "vitmae")
    opened: list[GuardedEmbedder] = []

    def make(device: str, precision: str = "auto", **options: Any) -> GuardedEmbedder:
        opened.append(open_embedder(plugin, options, device, precision))
        return opened[-1]

    yield make
    for embedder in opened:
        embedder.close()
