"""The reconstruction studio: what its script asks of the server, and painting by mouse, touch and keys."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.helpers.app_pages import open_page
from tests.library.test_named_models import make_model
from vitmae_search.inspection.masks import fit_mask, mask_text, pattern_mask, read_mask
from vitmae_search.library import Library
from vitmae_search.library.previews import can_decode_raw
from vitmae_search.records import Reconstruction
from vitmae_search.web.components.model_choice import last_written
from vitmae_search.web.server import session
from vitmae_search.web.server.reconstruction_routes import reconstruction_routes

PAGE = "../pages/reconstructions.py"
PAINTED = "8x8-ff000000000000ff"


@pytest.fixture(scope="module")
def folder(real_photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of two photos that are not square, in the bundled model's space."""
    base = tmp_path_factory.mktemp("studio")
    (base / "photos").mkdir()
    for name in ("coffee", "chelsea"):
        with Image.open(real_photos[name]) as picture:
            picture.convert("RGB").resize((240, 160)).save(base / "photos" / f"{name}.png")
    with Library.open(base / "library") as library:
        library.index(base / "photos")
    return base / "library"


@pytest.fixture
def ids(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The ids of its photos, by name; it is the app's own library."""
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(folder))
    yield {Path(photo.path).stem: photo.photo_id for photo in session.library().photos()}
    session.close_libraries()


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=list(reconstruction_routes()))) as opened:
        yield opened


def decode(data: bytes, side: int = 64) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """The header, and the completed picture and the guess one above the other."""
    (length,) = struct.unpack_from("<I", data)
    return json.loads(data[4 : 4 + length]), np.frombuffer(data, np.uint8, offset=4 + length).reshape(
        2, side, side, 3
    )


def same(found: dict[str, Any], made: Reconstruction) -> bool:
    close = np.allclose(found["errors"], made.error.ravel(), rtol=1e-4)
    return (
        close
        and found["mask"] == mask_text(made.mask)
        and found["loss"] == pytest.approx(made.loss, rel=1e-5)
    )


def test_a_guess_is_what_the_library_reconstructs(ids: dict[str, int], client: TestClient) -> None:
    photo = ids["coffee"]
    for asked, options in (
        ("ratio=50&seed=3", {"mask_ratio": 0.5, "seed": 3}),
        (f"mask={PAINTED}&ratio=50", {"mask": read_mask(PAINTED)}),
        ("pattern=block&ratio=40", {"mask": pattern_mask("block", (8, 8), 0.4)}),
        ("mask=2x2-c", {"mask": np.arange(64).reshape(8, 8) < 32}),
        ("ratio=x&seed=-1&pattern=stripes&mask=8x8-0", {}),
    ):
        made = session.library().reconstruct(photo, **options)  # type: ignore[arg-type]
        found, pictures = decode(client.get(f"/reconstruction/guess?photo={photo}&soften=0&{asked}").content)
        assert same(found, made), asked
        assert np.array_equal(pictures, [made.pasted, made.reconstruction]), asked


def test_an_upload_is_guessed_too_and_what_is_not_there_is_not(
    ids: dict[str, int], client: TestClient, real_photos: dict[str, Path]
) -> None:
    data = real_photos["chelsea"].read_bytes()
    token = session.uploads.add("cat.png", data)
    found, _ = decode(client.get(f"/reconstruction/guess?upload={token}").content)
    assert same(found, session.library().reconstruct(data))
    for asked in ("", "photo=999", "upload=x", "photo=x", f"photo={ids['coffee']}&library=other"):
        assert client.get(f"/reconstruction/guess?{asked}").status_code == 404


def test_two_models_are_given_the_same_squares(
    ids: dict[str, int], client: TestClient, tmp_path: Path
) -> None:
    model = str(make_model(tmp_path / "mine"))
    shown = studio(open_page(PAGE, photo=str(ids["coffee"]), mask="2x2-a", second=model))
    assert [each["name"] for each in shown["models"]] == ["the library's model", "mine"]
    assert [each["rows"] for each in shown["models"]] == [8, 3]
    parameters = shown["models"][1]["parameters"]
    found, _ = decode(client.get(f"/reconstruction/guess?{parameters}&mask=2x2-a").content, 48)
    mask = fit_mask(read_mask("2x2-a"), (3, 3))
    made = session.library().reconstruct(ids["coffee"], mask=mask, model=model)
    assert same(found, made)
    assert client.get(f"/reconstruction/guess?photo={ids['coffee']}&model=facebook/x").status_code == 404


