"""How long the map of a large library takes, and how smoothly its page moves in Chromium without a GPU.

    python -m benchmarks.map FOLDER [--tsne N] [--frames-seconds 5]

FOLDER is what `benchmarks.large_library` makes. The map is made anew, from vectors that are open; --tsne also
makes that of t-SNE of N of the vectors, which takes minutes. Then 100 of its photos are placed on each map,
as new ones are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright

from benchmarks.page_load import CHROMIUM, CHROMIUM_ARGS, WINDOW, serve_app
from benchmarks.timing import describe_machine, markdown_table
from vitmae_search.library import Library
from vitmae_search.vectors.layout import Layout, fit_pca, fit_tsne, place

PLACED = 100
# Moves the map at each frame, and counts the frames.
_FRAMES = """(host, seconds) => new Promise((resolve) => {
  const [map, begun] = [host.vsMap, performance.now()];
  let frames = 0;
  const step = () => {
    const passed = (performance.now() - begun) / 1000;
    if (passed >= seconds) return resolve(frames / passed);
    frames++;
    map.setView({ x: 0.5 + 0.05 * Math.sin(passed * 3), y: 0.5, zoom: 1.2 + 0.2 * Math.sin(passed) });
    requestAnimationFrame(step);
  };
  step();
})"""

_WITHOUT_WEBGL = """
const get = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return kind === "webgl" ? null : get.call(this, kind, ...more);
};
"""

Row = tuple[str, str]
Fit = Callable[[NDArray[np.int64], NDArray[np.float32]], Layout]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tsne", type=int, default=0)
    parser.add_argument("--frames-seconds", type=float, default=5.0)
    chosen = parser.parse_args()
    rows = [*layout_rows(chosen.folder / "library", tsne=chosen.tsne)]
    rows += page_rows(chosen.folder / "library", chosen.frames_seconds)
    print(describe_machine("faiss-cpu", "openTSNE"))
    print(markdown_table(("what", "figure"), rows))


def layout_rows(folder: Path, *, tsne: int) -> Iterator[Row]:
    """Time laying out, and placing new photos.

    Args:
        folder: The library.
        tsne: How many vectors to lay out by t-SNE; 0 is none.
    """
    with Library.open(folder) as library:
        found = library.embeddings()
        everything = np.arange(len(found.vectors))
        fits: dict[str, tuple[Fit, NDArray[np.int64]]] = {"PCA": (fit_pca, everything)}
        if tsne:
            fits["t-SNE"] = fit_tsne, everything[: tsne + PLACED]
        for name, (fit, ids) in fits.items():
            started = time.perf_counter()
            layout = fit(ids[PLACED:], found.vectors[ids[PLACED:]])
            yield f"{name} of {len(ids) - PLACED:,} vectors of {found.vectors.shape[1]}", _seconds(started)
            started = time.perf_counter()
            place(layout, ids[:PLACED], found.vectors[:PLACED], lambda wanted: found.vectors[wanted])
            yield f"{PLACED} new photos placed, {name}", _seconds(started)
            yield f"the {name} map's file", f"{len(layout.to_bytes()) / 1e6:.1f} MB"
        library.map()
        started = time.perf_counter()
        library.map()
        yield "the map with its clusters, from memory", _seconds(started)


def page_rows(folder: Path, seconds: float) -> Iterator[Row]:
    """Measure the page.

    Args:
        folder: The library.
        seconds: How long frames are counted.
    """
    with serve_app(folder) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        for title, script in (("WebGL, computed by the CPU", ""), ("without WebGL", _WITHOUT_WEBGL)):
            page = browser.new_page(viewport=WINDOW)
            page.add_init_script(script)
            started = time.perf_counter()
            page.goto(f"{url}/map")
            page.locator(".map[data-drawn]").wait_for(timeout=120_000)
            yield f"page drawn, {title}", _seconds(started)
            frames = page.locator(".map").evaluate(_FRAMES, seconds)
            drawn = page.locator(".map").get_attribute("data-drawn") or "0"
            yield f"frames a second, {int(drawn):,} points, {title}", f"{frames:.0f}"
            page.close()
        answer = browser.new_context().request.get(f"{url}/map/points")
        yield "bytes of points", f"{len(answer.body()) / 1e6:.2f} MB"
        browser.close()


def _seconds(started: float) -> str:
    return f"{time.perf_counter() - started:.2f} s"


if __name__ == "__main__":
    main()
