"""Walk a folder: which photos are there, and their stamps."""

from __future__ import annotations

import errno
import mimetypes
import os
import re
import stat
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from vitmae_search.address import is_address
from vitmae_search.errors import UnreadablePhoto
from vitmae_search.photos.formats import HEAD_BYTES, PHOTO_SUFFIXES, holds_photo
from vitmae_search.photos.live import is_part_of_live_photo, live_stems
from vitmae_search.records import ScanProblem, Stamp, is_video_name
from vitmae_search.regular_file import open_regular_file

# Folders that systems and programs put beside photos: bins, snapshots, thumbnails, caches.
SYSTEM_FOLDERS = frozenset(
    {
        "thumbs",
        ".thumbs",
        "_thumbs",
        "thumbnails",
        ".thumbnails",
        ".@__thumb",
        "cache",
        "caches",
        ".cache",
        ".picasaoriginals",
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
_OTHER_SUFFIXES = frozenset(
    {suffix for suffix, kind in mimetypes.MimeTypes(()).types_map[1].items() if not kind.startswith("image/")}
    | {".aae", ".db", ".ini", ".insv", ".json", ".log", ".lrv", ".md", ".mkv", ".mts", ".thm", ".xmp"}
)
"""Names of what is certainly no photo, such as films and sidecar files: they are not opened to see."""
_SYSTEM_NAMES = frozenset(name.lower() for name in SYSTEM_FOLDERS)
_CACHE_SUFFIXES = (".lrdata",)  # Lightroom's previews
# In a library of Apple's programs the photos are in "originals" or "Masters", and these hold copies of them.
_LIBRARY_SUFFIXES = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")
_LIBRARY_CACHES = frozenset({"resources", "private", "database", "previews"})
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def scan(
    root: str,
    *,
    exclude: Sequence[str] = (),
    on_problem: Callable[[ScanProblem], None],
    on_other: Callable[[str], None] | None = None,
    on_left_out: Callable[[str], None] | None = None,
    videos: bool = False,
) -> Iterator[Stamp]:
    """Yield the stamp of every photo under a folder, in a fixed order, with one `stat` for each file.

    Photos are known by their suffix. A file with another one, or none, is a photo if it begins as one.

    A folder's files come sorted by name, then its folders, sorted. Names with a leading dot and
    `SYSTEM_FOLDERS` are skipped. Links are followed. A folder is entered once, whatever leads to it: under
    its own path if that is under `root`, as linked folders are walked after the real ones. Broken links,
    FIFOs, sockets and devices are skipped and never opened, as is a file that vanishes meanwhile.

    Args:
        root: The folder. A file is yielded itself, whatever its name.
        exclude: Patterns of what to skip; see `exclude_filter`.
        on_problem: Called with what cannot be read; the walk goes on. If it was not called, every photo
            that exists was yielded.
        on_other: Called with the path of each file that is no photo.
        on_left_out: Called with the path of each folder of a system's or another program's that is skipped;
            see `is_system_folder`.
        videos: Yield videos, too, but for the moving parts of Live photos.
    """
    root = os.path.abspath(root)
    try:
        status = os.stat(root)
    except (OSError, ValueError) as error:
        on_problem(ScanProblem(root, _reason(error)))
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _Walk(root, exclude, on_problem, on_other, on_left_out, videos).run()
    elif stat.S_ISREG(status.st_mode):
        yield _stamp(root, status)
    else:
        on_problem(ScanProblem(root, "neither a folder nor a file"))


class _Walk:
    """One walk: the folders to enter, and those that it has entered."""

    def __init__(
        self,
        root: str,
        exclude: Sequence[str],
        on_problem: Callable[[ScanProblem], None],
        on_other: Callable[[str], None] | None,
        on_left_out: Callable[[str], None] | None,
        videos: bool,
    ) -> None:
        # Where a path relative to the root begins.
        self.prefix = len(root) if root.endswith(os.sep) else len(root) + 1
        self.excluded = exclude_filter(exclude) if exclude else None
        self.on_problem = on_problem
        self.on_other = on_other
        self.on_left_out = on_left_out
        self.videos = videos
        self.seen: set[tuple[int, int] | str] = set()
        self.links = deque([root])

    def run(self) -> Iterator[Stamp]:
        while self.links:
            folders = [self.links.popleft()]
            while folders:
                path = folders.pop()
                if not self._is_new(path):
                    continue
                subfolders: list[str] = []
                yield from self._folder(path, subfolders)
                folders.extend(reversed(subfolders))

    def _is_new(self, path: str) -> bool:
        try:
            status = os.stat(path)
        except OSError as error:
            self.on_problem(ScanProblem(path, _reason(error)))
            return False
        # Some network and FUSE drives have no inode numbers.
        key = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    def _folder(self, path: str, subfolders: list[str]) -> Iterator[Stamp]:
        """Yield the photos in one folder; append its folders to `subfolders` or, linked ones, to `links`."""
        entries = self._entries(path)
        live: set[str] | None = None  # few folders have videos
        for entry in entries:
            try:
                if entry.is_dir():
                    self._add_folder(path, entry, subfolders)
                elif entry.name[0] != "." and not self._skipped(entry, False):
                    if self.videos and is_video_name(entry.name):
                        live = live_stems([one.name for one in entries]) if live is None else live
                        is_photo = not is_part_of_live_photo(entry.name, live)
                    else:
                        is_photo = is_photo_name(entry.name) or _begins_as_photo(entry)
                    if not is_photo:
                        if self.on_other is not None and entry.is_file():
                            self.on_other(entry.path)
                        continue
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield _stamp(entry.path, status)
            except OSError as error:
                if error.errno not in _VANISHED:
                    self.on_problem(ScanProblem(entry.path, _reason(error)))

    def _add_folder(self, parent: str, entry: os.DirEntry[str], subfolders: list[str]) -> None:
        if is_system_folder(parent, entry.name):
            if self.on_left_out is not None:
                self.on_left_out(entry.path)
        elif not self._skipped(entry, True):
            (self.links if entry.is_symlink() else subfolders).append(entry.path)

    def _entries(self, path: str) -> list[os.DirEntry[str]]:
        found: list[os.DirEntry[str]] = []
        try:
            with os.scandir(path) as entries:
                found.extend(e for e in entries if e.name[0] != "." or e.name in SYSTEM_FOLDERS)
        except OSError as error:
            self.on_problem(ScanProblem(path, _reason(error)))
        found.sort(key=lambda entry: entry.name)
        return found

    def _skipped(self, entry: os.DirEntry[str], folder: bool) -> bool:
        if self.excluded is None:
            return False
        relative = entry.path[self.prefix :]
        return self.excluded(entry.name, relative.replace(os.sep, "/"), folder)


def stamp_file(path: str) -> Stamp:
    """Return the stamp of one file.

    Raises:
        UnreadablePhoto: It is absent, or no regular file.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise UnreadablePhoto(path, _reason(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadablePhoto(path, "not a file")
    return _stamp(os.path.abspath(path), status)


def _stamp(path: str, status: os.stat_result) -> Stamp:
    return Stamp(path, status.st_size, status.st_mtime_ns, status.st_dev, status.st_ctime_ns, status.st_ino)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def is_system_folder(parent: str, name: str) -> bool:
    """Say whether the walk leaves a folder out because a system or a program keeps copies of photos in it.

    Args:
        parent: The path of the folder that it is in.
        name: The folder's name.
    """
    lower = name.lower()
    if lower in _SYSTEM_NAMES or lower.endswith(_CACHE_SUFFIXES):
        return True
    return lower in _LIBRARY_CACHES and parent.lower().endswith(_LIBRARY_SUFFIXES)


def is_photo_name(name: str) -> bool:
    """Say whether the walk takes a file of this name for a photo: by its suffix, in any letter case."""
    return suffix_of(name) in PHOTO_SUFFIXES


def may_hold_photo(name: str) -> bool:
    """Say whether a file of this name is opened to see: no suffix says that it is something else."""
    return suffix_of(name) not in _OTHER_SUFFIXES


def _begins_as_photo(entry: os.DirEntry[str]) -> bool:
    if not may_hold_photo(entry.name) or not entry.is_file():
        return False
    with open_regular_file(entry.path) as file:
        return holds_photo(file.read(HEAD_BYTES), suffix_of(entry.name))


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, with its dot: ".jpg"; "" where it has none."""
    return os.path.splitext(name)[1].lower().rstrip()


def path_on_disk(path: str) -> str:
    """Return an absolute path as its names are spelled on disk, whatever the Unicode form of their accents.

    An accent may be part of its letter (composed) or follow it (decomposed): keyboards give the first, some
    systems and archives store the second. A path that is there, or is not there in any form, is returned as
    it is.
    """
    parent, name = os.path.split(path)
    if path.isascii() or is_address(path) or not name or os.path.lexists(path):
        return path
    parent, wanted = path_on_disk(parent), unicodedata.normalize("NFC", name)
    try:
        names = os.listdir(parent)
    except OSError:
        return path
    alike = (other for other in names if unicodedata.normalize("NFC", other) == wanted)
    return os.path.join(parent, next(alike, name))


def is_under(path: str, folder: str) -> bool:
    """Say whether `path` is `folder` or lies in it.

    Args:
        path: A path.
        folder: A folder's path, without "..".
    """
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def exclude_filter(patterns: Sequence[str]) -> Callable[[str, str, bool], bool]:
    """Compile patterns in the manner of `.gitignore`.

    A pattern without "/" is matched with the name, at any depth; one with a "/" inside or in front is
    matched with the path from the root. A "/" at the end matches folders alone. `*` and `?` stay within
    one component, `**` crosses them, `[abc]` and `[!abc]` are one character. Letter case counts. An excluded
    folder is not entered, so that all below it is excluded. Composed and decomposed accents are equal.

    Returns:
        A function (name, relative, folder) -> excluded: `name` is the last component, `relative` the path
        from the root with "/" between components, `folder` whether it is one.
    """
    tests = [_compile(pattern) for pattern in patterns if pattern.strip("/")]

    def excluded(name: str, relative: str, folder: bool) -> bool:
        if not relative.isascii():
            name, relative = (unicodedata.normalize("NFC", text) for text in (name, relative))
        return any(
            regex.fullmatch(relative if by_path else name) is not None
            for regex, by_path, folders_only in tests
            if folder or not folders_only
        )

    return excluded


def _compile(pattern: str) -> tuple[re.Pattern[str], bool, bool]:
    body = unicodedata.normalize("NFC", pattern).rstrip("/")
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
    parts = []
    for low, high, single in re.findall(r"(.)-(.)|(.)", members, flags=re.DOTALL):
        if single:
            parts.append(_escape(single))
        # A reversed range such as [z-a] matches nothing in a shell; `re` would refuse the whole pattern.
        elif low <= high:
            parts.append(f"{_escape(low)}-{_escape(high)}")
    if not parts:
        return "[^/]" if negated else "(?!)"
    return f"[^/{''.join(parts)}]" if negated else f"[{''.join(parts)}]"


def _escape(character: str) -> str:
    """Escape a member of a character class, a hyphen included: "--" has a meaning of its own in `re`."""
    return character if character.isalnum() or character == "_" else "\\" + character
