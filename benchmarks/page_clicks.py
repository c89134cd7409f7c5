"""What a person clicks on the app's pages, in an order that leads from one to the next.

`benchmarks.page_load` times them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page

from benchmarks.large_library import photo_path

GRID = "grid && grid.dataset.drawn !== before.drawn"
"""That a grid was drawn anew."""

KNOWN_NUMBER = 4321
CHIPS = ("Folder", "Date", "Camera", "Tag", "Lens", "Place", "Type", "Shape", "Size", "Favourites")
PAGES = (
    ("Map", "find('.map[data-drawn]')"),
    ("Reconstructions", "grid"),
    ("Inside", "grid"),
    ("Albums", "grid"),
    ("Library", "find('[data-testid=stMetric]')"),
    ("Training", "true"),
    ("Plugins", "true"),
    ("Search", "grid"),
)

Action = Callable[[Page], object]


@dataclass(frozen=True, slots=True)
class Click:
    """What a person does, and how it is seen that it has happened.

    Attributes:
        name: What is asked for.
        act: Does it.
        seen: A JavaScript expression of `grid`, `find(selector)`, `all(selector)` and what was `before`.
        prepare: What has to be done before, untimed.
        restore: What brings the page back, untimed.
    """

    name: str
    act: Action
    seen: str = GRID
    prepare: Action = lambda page: None
    restore: Action = lambda page: None


def known_photo(folder: Path) -> Path:
    """A photo of the library.

    Args:
        folder: The folder with the large library.
    """
    return photo_path((folder / "photos").resolve(), KNOWN_NUMBER)


def all_clicks(folder: Path) -> Iterator[Click]:
    """The clicks of one visit, which begins on the Search page.

    Args:
        folder: The folder with the large library.
    """
    yield Click("Search: the next photos", scroll, more_tiles())
    yield page_link("Browse", f"{GRID} && all('.menu, .rail .choice').length")
    yield Click("Browse: begin to select", switch_selecting, "find('.open[aria-pressed]')")
    yield Click("Browse: select a photo", tile(3), "find('.open[aria-pressed=true]')")
    yield Click(
        "Browse: make it a favourite", button("Favourite"), "find('.st-key-vs_undo_and_what button:enabled')"
    )
    for title in CHIPS:  # the first counts after the change
        yield Click(
            f"Browse: the list of {title}", open_chip(title), "find('.menu .choice')", restore=close_chip
        )
    yield Click("Browse: undo", button("Undo"), "!find('.st-key-vs_undo_and_what button:enabled')")
    yield Click("Browse: end selecting", switch_selecting, "!find('.open[aria-pressed]')")
    for title in CHIPS[:-1]:
        yield Click(f"Browse: a choice of {title}", choose, prepare=open_chip_when_counted(title))
        yield Click(f"Browse: without {title}", remove_filter)
    yield Click("Browse: oldest first", choose_at(1), prepare=open_chip_when_counted("Newest first"))
    yield Click("Browse: newest first", choose_at(0), prepare=open_chip_when_counted("Oldest first"))
    yield Click("Browse: by name", choose_at(2), prepare=open_chip_when_counted("Newest first"))
    yield Click("Browse: the next photos", scroll, more_tiles())
    yield Click("Browse: open a photo", tile(2), VIEWER)
    yield Click("Browse: the next photo", press("ArrowRight"), f"{VIEWER} && {NAME} !== before.name")
    yield Click("Browse: close it", press("Escape"), "!find('dialog[open]')")
    for name, seen in PAGES:
        yield page_link(name, seen)
    yield Click("Search: results for a photo of the library", tile(1))
    yield Click("Search: more like this", lambda page: page.locator(".tile .similar").nth(2).click())
    yield Click("Search: further results", scroll, more_tiles())
    yield Click("Search: hits by date", choose_at(1), prepare=open_chip_when_counted("Best first"))
    yield Click("Search: best first", choose_at(0), prepare=open_chip_when_counted("Newest first"))
    for title in ("Folder", "Camera", "Tag"):
        yield Click(f"Search: hits of one {title}", choose, prepare=open_chip_when_counted(title))
        yield Click(f"Search: hits without {title}", remove_filter)
    yield Click("Search: a new search", button("New search"))
    yield Click("Search: results for a chosen file that is known", choose_file(known_photo(folder)))


VIEWER = "find('dialog[open] img.shown')?.naturalWidth > 0 && find('dialog[open] img.shown').complete"
NAME = "find('dialog[open] .name')?.textContent"


def page_link(name: str, seen: str) -> Click:
    """Going to a page by its link.

    Args:
        name: The page.
        seen: As for `Click`.
    """
    title = f"find('h1')?.textContent === {name!r}"
    return Click(
        f"the {name} page", lambda page: page.get_by_role("link", name=name).click(), f"{title} && {seen}"
    )


def more_tiles() -> str:
    """That a grid has more photos than before."""
    return "all('.tile').length > before.tiles"


def button(name: str) -> Action:
    """Press a button with this label."""
    return lambda page: page.get_by_role("button", name=name, exact=True).click()


def press(key: str) -> Action:
    """Press a key."""
    return lambda page: page.keyboard.press(key)


def tile(number: int) -> Action:
    """Tap a photo of the grid, counted from 0."""
    return lambda page: page.locator(".grid .tile .open").nth(number).click()


def switch_selecting(page: Page) -> None:
    """Turn the switch "Select"."""
    page.locator(".st-key-vs_selecting label").click()


def scroll(page: Page) -> None:
    """Turn the wheel over the grid, to the end of what is there."""
    page.mouse.move(640, 600)
    page.mouse.wheel(0, 100_000)


def choose_file(path: Path) -> Action:
    """Upload a file."""
    return lambda page: page.locator('input[type="file"]').set_input_files(path)


def open_chip(title: str) -> Action:
    """Open the list of a filter."""
    return lambda page: page.locator(".chip .open", has_text=title).click()


def open_chip_when_counted(title: str) -> Action:
    """Open the list of a filter, and wait for it."""

    def act(page: Page) -> None:
        open_chip(title)(page)
        page.locator(".menu .choice").first.wait_for()
        page.wait_for_timeout(300)

    return act


def choose(page: Page) -> None:
    """Choose what a list begins with; of dates the latest year, of places those that have one."""
    page.locator(".menu .year .choice, .menu:not(.month) .choice").first.click()


def choose_at(number: int) -> Action:
    """Choose a line of a list, counted from 0."""
    return lambda page: page.locator(".menu .choice").nth(number).click()


def close_chip(page: Page) -> None:
    """Close the list."""
    page.keyboard.press("Escape")


def remove_filter(page: Page) -> None:
    """Remove a filter by the cross of its chip."""
    page.locator(".chip .remove").first.click()