def test_it_is_said_whose_contrast_guesses_have(ids: dict[str, int]) -> None:
    made = session.library().reconstruct(ids["coffee"], mask=read_mask(PAINTED))
    assert "no brightness or contrast is borrowed" in made.statistics_text
    assert "visible patches nearby" in replace(made, statistics="visible").statistics_text
    hidden = made.mask.repeat(8, axis=0).repeat(8, axis=1)
    off = np.abs(made.reconstruction[hidden].astype(int) - made.original[hidden]).mean()
    assert made.level_error == pytest.approx(off)
    assert session.library().reconstruct(ids["coffee"], mask_ratio=0).level_error is None


def test_what_is_downloaded_is_what_is_shown(ids: dict[str, int], client: TestClient) -> None:
    asked = f"photo={ids['coffee']}&mask={PAINTED}"
    made = session.library().reconstruct(ids["coffee"], mask=read_mask(PAINTED))
    sizes = {}
    for panel in ("completed", "seen", "original", "guessed", "errors", "sheet"):
        answer = client.get(f"/reconstruction/{panel}.png?{asked}")
        with Image.open(BytesIO(answer.content)) as picture:
            sizes[panel] = picture.size
        assert f'filename="reconstruction-painted-{panel}.png"' in answer.headers["content-disposition"]
    assert sizes["completed"][0] == pytest.approx(1.5 * sizes["completed"][1], rel=0.01)
    assert sizes["seen"] == (256, 256)
    numbers = client.get(f"/reconstruction/numbers.json?{asked}").json()
    assert np.allclose(numbers["error"], made.error, rtol=1e-4)
    assert (numbers["mask_text"], numbers["statistics"]) == (PAINTED, "none")
    assert numbers["level_error"] == pytest.approx(made.level_error)
    table = client.get(f"/reconstruction/numbers.csv?{asked}").text.splitlines()
    assert (len(table), table[0], table[1][:6]) == (65, "row,column,hidden,error", "0,0,1,")
    with Image.open(BytesIO(client.get(f"/reconstruction/sweep.gif?{asked}").content)) as animation:
        assert animation.n_frames == 36
        animation.seek(4)  # a quarter: the squares that were painted
        seen = np.asarray(animation.convert("RGB"))[:, :256]
    assert (seen[16::32, 16::32] == 128).all(axis=2).tolist() == read_mask(PAINTED).tolist()
    assert client.get(f"/reconstruction/other.png?{asked}").status_code == 404


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ("Ever more hidden", "go first"),
        ("Where it is unsure", "are always hidden, and each time half of the others"),
        ("What matters", "the guess of the squares that you painted"),
        ("Again and again", "are hidden first"),
    ],
)
def test_the_views_of_many_take_what_was_painted(ids: dict[str, int], view: str, said: str) -> None:
    at = open_page(PAGE, photo=str(ids["coffee"]), view=view, mask=PAINTED)
    text = " ".join(str(block.proto.body) for block in at.get("html"))
    assert said in text
    assert "vs-figure" in text
    other = open_page(PAGE, photo=str(ids["coffee"]), view=view, mask="8x8-000000000000000f", seed="1")
    assert pictures(other) != pictures(at)
    assert {button.label for button in at.get("download_button")} >= {"JSON", "CSV", "Download as PNG"}


def pictures(at: Any) -> list[str]:
    return re.findall('src="data:[^"]*"', " ".join(str(block.proto.body) for block in at.get("html")))


def studio(at: Any) -> dict[str, Any]:
    (found,) = (
        json.loads(each.proto.json) for each in at.get("bidi_component") if "vs_studio" in each.proto.id
    )
    return dict(found)


def test_the_page_shows_what_the_address_says(ids: dict[str, int]) -> None:
    shown = studio(open_page(PAGE, photo=str(ids["coffee"]), mask=PAINTED))
    assert (sum(shown["mask"]), shown["live"]) == (16, True)
    (model,) = shown["models"]
    assert (model["rows"], model["aspect"], model["parameters"][:6]) == (8, 1.5, "photo=")
    assert "no brightness or contrast is borrowed" in model["statistics"]


