"""Check the built documentation site: `python tests/docs/check_site.py build/site`.

- Links of the pages to files of the repository outside `docs/` (tests, mostly) lead somewhere: those files
  are copied to `source/` in the site, and the links are changed to name the copies.
- Every internal link and anchor exists.
- No page loads anything from another site: scripts, styles, images and fonts are all local.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]

# Attributes whose address the browser fetches by itself. A link (`<a href>`) waits for a click.
FETCHED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
    ("object", "data"),
}
NOT_FETCHED_RELS = {"canonical", "next", "prev", "alternate"}

# The theme's script fetches these libraries from a CDN, but only for pages that use the feature.
CDN_FEATURES = re.compile(r'class="[^"]*\b(mermaid|glightbox|pyodide)\b')


@dataclass
class Page(HTMLParser):
    """The ids, links and fetched addresses of one HTML file."""

    file: Path
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.text = self.file.read_text("utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and set(values.get("rel", "").split()) & NOT_FETCHED_RELS:
            return
        self.fetched += [values[name] for of, name in FETCHED if of == tag and name in values]


def is_foreign(address: str) -> bool:
    """Whether an address names another host."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ftp")


def is_internal(address: str) -> bool:
    """Whether an address names a file or anchor of this site."""
    return not is_foreign(address) and not address.startswith(("mailto:", "data:", "javascript:"))


def target(page: Path, address: str, site: Path) -> Path:
    """The file of the site that `address`, on `page`, leads to."""
    path = unquote(urlsplit(address).path)
    if not path:
        return page
    found = (site / path.lstrip("/")) if path.startswith("/") else (page.parent / path)
    found = Path(*found.resolve().parts)
    return found / "index.html" if found.is_dir() or path.endswith("/") else found


def copy_linked_files(pages: list[Page], site: Path) -> None:
    """Copy the repository's files that pages link to into `source/`, and let the links name the copies.

    The generator resolves such a link against the folder that the site is in, as if that were the repository.
    """
    for page in pages:
        text = page.text
        for link in set(page.links):
            if not is_internal(link):
                continue
            file = target(page.file, link, site)
            if file.is_relative_to(site) or not file.is_relative_to(site.parent):
                continue
            name = file.relative_to(site.parent)
            if not (ROOT / name).is_file():
                continue
            copy = site / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
            text = text.replace(f'href="{link}"', f'href="{os.path.relpath(copy, page.file.parent)}"')
        if text != page.text:
            page.file.write_text(text, "utf-8")


def broken_links(pages: list[Page], site: Path) -> list[str]:
    """Internal links whose file or anchor does not exist."""
    ids = {page.file: page.ids for page in pages}
    broken = []
    for page in pages:
        for link in page.links + page.fetched:
            if not is_internal(link):
                continue
            file = target(page.file, link, site)
            anchor = unquote(urlsplit(link).fragment)
            missing = not file.is_file() or (anchor and file.suffix == ".html" and anchor not in ids[file])
            if missing and page.file.name != "404.html":
                broken.append(f"{page.file.relative_to(site)}: {link} leads nowhere")
    return broken


def foreign_requests(pages: list[Page], site: Path) -> list[str]:
    """What a browser would fetch from another site."""
    found = []
    for page in pages:
        name = page.file.relative_to(site)
        found += [f"{name}: fetches {address}" for address in page.fetched if is_foreign(address)]
        found += [f"{name}: {match.group(0)} fetches a library" for match in CDN_FEATURES.finditer(page.text)]
        found += [f"{name}: inline style fetches {url}" for url in foreign_urls(page.text)]
    for style in site.rglob("*.css"):
        text = style.read_text("utf-8")
        found += [f"{style.relative_to(site)}: fetches {url}" for url in foreign_urls(text)]
    return found


def foreign_urls(text: str) -> list[str]:
    """The foreign addresses in `url(...)` and `@import` of a style sheet."""
    addresses = re.findall(r"url\(\s*['\"]?([^'\")]+)", text) + re.findall(r"@import\s+['\"]([^'\"]+)", text)
    return [address for address in addresses if is_foreign(address)]


def read_pages(site: Path) -> list[Page]:
    """Every HTML file of the site."""
    return [Page(file) for file in sorted(site.rglob("*.html"))]


def problems(site: Path) -> list[str]:
    """Everything that is wrong with the site."""
    pages = read_pages(site)
    if not pages:
        return [f"{site}: no pages"]
    copy_linked_files(pages, site)
    pages = read_pages(site)
    return broken_links(pages, site) + foreign_requests(pages, site)


def main() -> int:
    """Check the site named on the command line. Returns the exit status."""
    site = Path(sys.argv[1]).resolve()
    found = problems(site)
    for problem in found:
        print(problem)
    pages = len(list(site.rglob("*.html")))
    print(f"{site}: {pages} pages, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
