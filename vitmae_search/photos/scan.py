"""The walk over a folder: which photos are there, and their stamps.

Where a path lies.

Exclude patterns: simple globs in the manner of `.gitignore`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from vitmae_search.errors import UnreadablePhoto
from vitmae_search.photos.formats import PHOTO_SUFFIXES
from vitmae_search.records import ScanProblem, Stamp

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def excluder(patterns: Sequence[str]) -> Callable[[str, str, bool], bool]:
    """A function `(name, relative, folder) -> excluded` for `patterns`.

    `name` is the last component, `relative` the path below the root, with "/" between components.
    A pattern without "/" is matched with the name, at any depth; one with a "/" inside or in front is
    matched with the path from the root. A "/" at the end asks for folders alone. `*` and `?` stay within
    one component, `**` crosses them, `[abc]` and `[!abc]` are one character. Letter case counts.
    Excluding a folder excludes all below it, since the walk does not enter.
    """
    tests = [_compile(pattern) for pattern in patterns if pattern.strip("/")]

    def excluded(name: str, relative: str, folder: bool) -> bool:
        return any(
            regex.fullmatch(relative if by_path else name) is not None
            for regex, by_path, folders_only in tests
            if folder or not folders_only
        )

    return excluded


def _compile(pattern: str) -> tuple[re.Pattern[str], bool, bool]:
    body = pattern.rstrip("/")
    by_path = "/" in body
    expression = "".join(_translate(token) for token in _TOKEN.findall(body.lstrip("/")))
    return re.compile(expression, re.DOTALL), by_path, pattern.endswith("/")


def _translate(token: str) -> str:
    if token in _WILD:
        return _WILD[token]
    if token.startswith("[") and len(token) > 2:
        negated = token[1] == "!"
        return _character_class(token[2:-1] if negated else token[1:-1], negated)
    return re.escape(token)


def _character_class(members: str, negated: bool) -> str:
    # A reversed range such as [z-a] matches nothing in a shell; `re` would refuse the whole pattern.
    ranges = re.sub(r"(.)-(.)", lambda m: m[0] if m[1] <= m[2] else "", members, flags=re.DOTALL)
    if not ranges:
        return "[^/]" if negated else "(?!)"
    escaped = re.sub(r"([^\w-])", r"\\\1", ranges)
    return f"[^/{escaped}]" if negated else f"[{escaped}]"


# What systems and devices keep beside photos: thumbnails of a NAS, bins, snapshots, archive leftovers.
SYSTEM_FOLDERS = frozenset(
    {
        "@eaDir",
        "@Recycle",
        "#recycle",
        "#snapshot",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "__MACOSX",
    }
)
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def is_photo_name(name: str) -> bool:
    """Whether the walk yields a file of this name: a suffix of `PHOTO_SUFFIXES`, in any letter case."""
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def scan(
    root: str, *, exclude: Sequence[str] = (), on_problem: Callable[[ScanProblem], None]
) -> Iterator[Stamp]:
    """Yield the stamp of every photo under `root`, in a fixed order, each file one `stat`.

    A folder's files come sorted by name, then its folders, sorted. Names with a leading dot, `SYSTEM_FOLDERS`
    and what matches `exclude` (see `patterns.excluder`) are skipped. Links are followed; a folder is
    entered once, whatever leads to it, under its own path where the root holds it, because linked folders
    wait until the real ones are done. Broken links, FIFOs, sockets and devices are skipped, never opened.
    A `root` that is a file is that one file, whatever its name. A file that vanishes meanwhile is not there.

    What cannot be looked into goes to `on_problem`, and the walk goes on: after one without a problem,
    a file that was not yielded is not there.
    """
    root = os.path.abspath(root)
    try:
        status = os.stat(root)
    except (OSError, ValueError) as error:
        on_problem(ScanProblem(root, _why(error)))
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _Walk(root, exclude, on_problem).run()
    elif stat.S_ISREG(status.st_mode):
        yield _stamp(root, status)
    else:
        on_problem(ScanProblem(root, "neither a folder nor a file"))


class _Walk:
    """One walk: the folders that wait, and those that it has seen."""

    def __init__(self, root: str, exclude: Sequence[str], on_problem: Callable[[ScanProblem], None]) -> None:
        # Where a path relative to the root begins.
        self.prefix = len(root) if root.endswith(os.sep) else len(root) + 1
        self.excluded = excluder(exclude) if exclude else None
        self.on_problem = on_problem
        self.seen: set[tuple[int, int] | str] = set()
        self.links = deque([root])

    def run(self) -> Iterator[Stamp]:
        while self.links:
            folders = [self.links.popleft()]
            while folders:
                path = folders.pop()
                if not self._is_new(path):
                    continue
                inside: list[str] = []
                yield from self._folder(path, inside)
                folders.extend(reversed(inside))

    def _is_new(self, path: str) -> bool:
        try:
            status = os.stat(path)
        except OSError as error:
            self.on_problem(ScanProblem(path, _why(error)))
            return False
        # Some network and FUSE drives number no inodes.
        key = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    def _folder(self, path: str, inside: list[str]) -> Iterator[Stamp]:
        """Yield the photos in one folder, and put its folders into `inside` or, linked, into `links`."""
        for entry in self._entries(path):
            try:
                if entry.is_dir():
                    if entry.name not in SYSTEM_FOLDERS and not self._skipped(entry, True):
                        (self.links if entry.is_symlink() else inside).append(entry.path)
                elif is_photo_name(entry.name) and not self._skipped(entry, False):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield _stamp(entry.path, status)
            except OSError as error:
                if error.errno not in _GONE:
                    self.on_problem(ScanProblem(entry.path, _why(error)))

    def _entries(self, path: str) -> list[os.DirEntry[str]]:
        found: list[os.DirEntry[str]] = []
        try:
            with os.scandir(path) as entries:
                found.extend(entry for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            self.on_problem(ScanProblem(path, _why(error)))
        found.sort(key=lambda entry: entry.name)
        return found

    def _skipped(self, entry: os.DirEntry[str], folder: bool) -> bool:
        if self.excluded is None:
            return False
        relative = entry.path[self.prefix :]
        return self.excluded(entry.name, relative.replace(os.sep, "/"), folder)


def stamp_file(path: str) -> Stamp:
    """The stamp of one file. Raises `UnreadablePhoto` where there is none, or no regular file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise UnreadablePhoto(path, _why(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadablePhoto(path, "not a file")
    return _stamp(os.path.abspath(path), status)


def _stamp(path: str, status: os.stat_result) -> Stamp:
    return Stamp(path, status.st_size, status.st_mtime_ns, status.st_dev)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def is_under(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it, at a boundary between names."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
