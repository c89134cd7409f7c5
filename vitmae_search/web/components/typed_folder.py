"""Folders that a visitor types. The folder that the server was started in means nothing to a visitor."""

from __future__ import annotations

import os

from vitmae_search.address import absolute_path, is_address
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.records import SearchFilter
from vitmae_search.web.server.session import library


def full_path(typed: str) -> str:
    """The folder that was typed, with `~` resolved.

    Raises:
        LibraryError: It is a relative path.
    """
    if is_address(typed.strip()):
        return absolute_path(typed.strip())
    path = os.path.expanduser(typed.strip())
    if not os.path.isabs(path):
        example = os.path.join(os.path.expanduser("~"), path)
        raise LibraryError(
            f"{display_path(path)} is not a full path; type it from its beginning, such as "
            f"{display_path(example)}"
        )
    return os.path.normpath(path)


def folder_with_photos(typed: str) -> str:
    """The folder with photos of the library that was typed: a full path, or one inside an indexed folder.

    A path inside an indexed folder may begin with that folder's own name.

    Raises:
        LibraryError: There is no photo in such a folder, or there is one in several.
    """
    path = os.path.expanduser(typed.strip())
    roots = [root.path for root in library().status().roots]
    whole = os.path.isabs(path) or is_address(path)
    places = [path] if whole else [os.path.join(start, path) for start in _starts(roots)]
    found = [place for place in dict.fromkeys(map(_normal, places)) if _has_photos(place)]
    if len(found) == 1:
        return found[0]
    if found:
        raise LibraryError(
            f"{display_path(path)} may be {_listed(found, 'or')}; type the full path of the one that you mean"
        )
    raise LibraryError(
        f"the library has no photo in a folder {display_path(path)}; type a full path, or a folder inside "
        f"{_listed(roots, 'or')}"
    )


def _starts(roots: list[str]) -> list[str]:
    return [*roots, *map(os.path.dirname, roots)]


def _normal(place: str) -> str:
    return absolute_path(place) if is_address(place) else os.path.normpath(place)


def _has_photos(folder: str) -> bool:
    return bool(library().photos(SearchFilter(under=folder), limit=1))


def _listed(paths: list[str], word: str) -> str:
    """Paths as a part of a sentence."""
    *others, last = map(display_path, paths)
    return f"{', '.join(others)} {word} {last}" if others else last
