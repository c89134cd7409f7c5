"""Each page as Streamlit runs it, without a browser: titles and contents, empty and with photos."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_page
from vitmae_search.catalog import CatalogWriter
from vitmae_search.embedding import Projection
from vitmae_search.library import Library
from vitmae_search.library.model_speeds import store_speed
from vitmae_search.library.samples import MARKER
from vitmae_search.photos.views import phone_screenshot
from vitmae_search.records import ScoreCalibration
from vitmae_search.training_runs import remember_run
from vitmae_search.web.server.session import close_libraries, library, uploads

TITLES = {
    "../pages/search.py": "Search",
    "../pages/reconstructions.py": "Reconstructions",
    "../pages/library.py": "Library",
    "../pages/plugins.py": "Plugins",
}


def words(at: AppTest) -> str:
    """All that the page says in HTML blocks, unescaped."""
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def tiles(at: AppTest, key: str) -> list[dict[str, Any]]:
    """The photos of the grid with this key."""
    grids = [json.loads(grid.proto.json) for grid in at.get("bidi_component") if key in grid.proto.id]
    assert len(grids) == 1
    photos: list[dict[str, Any]] = grids[0]["photos"]
    return photos


@pytest.mark.parametrize("page", TITLES)
def test_an_empty_library_says_what_to_do_first(empty: Path, page: str) -> None:
    at = open_page(page)
    assert [title.value for title in at.title] == [TITLES[page]]
    if page == "../pages/plugins.py":
        assert "Colour" in words(at)
    else:
        assert "folder" in words(at)
        assert "Add a folder" in [b.label for b in at.button] or at.text_input(key="vs_folder")
    assert not empty.exists()


@pytest.mark.parametrize("page", TITLES)
def test_each_page_has_its_title(opened: Library, page: str) -> None:
    assert [title.value for title in open_page(page).title] == [TITLES[page]]


@pytest.mark.parametrize("page", [*TITLES, "../pages/training.py"])
def test_no_string_of_a_script_is_shown_on_its_page(opened: Library, page: str) -> None:
    """Streamlit shows a lone string in a script as Markdown."""
    assert not open_page(page).markdown


def test_search_offers_an_upload_and_the_librarys_photos(opened: Library) -> None:
    at = open_page("../pages/search.py")
    assert len(at.get("file_uploader")) == 1
    assert {tile["id"] for tile in tiles(at, "vs_browse")} == {photo.photo_id for photo in opened.photos()}


def test_a_photo_in_the_address_is_searched_by(opened: Library) -> None:
    photo = next(p for p in opened.photos() if p.path.endswith("chelsea.jpg"))
    at = open_page("../pages/search.py", photo=str(photo.photo_id), k="12")
    found = tiles(at, "vs_hits")
    assert [tile["id"] for tile in found] == [
        h.photo.photo_id for h in opened.similar(photo.photo_id, k=12).hits
    ]
    assert found[0]["name"] == "chelsea-crop.jpg"
    assert photo.photo_id not in [tile["id"] for tile in found]
    scores = [float(tile["note"]) for tile in found]
    assert scores == sorted(scores, reverse=True)
    assert "chelsea.jpg" in words(at)


def test_an_upload_in_the_address_is_searched_by(opened: Library, real_photos: dict[str, Path]) -> None:
    token = uploads.add("my cat.png", real_photos["chelsea"].read_bytes())
    at = open_page("../pages/search.py", upload=token)
    assert tiles(at, "vs_hits")[0]["name"] in ("chelsea.jpg", "chelsea-crop.jpg")
    assert "my cat.png" in words(at)


def test_a_screenshot_is_found_and_the_page_says_how(opened: Library, small: Any) -> None:
    with Image.open(small.photos / "coffee.jpg") as image:
        screen = phone_screenshot(image)
    data = BytesIO()
    screen.save(data, "PNG")
    at = open_page("../pages/search.py", upload=uploads.add("screen.png", data.getvalue()))
    assert tiles(at, "vs_hits")[0]["name"] == "coffee.jpg"
    assert "The best fit is the picture without its borders." in words(at)


def test_the_page_shows_the_photo_that_an_upload_is_a_part_of(
    opened: Library, real_photos: dict[str, Path]
) -> None:
    data = BytesIO()
    Image.open(real_photos["china"]).crop((100, 100, 400, 300)).save(data, "PNG")
    at = open_page("../pages/search.py", upload=uploads.add("detail.png", data.getvalue()))
    (whole,) = tiles(at, "vs_whole")
    assert whole["name"] == "china.jpg"
    assert "The picture is a part of this photo" in words(at)
    assert len(tiles(at, "vs_hits")) > 1


def test_a_line_says_where_photos_are_no_longer_alike(opened_copy: Library) -> None:
    photo = opened_copy.photos()[0]
    scores = [hit.score for hit in opened_copy.similar(photo.photo_id, k=13).hits]
    assert not any(
        "line" in tile
        for tile in tiles(open_page("../pages/search.py", photo=str(photo.photo_id)), "vs_hits")
    )
    width = opened_copy.spaces()[0].dimension
    calibration = ScoreCalibration(scores[0], (scores[3] + scores[4]) / 2, 200)
    opened_copy.derive_space(Projection([np.eye(width)], [np.zeros(width)], "head", calibration=calibration))
    at = open_page("../pages/search.py", photo=str(photo.photo_id))
    lines = [tile.get("line") for tile in tiles(at, "vs_hits")]
    assert lines[4] == "From here on no longer alike"
    assert len([line for line in lines if line]) == 1
    at.selectbox(key="vs_alike").set_value("alike").run()
    assert len(tiles(at, "vs_hits")) == 4
    at.selectbox(key="vs_alike").set_value("same").run()
    assert len(tiles(at, "vs_hits")) == 1
    at.button(key="vs_clear").click().run()
    assert len(tiles(at, "vs_hits")) == len(lines)


def test_a_space_that_covers_a_part_of_the_library_is_named_so(
    opened_copy: Library, write_photo: Any
) -> None:
    photo = opened_copy.photos()[0].photo_id
    assert "photos are searched" not in words(open_page("../pages/search.py", photo=str(photo)))
    folder = opened_copy.folder.parent / "only in the other space"
    write_photo(folder / "new.jpg", 77)
    with Library.open(opened_copy.folder, embedder="color_layout", decode="exact") as exact:
        exact.index(folder)
    assert "photos are searched; to bring the rest: vitmae-search index" in words(
        open_page("../pages/search.py", photo=str(photo))
    )


def test_a_folder_is_forgotten_once_that_is_confirmed(opened_copy: Library, small: Any) -> None:
    at = open_page("../pages/library.py")
    (root,) = opened_copy.status().roots
    at.button(key=f"vs_forget_{root.root_id}").click().run()
    assert "14 photos and what is known of them" in words(at)
    assert opened_copy.count_photos() == 14
    at.button(key="vs_forget_yes").click().run()
    assert not at.exception
    assert f"{small.photos} is forgotten, with 14 photos." in words(at)
    assert opened_copy.status().roots == ()
    assert opened_copy.count_photos() == 0
    assert (small.photos / "china.jpg").is_file()


def test_a_folder_that_cannot_be_forgotten_now_says_why(opened_copy: Library) -> None:
    at = open_page("../pages/library.py")
    (root,) = opened_copy.status().roots
    at.button(key=f"vs_forget_{root.root_id}").click().run()
    with CatalogWriter.open_writer(opened_copy.folder):
        at.button(key="vs_forget_yes").click().run()
    assert not at.exception
    assert 'role="alert"' in " ".join(str(block.proto.body) for block in at.get("html"))
    assert opened_copy.count_photos() == 14


def test_results_can_be_paged_through(opened: Library) -> None:
    first, second = (
        open_page("../pages/search.py", photo="1", k="12"),
        open_page("../pages/search.py", photo="1", k="12", page="2"),
    )
    ids = [tile["id"] for at in (first, second) for tile in tiles(at, "vs_hits")]
    assert len(ids) == len(set(ids)) == opened.count_photos() - 1


def test_filters_narrow_the_results(opened: Library) -> None:
    at = open_page("../pages/search.py", photo="1")
    at.text_input(key="vs_under").set_value("/nowhere").run()
    assert not [grid for grid in at.get("bidi_component") if "vs_hits" in grid.proto.id]
    assert "The library has no photo in a folder /nowhere" in words(at)
    at.button(key="vs_clear").click().run()
    assert len(tiles(at, "vs_hits")) == opened.count_photos() - 1


@pytest.mark.parametrize("page", ["../pages/search.py", "../pages/reconstructions.py"])
@pytest.mark.parametrize("query", [{"photo": "999"}, {"photo": "x"}, {"photo": "9" * 40}, {"upload": "gone"}])
def test_a_stale_address_says_so_and_lets_choose_again(
    opened: Library, page: str, query: dict[str, str]
) -> None:
    at = open_page(page, **query)
    assert "Choose" in words(at)
    assert len(at.get("file_uploader")) == 1


@pytest.mark.parametrize(
    "query", [{"k": "13"}, {"k": "x"}, {"page": "0"}, {"page": "-3"}, {"sort": "random"}]
)
def test_nonsense_in_the_address_is_harmless(opened: Library, query: dict[str, str]) -> None:
    open_page("../pages/search.py", **query)
    open_page("../pages/search.py", photo="1", **query)


def test_a_damaged_upload_is_one_sentence(opened: Library, real_photos: dict[str, Path]) -> None:
    token = uploads.add("half.jpg", real_photos["rocket"].read_bytes()[:2000])
    at = open_page("../pages/search.py", upload=token)
    assert 'role="alert"' in " ".join(str(block.proto.body) for block in at.get("html"))
    assert "Traceback" not in words(at)
    assert at.button(key="vs_new")


def test_the_library_page_counts_and_lists(opened: Library) -> None:
    at = open_page("../pages/library.py")
    status = opened.status()
    assert {m.label: m.value for m in at.metric} == {
        "Photos": str(status.photos),
        "Different pictures": str(status.contents),
        "Missing": "0",
        "Failed": "1",
    }
    text = words(at)
    assert status.roots[0].path in text
    assert opened.failures()[0].reason in text
    assert "color_layout" in text


def test_a_folder_that_is_not_there_is_refused_in_words(opened: Library) -> None:
    at = open_page("../pages/library.py")
    at.text_input(key="vs_folder").set_value("/no/such <b>folder</b>")
    next(b for b in at.button if b.label == "Index this folder").click().run()
    assert "/no/such <b>folder</b> is not a folder" in words(at)


def test_plugins_are_listed_with_options_and_errors(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own plugins"
    folder.mkdir()
    (folder / "half_baked.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.setenv("VITMAE_SEARCH_PLUGINS", str(folder))
    text = words(open_page("../pages/plugins.py"))
    assert "half_baked" in text
    assert "does not load" in text
    assert "no_such_module_anywhere" in text
    for listing in library().plugins():
        assert listing.name in text
        assert all(option in text for option in listing.options)


def test_no_name_reaches_a_widget_that_reads_markdown(opened: Library) -> None:
    """Markdown fetches pictures; names belong into HTML, escaped, and into the grid's data."""
    pages = [open_page(page) for page in TITLES]
    hostile = next(p for p in opened.photos() if "onerror" in p.path)
    pages += [open_page(page, photo=str(hostile.photo_id)) for page in ("../pages/search.py",)]
    for at in pages:
        blocks = [str(block.proto.body) for block in at.get("html")]
        assert not any("<img src=x" in block for block in blocks)
        for kind in ("markdown", "caption", "error", "warning", "info", "success", "table", "toast"):
            assert not any("onerror" in str(found.proto) for found in at.get(kind))
        for widget in (*at.button, *at.text_input, *at.selectbox, *at.metric):
            assert "onerror" not in widget.label
    assert os.path.basename(hostile.path) in [tile["name"] for tile in tiles(pages[0], "vs_browse")]


