"""A box on a picture finds what is in it in other photos, and where."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.region_search import overlap
from vitmae_search.cli.main import cli
from vitmae_search.errors import LibraryError
from vitmae_search.library import Library
from vitmae_search.records import Box, RegionExplanation

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")
PLACE = Box(0.3, 0.2, 0.4, 0.5)
"""Of the part in its photo."""
PASTED = Box(0.5, 0.4, 0.4, 0.5)
"""Of the part in the query."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, real_photos: Mapping[str, Path]) -> Path:
    """Photos, and a query that has a part of the cat."""
    base = tmp_path_factory.mktemp("regions")
    (base / "photos").mkdir()
    pictures = {name: Image.open(real_photos[name]).convert("RGB").resize((480, 320)) for name in NAMES}
    for name, picture in pictures.items():
        picture.save(base / "photos" / f"{name}.jpg", quality=92)
    part = pictures["chelsea"].crop((144, 64, 336, 224))
    query = pictures["rocket"].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    query.paste(part, (240, 128))
    query.save(base / "query.png")
    return base


@pytest.fixture(scope="module")
def library(folder: Path) -> Iterator[Library]:
    with Library.open(folder / "library") as opened:
        opened.index(folder / "photos")
        yield opened


def test_the_photo_and_the_place_of_a_part_are_found(library: Library, folder: Path) -> None:
    said: list[tuple[int, int]] = []
    found = library.search_region(
        folder / "query.png", PASTED, k=3, on_progress=lambda done, total: said.append((done, total))
    )
    assert [hit.rank for hit in found.hits] == [1, 2, 3]
    assert Path(found.hits[0].photo.path).name == "chelsea.jpg"
    assert found.hits[0].box is not None
    assert overlap(found.hits[0].box, PLACE) > 0.5
    assert found.region is not None
    assert (found.region.box, found.region.compared, found.region.by_patches) == (PASTED, 6, True)
    assert found.calibration is None  # its scores are others than those that were calibrated
    assert said == [(0, 6), (6, 6)]
    rest = library.search_region(folder / "query.png", (240, 128, 192, 160), k=3, offset=3)
    assert [hit.rank for hit in rest.hits] == [4, 5, 6]
    ids = {hit.photo.photo_id for hit in (*found.hits, *rest.hits)}
    assert len(ids) == 6


def test_the_photo_itself_is_no_hit_and_a_search_can_be_cancelled(library: Library, folder: Path) -> None:
    photo = next(photo for photo in library.photos() if photo.path.endswith("coffee.jpg"))
    for picture in (photo.photo_id, photo.path):
        found = library.search_region(picture, (0.2, 0.2, 0.5, 0.5))
        assert photo.photo_id not in {hit.photo.photo_id for hit in found.hits}
        assert len(found.hits) == 5
    with Library.open(library.folder) as other:
        stopped = other.search_region(photo.photo_id, (0.2, 0.2, 0.5, 0.5), cancelled=lambda: True)
    assert stopped.hits == ()
    with pytest.raises(LibraryError, match="nothing of the picture"):
        library.search_region(photo.photo_id, (5000, 0, 10, 10))


def test_a_plugin_without_patches_compares_the_part_cut_out(folder: Path, tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index(folder / "photos")
        found = library.search_region(folder / "query.png", PASTED, k=2)
        cut = library.search(Image.open(folder / "query.png").crop((240, 128, 432, 288)), k=2, variants=False)
    assert [hit.photo for hit in found.hits] == [hit.photo for hit in cut.hits]
    assert found.hits[0].box is None
    assert found.region is not None
    assert not found.region.by_patches
    assert "does not look at patches" in found.region.text


def test_the_command(library: Library, folder: Path) -> None:
    query, box = str(folder / "query.png"), "240,128,192,160"
    words = ["search", query, "--part", box, "-k", "1", "--library", str(library.folder)]
    shown = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert "chelsea.jpg  at 0." in shown.stdout
    assert "Looked through 6 photos" in shown.stdout
    as_json = json.loads(CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False).stdout)
    assert as_json["region"]["compared"] == 6
    place = as_json["hits"][0]["box"]
    assert overlap(Box(**place), PLACE) > 0.5
    for wrong in (["--part", "1,2,3"], ["--part", box, "--less", query]):
        assert CliRunner().invoke(cli, ["search", query, *wrong]).exit_code == 2


