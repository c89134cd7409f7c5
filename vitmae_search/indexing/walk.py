"""The folders that a run walks: checked, registered as roots, walked, and judged.

Which folders are away, so that nothing under them counts as gone.

An unmounted drive leaves an empty folder, no folder, or what lies beneath its mount point. A photo counts
as gone only where the walk of its folder had no problem and the folder is the one that it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vitmae_search.catalog import CatalogWriter, KnownFile
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.photos import is_under, scan
from vitmae_search.records import Failure, Root, ScanProblem, Stamp


@dataclass(frozen=True, slots=True)
class WalkedRoot:
    """A folder after its walk. `device` is its `st_dev`, None where it is not there.

    `recorded_device` is what the catalogue has for it, None where it was not indexed as a root.
    `stamps` are the photos seen under it, by path; `sound` says that the walk had no problem.
    """

    path: str
    device: int | None
    recorded_device: int | None
    stamps: Mapping[str, Stamp]
    sound: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be concluded from a walk.

    `offline`: the whole folder is away. `protected` are paths that are not gone though they were not
    seen, nor changed though something else is in their place; `offline_folders` the folders inside that
    hold those of another drive.
    """

    offline: bool
    protected: frozenset[str] = frozenset()
    offline_folders: tuple[str, ...] = ()


def judge(root: WalkedRoot, rows: Sequence[KnownFile]) -> Verdict:
    """Judge a walked folder by the rows that the catalogue has under it.

    Offline is a folder that is absent; or that held photos and now shows none; or that is on another
    device and does not show its photos. Within a folder that is there the same goes for
    all photos of one recorded device, other than the folder's: a drive that is mounted inside it.
    """
    held = [row for row in rows if not row.missing]
    if root.device is None or (held and root.sound and not root.stamps):
        return Verdict(offline=True)
    devices = {row.stamp.device for row in held}
    found = {d for d in devices if _is_there([row.stamp for row in held if row.stamp.device == d], root)}
    before = {root.recorded_device} if root.recorded_device is not None else devices
    if held and not found and root.device not in before:
        return Verdict(offline=True)
    protected: set[str] = set() if root.sound else {row.stamp.path for row in rows} - set(root.stamps)
    folders = []
    for device in sorted(devices - found - {root.device}):
        paths = [row.stamp.path for row in held if row.stamp.device == device]
        protected.update(paths)
        folders.append(os.path.commonpath([os.path.dirname(path) for path in paths]))
    return Verdict(False, frozenset(protected), tuple(folders))


def _is_there(recorded: Sequence[Stamp], root: WalkedRoot) -> bool:
    """Whether these photos of one device are there: one with its stamp, or half of them with their size.

    The latter is a copy on a new drive whose files got new dates.
    """
    at_place = [(stamp, root.stamps[stamp.path]) for stamp in recorded if stamp.path in root.stamps]
    if any(before == now for before, now in at_place):
        return True
    same_size = sum(before.size == now.size for before, now in at_place)
    return same_size > 0 and 2 * same_size >= len(recorded)


