"""The app in a real Chromium, started both ways. Waits are for what a person would see."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.embedding import Projection
from vitmae_search.library import Library
from vitmae_search.photos.views import phone_screenshot
from vitmae_search.records import ScoreCalibration

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

StartServer = Callable[..., Any]


class Visitor:
    """One browser window, and the addresses that it requested."""

    def __init__(self, chromium: Any, url: str, **options: Any) -> None:
        self.context = chromium.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.url = url
        self.requested: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.on("dialog", self._dialog)
        self.page.on("websocket", lambda socket: self.requested.append(socket.url))

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def go(self, path: str = "/") -> Any:
        self.page.goto(self.url + path)
        expect(self.page.get_by_role("heading", level=1)).to_be_visible()
        return self.page

    @property
    def foreign(self) -> list[str]:
        """Requests to others than the app."""
        own = (self.url, self.url.replace("http", "ws"), "data:", "blob:" + self.url)
        return [url for url in self.requested if not url.startswith(own)]


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:
    """Open a browser window on a server."""
    visitors: list[Visitor] = []

    def open_window(url: str, **options: Any) -> Visitor:
        visitors.append(Visitor(chromium, url, **options))
        return visitors[-1]

    yield open_window
    for visitor in visitors:
        visitor.context.close()


def query_name(page: Any) -> Any:
    return page.locator(".vs-name")


@pytest.mark.parametrize("how", ["streamlit", "command"])
def test_upload_results_more_like_this_reconstruction(
    how: str, small: Any, start_server: StartServer, visit: Visit
) -> None:
    window = visit(start_server(small.folder, how).url)
    page = window.go()
    page.locator('input[type="file"]').set_input_files(small.photos / "chelsea-crop.jpg")
    expect(query_name(page)).to_have_text("chelsea-crop.jpg")
    # The very file is in the library: it comes first, with score 1; then the photo that it was cut from.
    expect(page.get_by_role("button", name="chelsea-crop.jpg, rank 1, score 1.00")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile(r"^chelsea\.jpg, rank 2,"))).to_be_visible()

    page.get_by_role("button", name="chelsea.jpg, rank 2").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Details").click()
    expect(dialog.get_by_text(str(small.photos / "chelsea.jpg"))).to_be_visible()
    expect(dialog.get_by_role("img", name="chelsea.jpg")).to_have_js_property("complete", True)
    dialog.get_by_role("button", name="More like this").click()
    expect(query_name(page)).to_have_text("chelsea.jpg")
    expect(page.get_by_role("button", name="chelsea-crop.jpg, rank 1,")).to_be_visible()
    assert "photo=" in page.url

    page.go_back()
    expect(query_name(page)).to_have_text("chelsea-crop.jpg")
    page.go_forward()
    expect(query_name(page)).to_have_text("chelsea.jpg")

    page.get_by_role("button", name="chelsea-crop.jpg, rank 1").click()
    dialog.get_by_role("button", name="What the model sees").click()
    completed = page.get_by_role("img", name="The photo as the model completed it")
    expect(completed).to_be_visible()
    drawn = page.locator(".studio[data-guess]")
    expect(drawn).to_have_count(1)
    pixels = "canvas => canvas.toDataURL()"
    softened = completed.evaluate(pixels)
    with page.expect_response(lambda answer: "soften=0" in answer.url):
        page.get_by_label("Soften seams").click()
    page.wait_for_function(
        f"([canvas, before]) => ({pixels})(canvas) !== before", arg=[completed.element_handle(), softened]
    )
    expect(page.get_by_text("no brightness or contrast is borrowed")).to_be_visible()
    hidden = page.locator('.cell[aria-pressed="true"]')
    before = hidden.count()
    hidden.first.click()  # tap a square to show it
    expect(page.get_by_text("Painted", exact=True)).to_be_visible()
    expect(hidden).to_have_count(before - 1)
    with page.expect_download() as download:
        page.get_by_role("link", name="All panels in one").click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    assert window.foreign == []
    assert window.dialogs == []


def test_a_screenshot_a_detail_and_the_line_where_photos_are_no_longer_alike(
    small: Any, start_server: StartServer, visit: Visit, tmp_path: Path
) -> None:
    folder = tmp_path / "library"
    shutil.copytree(small.folder, folder)
    with Library.open(folder) as library:
        width = library.spaces()[0].dimension
        calibration = ScoreCalibration(0.97, 0.9, 200)
        library.derive_space(Projection([np.eye(width)], [np.zeros(width)], "head", calibration=calibration))
    with Image.open(small.photos / "coffee.jpg") as image:
        phone_screenshot(image).save(tmp_path / "screen.png")
    with Image.open(small.photos / "china.jpg") as image:
        image.crop((60, 60, 200, 160)).save(tmp_path / "detail.png")
    window = visit(start_server(folder).url)
    page = window.go()
    page.locator('input[type="file"]').set_input_files(tmp_path / "screen.png")
    expect(page.get_by_role("button", name="coffee.jpg, rank 1,")).to_be_visible()
    expect(page.get_by_text("The best fit is the picture without its borders.")).to_be_visible()
    expect(page.get_by_text("From here on no longer alike")).to_be_visible()
    page.get_by_role("button", name="New search").click()
    expect(
        page.get_by_text("Or start from one of yours")
    ).to_be_visible()  # or the file goes to the page before
    page.locator('input[type="file"]').set_input_files(tmp_path / "detail.png")
    expect(page.get_by_text("The picture is a part of this photo")).to_be_visible()
    whole = page.get_by_label("The photo that the picture is a part of")
    expect(whole.get_by_role("button", name=re.compile("^china.jpg, rank"))).to_be_visible()
    whole.get_by_role("button", name=re.compile("^china.jpg, rank")).click()
    expect(page.get_by_role("dialog").get_by_text("china.jpg")).to_be_visible()
    assert window.foreign == []


def test_a_hostile_name_is_text_everywhere(small: Any, start_server: StartServer, visit: Visit) -> None:
    window = visit(start_server(small.folder).url)
    with Library.open(small.folder) as library:
        hostile = next(photo for photo in library.photos() if "onerror" in photo.path)
    name = Path(hostile.path).name
    page = window.go()
    page.get_by_role("button", name=name, exact=True).click()
    expect(query_name(page)).to_have_text(name)
    page.get_by_role("button", name="rank 1,").first.click()
    page.keyboard.press("i")
    expect(page.get_by_role("dialog").get_by_text("Score")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="More like this").click()
    page.get_by_role("button", name=f"{name}, rank").click()
    expect(page.get_by_role("dialog").get_by_text(name, exact=True)).to_be_visible()
    expect(page.get_by_role("dialog").get_by_text(hostile.path)).to_be_visible()
    window.go(f"/reconstructions?photo={hostile.photo_id}")
    expect(query_name(page).or_(page.get_by_role("alert"))).to_be_visible()
    window.go("/library")
    page.get_by_role("textbox", name="Add another folder").fill(hostile.path)
    page.get_by_role("button", name="Index this folder").click()
    expect(page.get_by_role("alert")).to_contain_text("is not a folder")
    expect(page.get_by_text("broken <b>.jpg")).to_be_visible()
    assert window.foreign == []
    assert window.dialogs == []
    # The test can see it: a picture from elsewhere is noticed, and the policy keeps it from being fetched.
    page.evaluate("() => { new Image().src = 'http://127.0.0.1:9/p.png' }")
    assert window.foreign == ["http://127.0.0.1:9/p.png"]


def test_indexing_outlives_reload_and_is_seen_by_all(
    gated: Any, start_server: StartServer, visit: Visit
) -> None:
    server = start_server(gated.library, VITMAE_SEARCH_PLUGINS=str(gated.plugins))
    first, second = visit(server.url), visit(server.url)
    page = first.go("/library")
    page.get_by_role("textbox", name="Add another folder").fill(str(gated.waiting))
    page.get_by_role("button", name="Index this folder").click()
    running = f"Indexing {gated.waiting}"
    expect(page.get_by_text(running)).to_be_visible()

    page.reload()
    expect(page.get_by_text(running)).to_be_visible()
    other = second.go("/library")
    expect(other.get_by_text(running)).to_be_visible()
    first.context.close()

    # The library is read while it is written.
    second.go()
    other.get_by_role("button", name="first.jpg", exact=True).click()
    expect(query_name(other)).to_have_text("first.jpg")

    second.go("/library")
    other.get_by_role("button", name="Cancel").click()
    expect(other.get_by_text("Stopping after this batch")).to_be_visible()
    wait_until_cancel_is_heard(gated.library)
    gated.gate.touch()
    expect(other.get_by_role("button", name="Cancel")).to_be_hidden()
    other.get_by_text("Recent runs").click()
    expect(other.get_by_text("cancelled, finished photos kept")).to_be_visible()
    with Library.open(gated.library, plugin_folders=[gated.plugins]) as library:
        assert 1 < library.count_photos() < 81
        # To index again is to resume.
        library.index([gated.waiting])
        assert library.count_photos() == 81


def test_a_phone_with_a_dark_theme(small: Any, start_server: StartServer, visit: Visit) -> None:
    window = visit(
        start_server(small.folder).url,
        viewport={"width": 390, "height": 844},
        color_scheme="dark",
        has_touch=True,
        is_mobile=True,
    )
    for path in ("/", "/?photo=1", "/library", "/training", "/plugins"):
        page = window.go(path)
        expect(page.locator('[data-testid="stApp"]')).to_have_attribute(
            "data-test-script-state", "notRunning"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    assert max(int(channel) for channel in re.findall(r"\d+", background)[:3]) < 60


def wait_until_cancel_is_heard(folder: Path, catalog: str | None = None) -> None:
    """A job that waits for the gate writes to its row because it heard the request."""
    deadline = time.monotonic() + 60
    with Library.open(folder, catalog=catalog) as library:
        while True:
            job = library.jobs()[0]
            if job.cancel_requested_at is not None and job.heartbeat_at > job.cancel_requested_at:
                return
            assert time.monotonic() < deadline
            time.sleep(0.05)


BROKEN_APP = """
import streamlit as st

