"""How soon the app answers each click in Chromium on a large library, and what its server computes for it.

    python -m benchmarks.page_load FOLDER [--count 100000] [--rounds 5]

FOLDER is what `benchmarks.large_library` makes, and is made if it is missing; tags, places and lenses are
added to its catalogue. The clicks are in `page_clicks`. A time begins with the event in the page (a click, a
key, the wheel, a chosen file; for a first page the navigation). It ends in the frame after the one in which
Streamlit's script has ended, what was asked for is there, and all pictures in the window have arrived. Each
round marks a photo, so that no count of the round before is still valid. First pages are visited with an
empty browser cache, in turns with an empty Streamlit page. The computing time of the server is that of its
process until half a second after the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Browser, Error, Page, ViewportSize, sync_playwright

from benchmarks.large_library import make_library, make_photos
from benchmarks.page_clicks import Click, all_clicks, choose_file
from benchmarks.timing import describe_machine, markdown_table
from vitmae_search.bundled import bundled
from vitmae_search.catalog import CatalogWriter
from vitmae_search.library import Library
from vitmae_search.settings import environment_for

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WINDOW: ViewportSize = {"width": 1280, "height": 900}
EMPTY_PAGE, FIRST_PAGE, COLD_SUFFIX = "an empty page", "the first page", ", server just started"
UNKNOWN_SIZE = (4000, 3000)
TAGS, TAGS_A_PHOTO, CLASSIFIER = 200, 3, "random words"
SETTLED_MS = 500  # after each click, so that none pays for the one before
_EMPTY_PAGE = "import streamlit as st\n\nst.title('Empty')\n"

# Our grids are in shadow roots.
_HELPERS = """
  const roots = [document, ...[...document.querySelectorAll('*')].map(n => n.shadowRoot).filter(Boolean)];
  const all = selector => roots.flatMap(root => [...root.querySelectorAll(selector)]);
  const find = selector => all(selector)[0];
  const grid = find('.grid');
"""
# The next event starts the clock.
_START_CLOCK = f"""() => {{ {_HELPERS}
  const name = find('dialog[open] .name')?.textContent;
  const before = {{drawn: grid?.dataset.drawn, tiles: all('.tile').length, name}};
  window.asked = {{before, since: Infinity}};
  const begin = () => {{ asked.since = Math.min(asked.since, performance.now()); }};
  const kinds = ['click', 'change', 'keydown', 'wheel'];
  for (const kind of kinds) addEventListener(kind, begin, {{capture: true, once: true}});
}}"""
# Seconds since then, in the frame after the one in which all of it is drawn; false before.
_SECONDS_WHEN_DRAWN = f"""() => {{ {_HELPERS}
  const {{before, since, drawn}} = window.asked;
  if (drawn) return (performance.now() - since) / 1000;
  if (since === Infinity) return false;
  const app = document.querySelector('[data-testid="stApp"]');
  if (app?.dataset.testScriptState !== 'notRunning') return false;
  if (!(SEEN)) return false;
  const images = all('.grid img, .vs-asked img, dialog[open] img');
  const inWindow = box => box.width > 0 && box.bottom > 0 && box.top < innerHeight;
  const shown = images.filter(image => inWindow(image.getBoundingClientRect()));
  if (shown.some(image => !image.complete || !image.naturalWidth)) return false;
  window.asked.drawn = true;
  return false;
}}"""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a click took: seconds until it was seen, and seconds that the server computed, if known."""

    seconds: float
    computed: float | None = None


Times = dict[str, list[Taken]]


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
    add_metadata(chosen.folder / "library")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        times, held = measure(browser, chosen.folder, Path(name), chosen.rounds)
        browser.close()
    print(describe_machine("streamlit"))
    print(
        markdown_table(("until", "ms", "server computes, ms", "above an empty page, ms"), table_rows(times))
    )
    print(f"The server holds {held / 2**20:.0f} MiB at the end.")


def table_rows(times: Times) -> Iterator[tuple[str, str, str, str]]:
    """Table rows: medians, and for first pages the median difference to the empty page of the round."""
    for name, taken in times.items():
        seconds = [one.seconds for one in taken]
        computed = [one.computed for one in taken if one.computed is not None]
        above = ""
        if name.startswith(FIRST_PAGE):
            empty = [one.seconds for one in times[name.replace(FIRST_PAGE, EMPTY_PAGE)]]
            above = _milliseconds(np.median(np.subtract(seconds, empty)))
        # Processes' times are counted in steps of 10 ms, so a mean says more than a median.
        yield (
            name,
            _milliseconds(np.median(seconds)),
            _milliseconds(np.mean(computed)) if computed else "",
            above,
        )


def _milliseconds(seconds: Any) -> str:
    return f"{1000 * seconds:.0f}"


