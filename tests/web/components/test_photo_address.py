"""An address of a photo means this photo of this library, or says that it does not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_page
from vitmae_search.library import Library
from vitmae_search.web.components.query_picker import FOREIGN

PAGES = ("../pages/search.py", "../pages/reconstructions.py")


def said(at: AppTest) -> str:
    return " ".join(str(block.proto.body) for block in at.get("html"))


@pytest.fixture
def other(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Iterator[str]:
    """The identity of another library, whose photo 1 is another one."""
    write_photo(tmp_path / "other photos" / "another.jpg", 7)
    with Library.open(tmp_path / "other", embedder="color_layout") as library:
        library.index([tmp_path / "other photos"])
        assert library.identity
        yield library.identity


@pytest.mark.parametrize("page", PAGES)
def test_an_address_of_another_library_says_so_and_shows_no_photo(
    opened: Library, other: str, page: str
) -> None:
    photo = opened.photos()[0]
    assert opened.identity
    assert opened.identity != other
    at = open_page(page, photo=str(photo.photo_id), library=other)
    assert FOREIGN in said(at)
    assert 'class="vs-query"' not in said(at)
    assert not any("vs_hits" in grid.proto.id for grid in at.get("bidi_component"))


def test_the_app_names_its_library_in_the_addresses_that_it_makes(opened: Library) -> None:
    photo = opened.photos()[0]
    at = open_page(PAGES[0], photo=str(photo.photo_id), library=opened.identity or "")
    assert FOREIGN not in said(at)
    assert 'class="vs-query"' in said(at)
    # An address that somebody typed means this library.
    assert 'class="vs-query"' in said(open_page(PAGES[0], photo=str(photo.photo_id)))


def test_an_address_outlives_further_indexing_but_not_a_lost_history(
    tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "library"
    write_photo(photos / "1.jpg", 1)
    with Library.open(folder, embedder="color_layout") as library:
        assert library.identity is None
        library.index([photos])
        first = library.identity or ""
    shutil.copytree(folder, tmp_path / "backup")
    write_photo(photos / "2.jpg", 2)
    with Library.open(folder, embedder="color_layout") as library:
        library.index([photos])
        lost = library.identity or ""
        assert library.has_identity(first)
        assert library.has_identity(lost)
        assert not any(map(library.has_identity, ("", first[:2], "%" * 8, "zzzzzzzz")))
    shutil.rmtree(folder)
    (tmp_path / "backup").rename(folder)
    (photos / "2.jpg").unlink()
    write_photo(photos / "3.jpg", 3)
    with Library.open(folder, embedder="color_layout") as library:
        library.index([photos])
        # The id that 2.jpg had is 3.jpg's now.
        assert library.has_identity(first)
        assert not library.has_identity(lost)


@pytest.mark.parametrize("kind", ["photo", "thumb", "details"])
def test_a_picture_of_another_library_is_not_found(opened: Library, other: str, kind: str) -> None:
    from starlette.applications import Starlette

    from vitmae_search.web.server.app import routes

    client = TestClient(Starlette(routes=routes()))
    address = f"/{kind}/{opened.photos()[0].photo_id}"
    assert client.get(f"{address}?library={opened.identity}").status_code == 200
    answer = client.get(f"{address}?library={other}")
    assert (answer.status_code, answer.text) == (404, "This address is of a photo in another library.")


def test_pictures_are_addressed_relative_to_the_page(opened: Library) -> None:
    """A proxy may serve the app under a path."""
    photo = opened.photos()[0]
    at = open_page(PAGES[0], photo=str(photo.photo_id))
    grids = " ".join(str(grid.proto.json) for grid in at.get("bidi_component"))
    found = re.findall(r"""["']([^"' ]*(?:thumb|photo)/[0-9]+[^"' ]*)["']""", said(at) + grids)
    assert len(found) > 5
    assert all(address.startswith(("thumb/", "photo/")) for address in found)


@pytest.mark.browser
def test_pictures_load_where_the_app_is_under_a_path(
    small: Any, start_server: Callable[..., Any], chromium: Any
) -> None:
    server = start_server(small.folder, flags=["--server.baseUrlPath=photos"], base="/photos")
    page = chromium.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"{server.url}/")
    page.get_by_role("button", name="flower.jpg", exact=True).click()
    hit = page.get_by_role("button", name=re.compile("^flower-crop.jpg, rank 1,"))
    hit.wait_for()
    assert re.search(r"/photos/\?photo=[0-9]+&library=[0-9a-f]{8}$", page.url)
    hit.click()
    large = page.get_by_role("dialog").get_by_role("img", name="flower-crop.jpg")
    for picture in (large, page.locator(".vs-query img"), hit.locator("img")):
        picture.evaluate("image => image.decode()")
        assert picture.evaluate("image => image.naturalWidth") > 0
    page.close()
