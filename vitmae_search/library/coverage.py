"""How much of a library a space covers, and the command that brings the rest."""

from __future__ import annotations

import os
import shlex

from vitmae_search.catalog import Catalog
from vitmae_search.errors import display_path
from vitmae_search.photos import is_under
from vitmae_search.records import Coverage, Space
from vitmae_search.settings import settings


def space_coverage(catalog: Catalog, space: Space) -> Coverage | None:
    """Return how much of the library a space covers; None where no photo on disk is left out.

    Args:
        catalog: The library's catalogue.
        space: The space.
    """
    uncovered = catalog.uncovered_folders(space.space_id)
    if not uncovered:
        return None
    status, left = catalog.status(), sum(uncovered.values())
    paths = [root.path for root in status.roots]
    roots = [path for path in paths if any(is_under(folder, path) for folder in uncovered)]
    return Coverage(status.photos - left, status.photos, _command(catalog, space, roots or sorted(uncovered)))


def _command(catalog: Catalog, space: Space, folders: list[str]) -> str:
    """The command, after which the space covers the folders; a space that is not current is made so first."""
    library = []
    if os.path.realpath(catalog.folder) != os.path.realpath(settings().library):
        library = ["--library", os.fspath(catalog.folder)]
    index = ["vitmae-search", "index", *folders, *library]
    use = ["vitmae-search", "spaces", "use", str(space.space_id), *library]
    commands = [index] if space.current else [use, index]
    return " && ".join(" ".join(shlex.quote(display_path(word)) for word in words) for words in commands)