from vitmae_search.web.server import app as server

app = st.App("broken.py", middleware=server.middleware(), on_script_error=server.on_script_error)
"""


def test_a_defect_is_one_sentence_and_its_traceback_goes_to_the_terminal(
    tmp_path: Path, start_server: StartServer, visit: Visit
) -> None:
    (tmp_path / "broken.py").write_text("import streamlit as st\nst.title('Broken')\nsecret = {}['s3cr3t']\n")
    (tmp_path / "app.py").write_text(BROKEN_APP)
    server = start_server(tmp_path / "library", app=tmp_path / "app.py")
    page = visit(server.url).go()
    expect(page.get_by_role("alert")).to_contain_text("Something went wrong on this page.")
    assert "s3cr3t" not in page.content()
    assert "KeyError: 's3cr3t'" in server.log.read_text()


def test_from_nothing_to_a_search(
    tmp_path: Path, small: Any, start_server: StartServer, visit: Visit
) -> None:
    page = visit(start_server(tmp_path / "library").url).go()
    page.get_by_role("button", name="Add a folder").click()
    page.get_by_role("textbox", name="Folder of photos").fill(str(small.photos))
    page.get_by_role("button", name="Index this folder").click()
    expect(page.get_by_role("status").get_by_text("is done, 14 added, 1 failed")).to_be_visible(
        timeout=90_000
    )
    expect(page.get_by_role("textbox", name="Add another folder")).to_have_value("")
    page.get_by_role("link", name="Search").click()
    page.get_by_role("button", name="flower.jpg", exact=True).click()
    expect(query_name(page)).to_have_text("flower.jpg")
    expect(page.get_by_role("button", name=re.compile(r"^flower-crop\.jpg, rank 1,"))).to_be_visible()


@pytest.mark.parametrize("path", ["/reconstructions", "/library", "/plugins"])
def test_the_first_visit_to_a_server_may_be_to_any_page(
    small: Any, start_server: StartServer, visit: Visit, path: str
) -> None:
    """A bookmark is opened before anybody has been at `/`."""
    page = visit(start_server(small.folder).url).go(path)
    expect(page.get_by_test_id("stTopNavLink").filter(has_text="Reconstructions")).to_be_visible()
    expect(page.get_by_test_id("stSidebar")).to_have_count(0)