def measure(browser: Browser, folder: Path, scratch: Path, rounds: int) -> tuple[Times, int]:
    """Run all rounds.

    Args:
        browser: Chromium.
        folder: The folder with the large library.
        scratch: A temporary folder.
        rounds: Timed rounds.

    Returns:
        What was taken, by name, and the bytes that the app's server uses at the end.
    """
    times: Times = defaultdict(list)
    servers = {EMPTY_PAGE: partial(serve_empty, scratch), FIRST_PAGE: partial(serve_app, folder / "library")}
    for number in range(rounds):
        for name in (EMPTY_PAGE, FIRST_PAGE) if number % 2 else (FIRST_PAGE, EMPTY_PAGE):
            with servers[name]() as (url, _), visit(browser, url) as page:
                times[name + COLD_SUFFIX].append(Taken(wait_until_drawn(page, _first_seen(name))))
    with servers[EMPTY_PAGE]() as (empty, _), servers[FIRST_PAGE]() as (app, process):
        for number in range(-1, rounds):  # the first round warms up
            kept = times if number >= 0 else defaultdict(list)
            one_round(browser, (empty, app), process, folder, scratch, kept)
        held = process.memory_info().rss
    return times, held


def _first_seen(name: str) -> str:
    return "grid" if name == FIRST_PAGE else "find('h1')"


def one_round(
    browser: Browser,
    urls: tuple[str, str],
    process: psutil.Process,
    folder: Path,
    scratch: Path,
    times: Times,
) -> None:
    """Do what a user does, step by step, and add what each step takes to its list.

    Args:
        browser: Chromium.
        urls: Addresses of the empty page and of the app.
        process: The app's server.
        folder: The folder with the large library.
        scratch: A temporary folder.
        times: The lists.
    """
    for name, url in zip((EMPTY_PAGE, FIRST_PAGE), urls, strict=True):
        with visit(browser, url) as page:
            times[name].append(Taken(wait_until_drawn(page, _first_seen(name))))
            page.wait_for_timeout(SETTLED_MS)
            if name == EMPTY_PAGE:
                continue
            for click in all_clicks(folder):
                times[click.name].append(time_click(page, click, process))
            unknown = write_unknown(scratch / "unknown.jpg", len(times[EMPTY_PAGE]))
            click = Click("Search: results for an unknown photo of 12 MP", choose_file(unknown))
            page.get_by_role("button", name="New search").click()
            page.wait_for_timeout(4 * SETTLED_MS)
            times[click.name].append(time_click(page, click, process))


def time_click(page: Page, click: Click, process: psutil.Process) -> Taken:
    """Do one thing, and wait until it is seen.

    Args:
        page: The app's page.
        click: What is done.
        process: The app's server.
    """
    click.prepare(page)
    page.evaluate(_START_CLOCK)
    computed = _computing_time(process)
    try:
        click.act(page)
        seconds = wait_until_drawn(page, click.seen)
    except Error as error:
        raise SystemExit(f"{click.name}: never seen\n{error}") from error
    page.wait_for_timeout(SETTLED_MS)
    computed = _computing_time(process) - computed
    click.restore(page)
    return Taken(seconds, computed)


def _computing_time(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def wait_until_drawn(page: Page, seen: str) -> float:
    """Wait until the page is drawn; returns the seconds since the clock started.

    Args:
        page: The page.
        seen: What has to be true, as for `Click`.
    """
    asked = _SECONDS_WHEN_DRAWN.replace("SEEN", seen)
    return float(page.wait_for_function(asked, polling="raf").json_value())


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


def add_metadata(folder: Path) -> None:
    """Give photos three random tags each, and some a place and a lens, where there are no tags yet.

    Args:
        folder: The library's folder.
    """
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
    # What indexing reads from the files' EXIF data.
    latitudes, longitudes = random.uniform(-60, 70, len(contents)), random.uniform(-180, 180, len(contents))
    rows = zip(
        latitudes.tolist(), longitudes.tolist(), (f"Lens {n % 7}" for n in contents), contents, strict=True
    )
    with closing(sqlite3.connect(folder / "catalogue.sqlite3")) as connection, connection:
        connection.executemany(
            "UPDATE contents SET latitude = ?, longitude = ?, lens = ? WHERE content_id = ?",
            (row for row in rows if row[-1] % 3),
        )


@contextmanager
def visit(browser: Browser, url: str) -> Iterator[Page]:
    """Visit a page with an empty cache; the clock starts with the navigation.

    Args:
        browser: Chromium.
        url: The page's address.
    """
    context = browser.new_context(viewport=WINDOW)
    try:
        context.add_init_script("window.asked = {since: 0, before: {}}")
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
