"""What the Library page does besides indexing: paths, missing photos, watching, and what was skipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from tests.helpers.app_pages import open_page
from vitmae_search.library import Library

PAGE = "../pages/library.py"


def words(at: AppTest) -> str:
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


@pytest.fixture
def moved(opened_copy: Library, tmp_path: Path) -> Path:
    """A folder of two photos that was indexed, and renamed since."""
    for number in range(2):
        path = tmp_path / "drive" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (90 * number, 40, 200)).save(path)
    opened_copy.index(tmp_path / "drive")
    return (tmp_path / "drive").rename(tmp_path / "other drive")


def root_of(library: Library, name: str) -> int:
    return next(root.root_id for root in library.status().roots if root.path.endswith(name))


def test_a_folder_gets_another_path(opened_copy: Library, moved: Path) -> None:
    at = open_page(PAGE)
    at.button(key=f"vs_relocate_{root_of(opened_copy, '/drive')}").click().run()
    at.text_input(key="vs_relocate_to").set_value(str(moved))
    at.button(key="vs_relocate_yes").click().run()
    assert f"2 photos of {moved.parent}/drive are in {moved} now." in words(at)
    assert root_of(opened_copy, "/other drive")


@pytest.mark.parametrize(
    ("typed", "says"), [("", "is not a full path"), ("/nowhere/at/all", "is not a folder")]
)
def test_a_path_that_cannot_be_is_refused(opened_copy: Library, moved: Path, typed: str, says: str) -> None:
    at = open_page(PAGE)
    at.button(key=f"vs_relocate_{root_of(opened_copy, '/drive')}").click().run()
    at.text_input(key="vs_relocate_to").set_value(typed)
    at.button(key="vs_relocate_yes").click().run()
    assert says in words(at)
    assert root_of(opened_copy, "/drive")


def test_missing_photos_are_removed_once_that_is_confirmed(opened_copy: Library, tmp_path: Path) -> None:
    assert not [button for button in open_page(PAGE).button if button.key == "vs_prune"]
    for name in ("gone.png", "here.png"):
        path = tmp_path / "some" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (len(name), 40, 200)).save(path)
    opened_copy.index(tmp_path / "some")
    (tmp_path / "some" / "gone.png").unlink()
    opened_copy.index(tmp_path / "some")
    at = open_page(PAGE)
    at.button(key="vs_prune").click().run()
    assert "1 photo, gone from disk, leaves the library" in words(at)
    assert opened_copy.status().missing == 1
    (tmp_path / "some" / "here.png").unlink()
    opened_copy.index(tmp_path / "some")  # by somebody else, who has moved the folder, perhaps
    at.button(key="vs_prune_yes").click().run()
    assert "Nothing was removed: 2 photos are missing now, not 1." in words(at)
    assert opened_copy.status().missing == 2
    Image.new("RGB", (40, 30), (8, 40, 200)).save(tmp_path / "some" / "here.png")
    opened_copy.index(tmp_path / "some")
    at = open_page(PAGE)
    at.button(key="vs_prune").click().run()
    at.button(key="vs_prune_yes").click().run()
    assert "1 photo left the library." in words(at)
    assert opened_copy.status().missing == 0


def test_what_was_skipped_is_listed_with_the_reasons(opened_copy: Library, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    (folder / "@eaDir").mkdir(parents=True)
    (folder / "notes.txt").write_text("x")
    (folder / "bad <i>.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (40, 30)).save(folder / "@eaDir" / "copy.jpg")
    opened_copy.index(folder)
    said = words(open_page(PAGE))
    assert "Files that could not be used" in said
    assert "bad <i>.jpg" in said
    assert f"{folder}/@eaDir" in said
    assert "Files that are no photos" in said
    assert ".txt" in said


def test_a_folder_is_watched_until_it_is_stopped(
    opened_copy: Library, tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    pytest.importorskip("watchfiles")
    write_photo(tmp_path / "watched" / "1.jpg", 1)
    opened_copy.index(tmp_path / "watched")
    key = opened_copy.start_job("index", tmp_path / "watched", "--watch")
    try:
        write_photo(tmp_path / "watched" / "2.jpg", 2)
        wait_until(lambda: opened_copy.count_by("folder").get(str(tmp_path / "watched")) == 2)
        at = open_page(PAGE)
        assert f"Watching {tmp_path}/watched" in words(at)
        watch = f"vs_watch_{root_of(opened_copy, '/watched')}"
        assert at.button(key=watch).disabled
        forget = at.button(key=f"vs_forget_{root_of(opened_copy, '/watched')}")
        assert not forget.disabled  # the library is free while nothing changes
        at.button(key=f"vs_stop_{key}").click().run()
    finally:
        wait_until(lambda: ended(opened_copy, key))
    assert opened_copy.job(key).state == "done"
    assert opened_copy.job(key).report["added"] == 1
    assert not open_page(PAGE).button(key=watch).disabled


def ended(library: Library, key: str) -> Any:
    job = library.job(key)
    return job is None or job.state != "running"


def wait_until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.1)


@pytest.mark.parametrize("query", [{}, {"photo": "1"}])
def test_photos_and_hits_can_be_exported(opened_copy: Library, query: dict[str, str]) -> None:
    at = open_page("../pages/search.py" if query else "../pages/browse.py", **query)
    (button,) = at.get("download_button")
    assert button.proto.label == "Download"
    assert not at.checkbox(key="vs_export_places").value
