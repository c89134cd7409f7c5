"""How fast the app's pages load in Chromium on a large library, compared with an empty Streamlit page.

    python -m benchmarks.page_load FOLDER [--count 100000] [--rounds 5]

FOLDER is what `benchmarks.large_library` makes, and is made if it is missing; tags are added to it. Empty
page and app take turns, each visit in a new browser context, so that the browser's cache is empty. A time
ends when Streamlit's script has ended, the grid is drawn, and all thumbnails in the window have arrived. It
begins with the navigation, or with the last event in the page (a click, a key, a chosen file). Uploads are
photos of the library, whose vectors are stored, so nothing is encoded except in the row of an unknown photo.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Browser, Error, Page, ViewportSize, sync_playwright

from benchmarks.large_library import make_library, make_photos, photo_path
from benchmarks.timing import describe_machine, markdown_table
from vitmae_search.bundled import bundled
from vitmae_search.catalog import CatalogWriter
from vitmae_search.library import Library
from vitmae_search.settings import environment_for

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WINDOW: ViewportSize = {"width": 1280, "height": 900}
EMPTY_PAGE, FIRST_PAGE, COLD_SUFFIX = "an empty page", "the first page", ", server just started"
GRID, HEADING = ".grid", "h1"
KNOWN_NUMBER, UNKNOWN_SIZE = 4321, (4000, 3000)
TAGS, TAGS_A_PHOTO, CLASSIFIER = 200, 3, "random words"
_EMPTY_PAGE = "import streamlit as st\n\nst.title('Empty')\n"

# Our grids are in shadow roots.
_GRIDS = """
  const roots = [document, ...[...document.querySelectorAll('*')].map(n => n.shadowRoot).filter(Boolean)];
  const grid = roots.map(root => root.querySelector('.grid')).find(Boolean);