@pytest.fixture
def two_spaces(tmp_path: Path, write_photo: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """Three photos, embedded in two ways; one file that cannot be used."""
    photos = tmp_path / "photos"
    for seed in range(3):
        write_photo(photos / f"{seed}.jpg", seed)
    (photos / "broken.jpg").write_bytes(b"not a picture")
    for options in ({}, {"histogram": "false"}):
        with Library.open(tmp_path / "library", embedder="color_layout", options=options) as made:
            made.index([photos])
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    yield library()
    close_libraries()


def test_another_space_can_be_used_and_dropped(two_spaces: Library) -> None:
    first, second = two_spaces.spaces()
    at = open_page("../pages/library.py")
    at.button(key=f"vs_use_{second.space_id}").click().run()
    assert [space.current for space in two_spaces.spaces()] == [False, True]
    assert f"Searches now use space {second.space_id}." in words(at)
    at.button(key=f"vs_drop_{first.space_id}").click().run()
    assert len(two_spaces.spaces()) == 2
    at.button(key="vs_drop_yes").click().run()
    assert [space.space_id for space in two_spaces.spaces()] == [second.space_id]
    assert two_spaces.count_photos() == 3


def test_failed_files_can_be_tried_again(two_spaces: Library, write_photo: Any) -> None:
    at = open_page("../pages/library.py")
    root = two_spaces.status().roots[0]
    at.button(key=f"vs_retry_{root.root_id}").click().run()
    assert not at.exception
    newest = two_spaces.jobs(1)[0]
    assert newest.arguments


def test_a_busy_library_is_reported_on_the_page(two_spaces: Library) -> None:
    second = two_spaces.spaces()[1]
    at = open_page("../pages/library.py")
    with CatalogWriter.open_writer(two_spaces.folder):
        at.button(key=f"vs_use_{second.space_id}").click().run()
        assert not at.exception
        assert str(os.getpid()) in words(at)
    assert not two_spaces.spaces()[1].current


@pytest.mark.parametrize("page", ["../pages/search.py", "../pages/reconstructions.py", "../pages/library.py"])
def test_a_damaged_library_is_a_sentence_on_every_page(empty: Path, page: str) -> None:
    empty.mkdir()
    (empty / "catalogue.sqlite3").write_bytes(b"this is no database, whatever its name may say" * 100)
    at = open_page(page)
    assert [title.value for title in at.title] == [TITLES[page]]
    assert 'role="alert"' in " ".join(str(block.proto.body) for block in at.get("html"))
    assert "catalogue.sqlite3" in words(at)


def test_a_library_of_samples_shows_the_banner(opened: Library, small: Any) -> None:
    assert "sample photos" not in words(open_page("../pages/search.py"))
    marker = small.photos / MARKER
    marker.write_text("samples")
    try:
        at = open_page("../pages/search.py")
        assert "These are sample photos" in words(at)
        assert at.button(key="vs_own")
    finally:
        marker.unlink()


def test_models_are_listed_with_what_they_have(empty: Path, colour_model: Path, tmp_path: Path) -> None:
    run = shutil.copytree(colour_model, tmp_path / "run <b>![x](y)")
    remember_run(run)
    store_speed(next(model for model in library().models() if model.path == str(run)), 43.21, "cpu, fp32")
    text = words(open_page("../pages/plugins.py"))
    ours = text.split(f'{run} <span class="vs-badge">trained here</span>')[1].split("A classifier, for")[0]
    for fact in ("32 × 32 pixels", "32 numbers a photo", "no decoder", " kB", "43 images/s"):
        assert fact in ours, fact
    base = text.split('facebook/vit-mae-base <span class="vs-badge">on the hub')[1].split("facebook/")[0]
    assert "224 × 224 pixels · 768 numbers a photo · 111.9 M parameters · 448 MB · with a decoder" in base
