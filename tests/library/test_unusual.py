"""Unusual photos: far from their neighbours, as comparing all with all says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.cli.main import run
from vitmae_search.library import Library
from vitmae_search.records import SearchFilter
from vitmae_search.search import neighbour_scores
from vitmae_search.search import neighbours as blocks


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50, 130])
@pytest.mark.parametrize("neighbours", [1, 3])
def test_blocks_give_what_all_pairs_do(count: int, neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", 17)
    vectors = np.random.default_rng(count).standard_normal((count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = neighbour_scores(vectors, neighbours)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    taken = min(neighbours, count - 1)
    expected = np.sort(scores, axis=1)[:, count - taken :].mean(axis=1) if taken > 0 else np.ones(count)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture
def library(tmp_path: Path, pieces: Path) -> Iterator[Library]:
    """Pieces of one photo, and one picture of another kind."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in pieces.glob("coffee-*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    Image.radial_gradient("L").resize((40, 40)).save(folder / "odd.png")
    with Library.open(tmp_path / "library", embedder="color_layout") as opened:
        opened.index(folder)
        yield opened


def test_the_odd_one_comes_first(library: Library, capfd: pytest.CaptureFixture[str]) -> None:
    found = library.unusual(k=5)
    assert Path(found.hits[0].photo.path).name == "odd.png"
    assert [hit.rank for hit in found.hits] == [1, 2, 3, 4, 5]
    assert [hit.score for hit in found.hits] == sorted(hit.score for hit in found.hits)
    assert found.calibration is None
    nearest = [hit.score for hit in library.similar(found.hits[0].photo.photo_id, k=3, stacks=False).hits]
    assert found.hits[0].score == pytest.approx(np.mean(nearest), abs=1e-5)
    assert library.unusual(SearchFilter(under="/elsewhere")).hits == ()
    capfd.readouterr()
    assert run(["unusual", "-k", "2", "--json", "--library", str(library.folder)]) == 0
    shown = json.loads(capfd.readouterr().out)["hits"]
    assert [hit["photo_id"] for hit in shown] == [hit.photo.photo_id for hit in found.hits[:2]]


def test_noise_is_guessed_worst(tmp_path: Path, pieces: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(pieces.glob("coffee-*.png"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    blocks_of_color = np.random.default_rng(0).integers(0, 2, (12, 12, 3), np.uint8) * 255
    Image.fromarray(blocks_of_color).resize((192, 192), Image.Resampling.NEAREST).save(folder / "noise.png")
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index(folder)
    with Library.open(tmp_path / "library") as library:
        found = library.badly_reconstructed()
        assert Path(found.hits[0].photo.path).name == "noise.png"
        losses = [hit.score for hit in found.hits]
        assert losses == sorted(losses, reverse=True)
        assert (len(losses), [hit.rank for hit in found.hits]) == (5, [1, 2, 3, 4, 5])
        some = library.badly_reconstructed(sample=3)
        assert {hit.photo.photo_id for hit in some.hits} < {hit.photo.photo_id for hit in found.hits}
        assert len(some.hits) == 3
        assert library.badly_reconstructed(cancelled=lambda: True).hits == ()
    capfd.readouterr()
    words = ["unusual", "--by", "reconstruction", "-k", "2", "--json", "--library", str(library.folder)]
    assert run(words) == 0
    shown = json.loads(capfd.readouterr().out)["hits"]
    assert [hit["photo_id"] for hit in shown] == [hit.photo.photo_id for hit in found.hits[:2]]
    assert run(["unusual", "--sample", "3", "--library", str(library.folder)]) == 2