"""
# The next event starts the clock. It stops once the selector is there; a grid must have been drawn anew.
_START_CLOCK = f"""selector => {{ {_GRIDS}
  window.asked = {{selector, before: grid?.dataset.drawn, since: Infinity}};
  const begin = () => {{ window.asked.since = performance.now(); }};
  const kinds = ['click', 'change', 'keydown', 'wheel'];
  for (const kind of kinds) addEventListener(kind, begin, {{capture: true}});
}}"""
# Seconds since then, once all of it is drawn; false before.
_SECONDS_WHEN_DRAWN = f"""() => {{ {_GRIDS}
  const {{selector, before, since}} = window.asked;
  const app = document.querySelector('[data-testid="stApp"]');
  if (app?.dataset.testScriptState !== 'notRunning') return false;
  const found = () => roots.some(root => root.querySelector(selector));
  const there = selector !== '.grid' ? found() : grid?.dataset.drawn !== before;
  if (!there) return false;
  const images = roots.flatMap(root => [...root.querySelectorAll('.grid img, .vs-asked img')]);
  const inWindow = box => box.bottom > 0 && box.top < innerHeight;
  const seen = images.filter(image => inWindow(image.getBoundingClientRect()));
  if (seen.some(image => !image.complete || !image.naturalWidth)) return false;
  return (performance.now() - since) / 1000;
}}"""

Seconds = dict[str, list[float]]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if not (chosen.folder / "library").exists():
        make_photos(chosen.folder / "photos", chosen.count)
        make_library(chosen.folder)
    add_tags(chosen.folder / "library")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        seconds, held = measure(browser, chosen.folder, Path(name), chosen.rounds)
        browser.close()
    print(describe_machine("streamlit"))
    print(markdown_table(("until", "s", "above an empty page, s"), table_rows(seconds)))
    print(f"The server holds {held / 2**20:.0f} MiB at the end.")


def table_rows(seconds: Seconds) -> Iterator[tuple[str, str, str]]:
    """Table rows: medians, and for first pages the median difference to the empty page of the round."""
    for name, taken in seconds.items():
        above = ""
        if name.startswith(FIRST_PAGE):
            above = f"{np.median(np.subtract(taken, seconds[name.replace(FIRST_PAGE, EMPTY_PAGE)])):.2f}"
        yield name, f"{np.median(taken):.2f}", above


def measure(browser: Browser, folder: Path, scratch: Path, rounds: int) -> tuple[Seconds, int]:
    """Run all rounds.

    Args:
        browser: Chromium.
        folder: The folder with the large library.
        scratch: A temporary folder.
        rounds: Timed rounds.

    Returns:
        Lists of seconds by name, and the bytes that the app's server uses at the end.
    """
    seconds: Seconds = defaultdict(list)
    servers = {EMPTY_PAGE: partial(serve_empty, scratch), FIRST_PAGE: partial(serve_app, folder / "library")}
    for number in range(rounds):
        for name in (EMPTY_PAGE, FIRST_PAGE) if number % 2 else (FIRST_PAGE, EMPTY_PAGE):
            with (
                servers[name]() as (url, _),
                visit(browser, url, GRID if name == FIRST_PAGE else HEADING) as page,
            ):
                seconds[name + COLD_SUFFIX].append(wait_until_drawn(page))
    with servers[EMPTY_PAGE]() as (empty, _), servers[FIRST_PAGE]() as (app, process):
        for number in range(-1, rounds):  # the first round warms up
            one_round(browser, (empty, app), folder, scratch, seconds if number >= 0 else defaultdict(list))
        held = process.memory_info().rss
    return seconds, held


def one_round(browser: Browser, urls: tuple[str, str], folder: Path, scratch: Path, seconds: Seconds) -> None:
    """Do what a user does, step by step, and add each step's seconds to its list.

    Args:
        browser: Chromium.
        urls: Addresses of the empty page and of the app.
        folder: The folder with the large library.
        scratch: A temporary folder.
        seconds: The lists.
    """
    empty, app = urls
    with visit(browser, empty, HEADING) as page:
        seconds[EMPTY_PAGE].append(wait_until_drawn(page))
    with visit(browser, app, GRID) as page:
        seconds[FIRST_PAGE].append(wait_until_drawn(page))
        for name, target, act in STEPS:
            page.evaluate(_START_CLOCK, target)
            act(page, folder)
            try:
                seconds[name].append(wait_until_drawn(page))
            except Error as error:
                raise SystemExit(f"{name}: never seen") from error
    unknown = write_unknown(scratch / "unknown.jpg", len(seconds[EMPTY_PAGE]))
    with visit(browser, app, GRID) as page:
        wait_until_drawn(page)
        page.evaluate(_START_CLOCK, GRID)
        choose_file(page, unknown)
        seconds["results for an unknown photo of 12 MP, with decoding and encoding"].append(
            wait_until_drawn(page)
        )


def wait_until_drawn(page: Page) -> float:
    """Wait until the page is drawn; returns the seconds since the clock started."""
    return float(page.wait_for_function(_SECONDS_WHEN_DRAWN, polling="raf").json_value())


def choose_file(page: Page, path: Path) -> None:
    """Upload a file.

    Args:
        page: The Search page.
        path: The photo's file.
    """
    page.locator('input[type="file"]').set_input_files(path)


def fill(page: Page, label: str, text: str) -> None:
    """Write into a field of the filters, and press Enter.

    Args:
        page: The Search page.
        label: The field's label.
        text: What to write.
    """
    if not page.get_by_label(label).is_visible():
        page.get_by_role("button", name="More filters").click()
    page.get_by_label(label).fill(text)
    page.get_by_label(label).press("Enter")


def scroll(page: Page) -> None:
    """Turn the wheel over the grid, to the end of what is there."""
    page.mouse.move(640, 600)
    page.mouse.wheel(0, 20_000)


def clear_filters(page: Page, _folder: Path) -> None:
    """Remove all filters."""
    page.get_by_role("button", name="Clear filters").click()


def choose_tag(page: Page, _folder: Path) -> None:
    """Filter by a tag."""
    page.get_by_role("combobox", name="Tag").fill("word 7")
    page.get_by_role("combobox", name="Tag").press("Enter")


Action = Callable[[Page, Path], Any]
STEPS: list[tuple[str, str, Action]] = [
    ("the next 120 photos", ".tile:nth-child(121)", lambda page, _: scroll(page)),
    ("the Browse page", GRID, lambda page, _: page.get_by_role("link", name="Browse").click()),
    ("a year of the timeline", GRID, lambda page, _: page.locator(".year .choice").first.click()),
    ("the Search page again", GRID, lambda page, _: page.get_by_role("link", name="Search").click()),
    ("results for a known photo", GRID, lambda page, folder: choose_file(page, known_photo(folder))),
    ("more like this", GRID, lambda page, _: page.get_by_role("button", name="More like").nth(1).click()),
    ("further results", ".tile:nth-child(25)", lambda page, _: scroll(page)),
    (
        "a folder (1 % of the photos)",
        GRID,
        lambda page, folder: fill(page, "In this folder", str(known_photo(folder).parent)),
    ),
    ("all again", GRID, clear_filters),
    ("a camera (a third)", GRID, lambda page, _: fill(page, "Camera", "camera b")),
    ("no filters again", GRID, clear_filters),
    ("a tag", GRID, choose_tag),
    (
        "the Library page",
        ".vs-table, [data-testid=stMetric]",
        lambda page, _: page.get_by_role("link", name="Library").click(),
    ),
]


def known_photo(folder: Path) -> Path:
    """A photo of the library."""
    return photo_path((folder / "photos").resolve(), KNOWN_NUMBER)


def write_unknown(path: Path, seed: int) -> Path:
    """Write a photo of 12 MP that no library has.

    Args:
        path: The file.
        seed: Seed of its pixels, together with the time.
    """
    random = np.random.default_rng([seed, time.time_ns()])
    small = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(UNKNOWN_SIZE, Image.Resampling.BICUBIC)
    image.save(path, "JPEG", quality=90)
    return path


def add_tags(folder: Path) -> None:
    """Tag the library's photos with three random words each, as a classifier would, unless they have tags."""
    with Library.open(folder) as library:
        if library.tag_counts():
            return
        contents = sorted({photo.content_id for photo in library.photos()})
    random = np.random.default_rng(0)
    with CatalogWriter.open_writer(folder) as catalog:
        classifier = catalog.ensure_classifier(fingerprint=CLASSIFIER, source=CLASSIFIER, model=CLASSIFIER)
        for start in range(0, len(contents), 1000):
            some = contents[start : start + 1000]
            words = [random.choice(TAGS, TAGS_A_PHOTO, replace=False) for _ in some]
            said = [[(f"word {word}", 0.9 - rank / 4) for rank, word in enumerate(three)] for three in words]
            catalog.record_tags(classifier, list(zip(some, said, strict=True)))


