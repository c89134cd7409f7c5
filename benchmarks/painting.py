"""How soon the guess follows the hand, on the Reconstructions page in Chromium.

    python -m benchmarks.painting [--strokes 30] [--model NAME]

One photo, and strokes over its squares as a mouse makes them: some moves and a release. A time begins with
an event of the pointer (`event.timeStamp`) and ends in the frame after the one that draws the guess. Moves
that come while a guess is under way are covered by the next one, so that of moves only the last before each
guess counts. It is also said whether any part of the page became paler, or the page scrolled.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.large_library import make_photos
from benchmarks.page_load import CHROMIUM, CHROMIUM_ARGS, WINDOW, serve_app
from benchmarks.timing import describe_machine, markdown_table
from vitmae_search.library import Library

_WATCH = """() => {
  const roots = [...document.querySelectorAll('*')].map(node => node.shadowRoot).filter(Boolean);
  const studio = [document, ...roots].map(root => root.querySelector('.studio')).find(Boolean);
  const main = document.querySelector('[data-testid="stMain"]');
  window.seen = {pointerup: [], pointermove: [], flip: [], opacity: 1, scrolled: 0};
  let event = null;
  const frame = act => requestAnimationFrame(() => requestAnimationFrame(act));
  for (const kind of ['pointermove', 'pointerup']) {
    addEventListener(kind, found => {
      event = {kind, at: found.timeStamp};
    }, {capture: true});
  }
  new MutationObserver(() => {
    const begun = event;
    event = null;
    if (begun) frame(() => seen[begun.kind].push(performance.now() - begun.at));
  }).observe(studio, {attributes: true, attributeFilter: ['data-guess']});
  new MutationObserver(() => {
    const begun = event?.at;
    if (begun) frame(() => seen.flip.push(performance.now() - begun));
  }).observe(studio, {subtree: true, attributes: true, attributeFilter: ['aria-pressed']});
  const top = main.scrollTop;
  const look = () => {
    for (let node = studio; node; node = node.parentElement ?? node.getRootNode().host) {
      seen.opacity = Math.min(seen.opacity, Number(getComputedStyle(node).opacity));
    }
    seen.scrolled = Math.max(seen.scrolled, Math.abs(main.scrollTop - top));
    requestAnimationFrame(look);
  };
  look();
}"""


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strokes", type=int, default=30)
    parser.add_argument("--model", help="whose guesses; the bundled one where none is named")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows, note = measure(Path(name), chosen.strokes, chosen.model)
    print(describe_machine("streamlit", "torch"))
    print(markdown_table(("from", "to", "median, ms", "95 of 100, ms", "slowest, ms", "times"), rows))
    print(note)


def measure(folder: Path, strokes: int, model: str | None = None) -> tuple[list[tuple[object, ...]], str]:
    """Paint, and say how long each guess took.

    Args:
        folder: An empty folder.
        strokes: How many.
        model: As `--model` takes it; None is the bundled one.

    Returns:
        Rows of the table, and a sentence about the page.
    """
    make_photos(folder / "photos", 1)
    with Library.open(folder / "library", model=model) as library:
        library.index(folder / "photos")
        photo_id = library.photos()[0].photo_id
    with serve_app(folder / "library") as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        page = browser.new_page(viewport=WINDOW)
        page.goto(f"{url}/reconstructions?photo={photo_id}")
        page.locator(".studio[data-guess]").wait_for(timeout=120_000)
        page.wait_for_timeout(1000)
        page.evaluate(_WATCH)
        for number in range(strokes):
            stroke(page, number)
        found = page.evaluate("seen")
        browser.close()
    parts = (
        ("pointer move", "its squares flipped", "flip"),
        ("pointer move", "the guess drawn", "pointermove"),
        ("pointer up", "the guess drawn", "pointerup"),
    )
    rows = [
        (begin, end, *(f"{np.percentile(found[key], q):.0f}" for q in (50, 95, 100)), len(found[key]))
        for begin, end, key in parts
        if found[key]
    ]
    return rows, f"Least opacity {found['opacity']}, scrolled by {found['scrolled']:.0f} pixels."


def stroke(page: Page, number: int) -> None:
    """Draw a line over the squares, from one side to the other.

    Args:
        page: The page.
        number: Which of them.
    """
    box = page.locator(".board").bounding_box()
    assert box is not None
    random = np.random.default_rng(number)
    (x, y), (to_x, to_y) = random.uniform(0.05, 0.95, (2, 2))
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.mouse.down()
    for step in np.linspace(0, 1, 8)[1:]:
        across, down = x + (to_x - x) * step, y + (to_y - y) * step
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        page.wait_for_timeout(30)
    page.mouse.up()
    page.wait_for_timeout(400)


if __name__ == "__main__":
    main()