def is_gone(path: str) -> bool:
    """Whether there is no such file; false where that cannot be told (a folder that may not be read)."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


@dataclass(slots=True)
class Walked:
    """All folders of a run after their walk, taken together: each photo is here once.

    `stamps` are the photos that the run is about. `rows` and `failures` are what the catalogue has under
    the folders, by path, without what is away or could not be looked for; `offline` names folders.
    """

    stamps: dict[str, Stamp] = field(default_factory=dict)
    rows: dict[str, KnownFile] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    offline: list[str] = field(default_factory=list)
    problems: list[ScanProblem] = field(default_factory=list)


def check_folders(catalog: CatalogWriter, folders: Sequence[str]) -> list[str]:
    """The folders as absolute paths, each once; links in them are kept.

    Raises `LibraryError` for what is not a folder and holds nothing that the catalogue knows.
    """
    roots = {root.path for root in catalog.roots()}
    paths = list(dict.fromkeys(os.path.abspath(os.path.expanduser(folder)) for folder in folders))
    for path in paths:
        if os.path.isdir(path) or path in roots:
            continue
        if os.path.exists(path):
            raise LibraryError(f"{display_path(path)} is a file; name the folder that it is in")
        if next(iter(catalog.known_files(path, None)), None) is None:
            raise LibraryError(f"{display_path(path)} is not there; check the name, or attach its drive")
    return paths


class FolderWalk:
    """Walks the folders. `hidden` is a folder of ours, which is never looked into."""

    def __init__(
        self, catalog: CatalogWriter, paths: Sequence[str], exclude: Sequence[str], hidden: str | None
    ) -> None:
        self._catalog = catalog
        self._paths = paths
        self._exclude = exclude
        self._hidden = hidden
        self._stamps: dict[str, dict[str, Stamp]] = {path: {} for path in paths}
        self._problems: dict[str, list[ScanProblem]] = {path: [] for path in paths}

    def stamps(self) -> Iterator[Stamp]:
        """Walk; each photo comes once for each folder that holds it."""
        for path in self._paths:
            if not os.path.isdir(path):
                continue
            hidden = _inside(path, self._hidden)
            for stamp in scan(path, exclude=self._exclude, on_problem=self._problems[path].append):
                if hidden is None or not is_under(stamp.path, hidden):
                    self._stamps[path][stamp.path] = stamp
                    yield stamp

    def finish(self, space_id: int) -> Walked:
        """Judge each folder after its walk, register roots, and say what the run is about."""
        roots = {root.path: root for root in self._catalog.roots()}
        walked, kept_back, away = Walked(), set[str](), list[str]()
        for path in sorted(self._paths, key=len):
            rows = list(self._catalog.known_files(path, space_id))
            device = _device(path)
            recorded = roots[path].device if path in roots else None
            sound = not self._problems[path]
            verdict = judge(WalkedRoot(path, device, recorded, self._stamps[path], sound), rows)
            self._register(path, device, verdict, roots)
            walked.problems += self._problems[path]
            away += [path] * verdict.offline
            walked.offline += [path] * verdict.offline + list(verdict.offline_folders)
            kept_back |= verdict.protected
            walked.stamps |= self._stamps[path]
            walked.rows |= {row.stamp.path: row for row in rows}
            failures = {failure.path: failure for failure in self._catalog.failures(space_id, under=path)}
            walked.failures |= failures
            if not sound:
                kept_back |= set(failures) - set(self._stamps[path])
        self._leave_out(walked, kept_back, away, roots)
        return walked

    def _register(self, path: str, device: int | None, verdict: Verdict, roots: dict[str, Root]) -> None:
        """Remember the folder as a root, unless the walk of another root comes by it."""
        if path in roots:
            at = None if verdict.offline else device
            self._catalog.set_root(roots[path].root_id, offline=verdict.offline, device=at)
        elif not verdict.offline and not any(_reaches(root, path) for root in roots):
            roots[path] = self._catalog.add_root(path, device)

    def _leave_out(
        self, walked: Walked, kept_back: set[str], away: Sequence[str], roots: Mapping[str, Root]
    ) -> None:
        """Drop what no conclusion may be drawn about."""
        apart = [r for r in roots if r not in self._paths and any(is_under(r, p) for p in self._paths)]
        if not (kept_back or away or apart):
            return

        def concluded(path: str) -> bool:
            if path in kept_back or any(is_under(path, folder) for folder in away):
                return False
            # A root of its own below a walked folder, which the walk may not enter (its name is hidden).
            unreached = path not in walked.stamps and any(is_under(path, root) for root in apart)
            return not unreached or is_gone(path)

        walked.rows = {path: row for path, row in walked.rows.items() if concluded(path)}
        walked.failures = {path: failure for path, failure in walked.failures.items() if concluded(path)}
        walked.stamps = {path: stamp for path, stamp in walked.stamps.items() if concluded(path)}


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev if os.path.isdir(path) else None
    except OSError:
        return None


def _reaches(root: str, path: str) -> bool:
    """Whether a walk of `root` enters `path`: no component between them is hidden."""
    if not is_under(path, root):
        return False
    return not any(part.startswith(".") for part in os.path.relpath(path, root).split(os.sep))


def _inside(root: str, hidden: str | None) -> str | None:
    """`hidden` as a walk of `root` would name it, whatever links lead to `root`; None if it is not inside."""
    if hidden is None:
        return None
    real, real_root = os.path.realpath(hidden), os.path.realpath(root)
    if not is_under(real, real_root):
        return None
    return os.path.normpath(os.path.join(root, os.path.relpath(real, real_root)))