def test_the_next_picture_has_the_same_mask(ids: dict[str, int]) -> None:
    at = open_page(PAGE, photo=str(ids["coffee"]), mask=PAINTED, view="What matters")
    at.button(key="vs_new").click().run()
    assert "stay hidden in the next picture" in " ".join(str(block.proto.body) for block in at.get("html"))
    assert dict(at.query_params) == {"mask": PAINTED, "view": "What matters"}


def test_addresses_of_guesses_name_the_library_of_an_upload_too(
    ids: dict[str, int], real_photos: dict[str, Path]
) -> None:
    token = session.uploads.add("cat.png", real_photos["chelsea"].read_bytes())
    (model,) = studio(open_page(PAGE, upload=token))["models"]
    assert f"library={session.library().identity}" in model["parameters"]


def test_what_cannot_be_guessed_is_told_with_what_to_do(ids: dict[str, int], client: TestClient) -> None:
    photo = f"photo={ids['coffee']}"
    for asked, status, said in (
        ("upload=x", 404, "Choose it again"),
        ("photo=999", 404, "Choose another one"),
        (f"{photo}&model=/nowhere", 404, "Choose another one"),
        (f"{photo}&model=/dev/null", 503, "/dev/null cannot be read: not a file."),
    ):
        answer = client.get(f"/reconstruction/guess?{asked}")
        assert (answer.status_code, said in answer.text) == (status, True), answer.text


def test_a_page_of_a_model_that_is_no_file_says_so(ids: dict[str, int]) -> None:
    at = open_page(PAGE, photo=str(ids["coffee"]), model="/dev/null")
    assert "/dev/null cannot be read" in " ".join(str(block.proto.body) for block in at.get("html"))


def test_a_line_in_the_log_of_a_training_makes_no_other_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "mine")
    before = last_written(str(model))
    for name in ("log.jsonl", "run.json", "loss.png"):
        (model / name).write_text("{}")
        os.utime(model / name, ns=(2**62, 2**62))
    (model / "gone.safetensors").symlink_to(tmp_path / "gone")  # as one that was renamed meanwhile
    assert last_written(str(model)) == before
    os.utime(model / "config.json", ns=(2**62, 2**62))
    assert last_written(str(model)) == str(2**62)


def test_it_is_said_what_may_be_uploaded(ids: dict[str, int]) -> None:
    before = st.get_option("server.maxUploadSize")
    st.config.set_option("server.maxUploadSize", 7)
    try:
        text = " ".join(str(block.proto.body) for block in open_page(PAGE).get("html"))
    finally:
        st.config.set_option("server.maxUploadSize", before)
    assert f"Any photo{', RAW included' if can_decode_raw() else ''}, up to 7 MB" in text