@contextmanager
def visit(browser: Browser, url: str, selector: str) -> Iterator[Page]:
    """Visit a page with an empty cache; the clock starts with the navigation.

    Args:
        browser: Chromium.
        url: The page's address.
        selector: What has to be drawn.
    """
    context = browser.new_context(viewport=WINDOW)
    try:
        context.add_init_script(f"window.asked = {{selector: {selector!r}, since: 0}}")
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.goto(url, wait_until="commit")
        yield page
    finally:
        context.close()


@contextmanager
def serve_app(library: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The app, as `streamlit run` starts it."""
    with serve(bundled("app.py"), environment_for(library)) as server:
        yield server


@contextmanager
def serve_empty(scratch: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A page with one title and the app's settings."""
    script = scratch / "empty.py"
    script.write_text(_EMPTY_PAGE)
    shutil.copytree(bundled(".streamlit"), scratch / ".streamlit", dirs_exist_ok=True)
    with serve(script, dict(os.environ)) as server:
        yield server


@contextmanager
def serve(script: Path, environment: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """A Streamlit server on a free port; yields its address and process once it answers.

    Args:
        script: The page.
        environment: The process's environment variables.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}"]
    process = subprocess.Popen(
        [*command, "--server.headless=true"],
        env={**environment, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        while not is_up(url):
            if process.poll() is not None:
                raise SystemExit(f"streamlit run {script} ended")
            time.sleep(0.02)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def is_up(url: str) -> bool:
    """Whether the server answers."""
    with suppress(OSError), urllib.request.urlopen(f"{url}/_stcore/health", timeout=5):
        return True
    return False


if __name__ == "__main__":
    main()