def explained(library: Library, query: Path, photo: str) -> RegionExplanation:
    return library.explain_region(query, PASTED, next(p.path for p in library.photos() if photo in p.path))


def test_what_each_patch_adds_sums_up_to_the_score(library: Library, folder: Path) -> None:
    hits = library.search_region(folder / "query.png", PASTED, k=6).hits
    for hit in hits[:3]:
        found = library.explain_region(folder / "query.png", PASTED, hit.photo.photo_id)
        assert found.score == pytest.approx(hit.score, abs=1e-4)
        assert found.hit_box == hit.box
        # Of fewer than eight photos there is no mean to take away: the patches alone make the score.
        assert found.query_shares.sum() == pytest.approx(hit.score, abs=1e-4)
        assert found.hit_shares.sum() == pytest.approx(hit.score, abs=1e-4)
        assert found.query_rest == pytest.approx(0, abs=1e-4)
    inside = share_inside(found_by_part := explained(library, folder / "query.png", "chelsea"), PLACE)
    assert inside > 0.7, found_by_part.hit_box
    with pytest.raises(LibraryError, match="a photo of the library"):
        library.explain_region(folder / "query.png", PASTED, folder / "query.png")


def share_inside(found: RegionExplanation, place: Box) -> float:
    """How much of what the photo's patches add is of those in a place."""
    rows, columns = found.hit.grid
    down, across = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    inside = ((down >= place.top) & (down <= place.top + place.height))[:, None] & (
        (across >= place.left) & (across <= place.left + place.width)
    )
    return float(found.hit_shares[inside].sum() / found.hit_shares.sum())


@pytest.mark.parametrize("change", ["crop", "mirror", "turn"])
def test_the_patches_that_correspond_are_the_right_ones(
    library: Library, folder: Path, tmp_path: Path, change: str
) -> None:
    """The part is a crop, mirrored or upside down: its patches' best are where the same is in the photo.

    Of a part that is upside down hardly one is, as a search by a part does not turn it. What the patches add
    sums up to the score for all three.
    """
    with Image.open(folder / "photos" / "chelsea.jpg") as photo:
        part = photo.crop((144, 64, 336, 224))
    turned = {
        "crop": part,
        "mirror": part.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "turn": part.transpose(Image.Transpose.ROTATE_180),
    }[change]
    with Image.open(folder / "photos" / "rocket.jpg") as other:
        query = other.convert("RGB")
    query.paste(turned, (240, 128))
    query.save(tmp_path / "query.png")
    found = explained(library, tmp_path / "query.png", "chelsea")
    rows, columns = found.query.grid
    best = found.similarity.argmax(axis=1)
    row, column = np.divmod(np.arange(rows * columns), columns)
    across = (column + 0.5) / columns if change == "crop" else 1 - (column + 0.5) / columns
    down = (row + 0.5) / rows if change != "turn" else 1 - (row + 0.5) / rows
    where = np.stack([PLACE.left + across * PLACE.width, PLACE.top + down * PLACE.height])
    there = np.stack(
        [
            (best % found.hit.grid[1] + 0.5) / found.hit.grid[1],
            (best // found.hit.grid[1] + 0.5) / found.hit.grid[0],
        ]
    )
    near = (np.abs(where - there) <= 1.5 / np.array(found.hit.grid[::-1])[:, None]).all(axis=0)
    chance = 9 / (found.hit.grid[0] * found.hit.grid[1])
    assert found.query_shares.sum() + found.query_rest == pytest.approx(found.score, abs=1e-4)
    assert found.hit_shares.sum() == pytest.approx(found.query_shares.sum(), abs=1e-4)
    assert near.mean() > (0 if change == "turn" else 3 * chance), near.mean()