@pytest.mark.browser
def test_a_mask_is_painted_by_mouse_keyboard_and_touch(
    folder: Path, start_server: Callable[..., Any], chromium: Any
) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with Library.open(folder) as library:
        photo = library.photos()[0].photo_id
    url = start_server(folder).url
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    page.goto(f"{url}/reconstructions?photo={photo}&ratio=0")
    board, studio = page.locator(".board"), page.locator(".studio")
    expect(studio).to_have_attribute("data-guess", "8x8-" + 16 * "0")

    def drag(start: tuple[int, int], end: tuple[int, int]) -> None:
        box = board.bounding_box()
        for act, (row, column) in ((page.mouse.down, start), (page.mouse.up, end)):
            page.mouse.move(
                box["x"] + (column + 0.5) * box["width"] / 8, box["y"] + (row + 0.5) * box["height"] / 8
            )
            act()

    def shows(digits: str) -> None:
        """The squares, the guess and the address say this mask."""
        expect(studio).to_have_attribute("data-guess", f"8x8-{digits}")
        page.wait_for_url(lambda now: f"mask=8x8-{digits}" in now)
        pressed = board.locator(".cell").evaluate_all(
            "all => all.map(one => one.ariaPressed === 'true' ? 1 : 0)"
        )
        assert pressed == read_mask(f"8x8-{digits}").ravel().astype(int).tolist()

    drag((0, 0), (0, 7))  # a fast stroke leaves no gaps
    shows("ff00000000000000")
    page.get_by_role("button", name="Box", exact=True).click()
    drag((2, 0), (3, 3))
    shows("ff00f0f000000000")
    page.get_by_role("button", name="Eraser").click()
    drag((0, 4), (0, 7))
    shows("f000f0f000000000")
    page.get_by_role("button", name="Invert").click()
    shows("0fff0f0fffffffff")
    page.get_by_role("button", name="Only a box").click()
    drag((6, 6), (7, 7))
    shows("fffffffffffffcfc")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    shows("f000f0f000000000")
    page.get_by_role("button", name="Redo").click()
    shows("0fff0f0fffffffff")
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("button", name="Brush").click()
    page.get_by_role("button", name="Hide square 1, 1", exact=True).focus()
    for key in ("ArrowDown", "Space", "ArrowRight", "ArrowRight", "Enter", "Shift+ArrowDown"):
        page.keyboard.press(key)
    shows("00a0200000000000")

    page.reload()
    shows("00a0200000000000")
    page.get_by_text("Where it is unsure").click()
    expect(page.locator(".vs-figure")).to_be_visible()
    assert "mask=8x8-00a0200000000000" in page.url
    page.go_back()
    shows("00a0200000000000")
    page.close()

    phone = chromium.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone.set_default_timeout(30_000)
    phone.goto(f"{url}/reconstructions?photo={photo}&ratio=0")
    board, studio = phone.locator(".board"), phone.locator(".studio")
    expect(studio).to_have_attribute("data-guess", "8x8-" + 16 * "0")
    board.scroll_into_view_if_needed()
    box, touches = board.bounding_box(), phone.context.new_cdp_session(phone)
    for kind, row in (("touchStart", 0), ("touchMove", 3), ("touchMove", 7), ("touchEnd", None)):
        at = [] if row is None else [{"x": box["x"] + 5, "y": box["y"] + (row + 0.5) * box["height"] / 8}]
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    page = phone
    shows(8 * "80")
    assert phone.locator(".board").bounding_box() == box, "a finger that paints does not scroll"
    phone.close()


@pytest.mark.browser
def test_what_is_begun_or_waited_for_is_not_lost(
    folder: Path, start_server: Callable[..., Any], chromium: Any, tmp_path: Path
) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    model = make_model(tmp_path / "mine")
    with Library.open(folder) as library:
        photo = library.photos()[0].photo_id
        shuffled = library.reconstruct(photo, mask_ratio=0.5, seed=1).mask
    address = f"{start_server(folder).url}/reconstructions?photo={photo}"
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    page.goto(f"{address}&pattern=toString&ratio=50")
    studio = page.locator(".studio[data-guess]")
    expect(page.get_by_role("button", name="Random", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(studio).to_have_count(1)

    click = "(root, names) => names.forEach((name) => root.querySelector(`[aria-label='${name}']`).click())"
    studio.evaluate(click, ["Shuffle", "Invert"])  # before the server can say what is hidden
    expect(studio).to_have_attribute("data-guess", mask_text(~shuffled))

    page.get_by_role("button", name="Show all").click()
    page.get_by_role("button", name="Box", exact=True).click()
    page.get_by_role("button", name="Hide square 1, 1", exact=True).focus()
    for key in ("Space", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    studio.evaluate(click, ["Brush", "Undo", "Redo"])  # the box is open until then
    page.keyboard.press("Escape")
    painted = "8x8-c0c0000000000000"
    expect(studio).to_have_attribute("data-guess", painted)
    page.wait_for_url(lambda now: painted in now)

    page.evaluate(
        "address => { history.pushState({}, '', address); "
        "dispatchEvent(new PopStateEvent('popstate', { state: {} })); }",
        f"{address}&mask={painted}&model={model}",
    )
    expect(page.locator(".studio[data-guess^='3x3-']")).to_have_count(1)
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()

    page.evaluate("window.ImageData = undefined")
    page.get_by_role("button", name="Invert").click()
    expect(page.get_by_text("This guess could not be drawn")).to_be_visible()
    page.close()
