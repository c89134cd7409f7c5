"""Near-duplicates of a library: real photos in several sizes and formats, and decisions that last."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from vitmae_search.cli.main import run
from vitmae_search.errors import LibraryError, SpaceError
from vitmae_search.library import Library
from vitmae_search.photos.sharpness import sharpness
from vitmae_search.records import DuplicateGroup, SearchFilter


@pytest.fixture
def photos(tmp_path: Path, real_photos: Mapping[str, Path]) -> Path:
    """Five photos; of "coffee" a small JPEG and a PNG, of "china" a blurred frame and a copy."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "chelsea", "coffee", "china", "flower"):
        with Image.open(real_photos[name]) as image:
            picture = image.convert("RGB").resize((400, 300))
        picture.save(folder / f"{name}.jpg", quality=92)
        if name == "coffee":
            picture.save(folder / "coffee.png")
            picture.resize((200, 150)).save(folder / "coffee-small.jpg", quality=70)
        if name == "china":
            picture.filter(ImageFilter.GaussianBlur(1.5)).save(folder / "a-blurred.jpg", quality=100)
            shutil.copy(folder / "china.jpg", folder / "copy of china.jpg")
    return folder


@pytest.fixture
def library(tmp_path: Path, photos: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", embedder="color_layout") as opened:
        opened.index(photos)
        yield opened


def names(group: DuplicateGroup) -> list[str]:
    return [Path(shown.photo.path).name for shown in group.photos]


def groups(library: Library, **options: object) -> dict[str, DuplicateGroup]:
    found = library.duplicates(min_score=0.995, **options).groups
    return {"china" if "china.jpg" in names(group) else "coffee": group for group in found}


def ids(group: DuplicateGroup) -> list[int]:
    return [shown.photo.photo_id for shown in group.photos]


def test_the_best_comes_first(library: Library, photos: Path) -> None:
    found = groups(library)
    assert names(found["coffee"]) == ["coffee.png", "coffee.jpg", "coffee-small.jpg"]
    assert names(found["china"]) == ["china.jpg", "a-blurred.jpg"]  # sharper, in a smaller file
    assert found["china"].photos[0].copies == (str(photos / "copy of china.jpg"),)
    assert found["china"].files == 3
    assert len(found) == 2
    first = found["coffee"].photos[0].photo.photo_id
    scores = {hit.photo.photo_id: hit.score for hit in library.similar(first).hits}
    for shown in found["coffee"].photos[1:]:
        assert shown.score == pytest.approx(scores[shown.photo.photo_id], abs=1e-5)


def test_other_scores_are_previewed(library: Library) -> None:
    found = library.duplicates(min_score=0.5)
    assert found.score == min(found.preview) == 0.5
    assert found.compared == 8
    assert len(found.preview) == 5
    assert found.preview[0.5] >= 1
    assert len(library.duplicates(min_score=1.01).groups) == 1  # the copy, whatever the score


def test_copies_alone_are_a_group(library: Library, photos: Path) -> None:
    (only,) = library.duplicates(min_score=1.01).groups
    assert (only.photos[0].photo.path, only.photos[0].copies) == (
        str(photos / "china.jpg"), (str(photos / "copy of china.jpg"),),
    )  # fmt: skip


def test_a_filter_chooses_what_is_compared(library: Library) -> None:
    assert groups(library, where=SearchFilter(under="/elsewhere")) == {}


def test_decisions_last(library: Library, photos: Path, tmp_path: Path) -> None:
    found = groups(library)
    png, jpg, small = ids(found["coffee"])
    library.keep([small])
    assert names(groups(library)["coffee"]) == ["coffee-small.jpg", "coffee.png", "coffee.jpg"]
    library.not_duplicates(jpg, [png, small])
    assert names(groups(library)["coffee"]) == ["coffee-small.jpg", "coffee.png"]
    library.ignore_duplicates(ids(groups(library)["coffee"]))
    library.ignore_duplicates(ids(found["china"]))
    assert groups(library) == {}
    again = groups(library, ignored=True)
    assert all(group.ignored for group in again.values())
    assert set(again) == {"china", "coffee"}
    (photos / "moved").mkdir()
    for name in ("coffee.png", "coffee.jpg"):
        (photos / name).rename(photos / "moved" / name)
    (photos / "coffee-small.jpg").write_bytes((photos / "coffee-small.jpg").read_bytes() + b"edited")
    library.index(photos, rescan=True)
    assert groups(library) == {}
    assert names(groups(library, ignored=True)["coffee"]) == ["coffee-small.jpg", "coffee.png"]
    with Image.open(photos / "moved" / "coffee.png") as image:
        image.resize((380, 280)).save(photos / "new.jpg")
    library.index(photos)
    assert names(groups(library)["coffee"]) == ["coffee-small.jpg", "coffee.png", "new.jpg"]


def test_decisions_are_undone(library: Library) -> None:
    found = groups(library)
    library.ignore_duplicates(ids(found["china"]))
    library.not_duplicates(ids(found["coffee"])[0], ids(found["coffee"])[1:])
    assert names(groups(library)["coffee"]) == ["coffee.jpg", "coffee-small.jpg"]
    assert library.undo() == "a photo said to be no duplicate"
    assert library.undo() == "a group of near-duplicates ignored"
    assert {name: names(group) for name, group in groups(library).items()} == {
        name: names(group) for name, group in found.items()
    }


def test_missing_photos_are_in_no_group(library: Library, photos: Path) -> None:
    (photos / "coffee.png").unlink()
    library.index(photos)
    assert names(groups(library)["coffee"]) == ["coffee.jpg", "coffee-small.jpg"]


def test_what_cannot_be_is_said(library: Library) -> None:
    with pytest.raises(SpaceError, match="not measured"):
        library.duplicates()
    with pytest.raises(LibraryError, match="no photo with id 999"):
        library.not_duplicates(1, [999])


def test_a_blurred_photo_is_less_sharp(library: Library) -> None:
    thumbnails = {Path(p.path).name: library.thumbnail(p.photo_id) or b"" for p in library.photos()}
    assert sharpness(thumbnails["china.jpg"]) > 2 * sharpness(thumbnails["a-blurred.jpg"])
    assert sharpness(b"no picture") == 0.0


def test_the_command(
    library: Library, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def call(*words: object) -> str:
        capfd.readouterr()
        assert run([*map(str, words), "--library", str(library.folder)]) == 0
        return capfd.readouterr().out

    table = tmp_path / "list.csv"
    found = json.loads(call("duplicates", "--min-score", "0.995", "--csv", table, "--json"))
    assert [len(group["photos"]) for group in found["groups"]] == [2, 3]
    assert {"min_score", "preview", "compared", "space"} <= found.keys()
    with table.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["keep"] for row in rows] == ["yes", "no", "no", "yes", "no", "no"]
    assert {row["path"] for row in rows} >= {str(photos / "copy of china.jpg")}
    text = call("duplicates", "--min-score", "0.995")
    assert f"  keep  1.0000  400x300 PNG         {photos}/coffee.png\n" in text
    assert "2 groups among 8 photos" in text
    assert call("duplicates", "keep", photos / "coffee.jpg") == "kept: 1\n"
    call("duplicates", "different", photos / "coffee-small.jpg", photos / "coffee.jpg", photos / "coffee.png")
    call("duplicates", "ignore", photos / "china.jpg", photos / "a-blurred.jpg")
    found = json.loads(call("duplicates", "--min-score", "0.995", "--json"))
    assert [[Path(one["path"]).name for one in group["photos"]] for group in found["groups"]] == [
        ["coffee.jpg", "coffee.png"]
    ]
