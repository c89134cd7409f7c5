"""Walk the folders of a run: which photos are there, and which folders are offline.

An unmounted drive leaves an empty folder, no folder, or what lies beneath its mount point: in each case, on
another device. So a photo counts as missing only where its folder, or what is left of the path to it, is on
the device that it was on, and where the walk could look.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from vitmae_search.address import absolute_path, is_address
from vitmae_search.catalog import CatalogWriter, KnownFile
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.indexing.id_set import IdSet
from vitmae_search.indexing.other_names import find_other_names
from vitmae_search.indexing.plan import needs_nothing
from vitmae_search.indexing.videos import frame_stamps
from vitmae_search.photos import file_system, is_under, scan, suffix_of
from vitmae_search.records import Failure, Root, ScanProblem, Stamp, file_of, is_video_name

_COMPARED_TOGETHER = 1000
"""Photos whose rows are looked up in one query."""


@dataclass(slots=True)
class WalkResult:
    """All folders of a run after their walk; each photo is here once.

    Photos that are settled (see `needs_nothing`) are counted only: a library may have millions of them. What
    lies under an offline folder, or where the walk had a problem, is left out of the first three.

    Attributes:
        stamps: The photos that were seen and are not settled, by path.
        rows: The catalogue's rows under the folders that are not settled, by path.
        failures: The recorded failures under the folders, by path.
        settled: How many photos are settled.
        offline: Folders that are offline.
        problems: What the walk could not look into.
        others: How many files are no photos, by suffix.
        left_out: Folders of systems and other programs that were not entered.
        other_names: How many further names of files were seen: links to them, or their folder mounted twice.
            These are in none of the above.
    """

    stamps: dict[str, Stamp] = field(default_factory=dict)
    rows: dict[str, KnownFile] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    settled: int = 0
    offline: list[str] = field(default_factory=list)
    problems: list[ScanProblem] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    left_out: set[str] = field(default_factory=set)
    other_names: int = 0

    @property
    def found(self) -> int:
        """How many photos were seen, under any name."""
        return self.settled + len(self.stamps) + self.other_names


def resolve_folders(catalog: CatalogWriter, folders: Sequence[str]) -> list[str]:
    """Return the folders as absolute paths, each once, with links in them kept.

    Args:
        catalog: Knows the folders that were indexed before.
        folders: Paths as the person gave them.

    Raises:
        LibraryError: A path is a file, or is absent and the catalogue knows nothing under it.
    """
    roots = {root.path for root in catalog.roots()}
    paths = list(dict.fromkeys(map(absolute_path, folders)))
    for path in paths:
        if path in roots or file_system(path).is_folder(path):
            continue
        if os.path.exists(path) or next(iter(catalog.known_files(path, None)), None) is None:
            raise LibraryError(f"{display_path(path)} {file_system(path).why_no_folder(path)}")
    return paths


@dataclass(slots=True)
class _Seen:
    """What the walk of one folder has seen.

    Attributes:
        stamps: The photos that are not settled, by path.
        rows: Their rows, by path.
        failures: The recorded failures under the folder, by path.
        row_ids: Ids of the rows of all photos that were seen.
        settled_on: Devices of those that are settled.
        problems: What could not be looked into.
    """

    failures: dict[str, Failure] = field(default_factory=dict)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    rows: dict[str, KnownFile] = field(default_factory=dict)
    row_ids: IdSet = field(default_factory=IdSet)
    settled_on: set[int] = field(default_factory=set)
    problems: list[ScanProblem] = field(default_factory=list)


class FolderWalk:
    """Walks folders, and compares what it sees with the catalogue, some photos at a time.

    First iterate over `stamps`, then call `finish`.
    """

    def __init__(
        self,
        catalog: CatalogWriter,
        paths: Sequence[str],
        exclude: Sequence[str],
        skip: str | None,
        *,
        space_id: int,
        videos: bool = False,
        rescan: bool = False,
    ) -> None:
        """Prepare the walk.

        Args:
            catalog: Has the roots, rows and failures.
            paths: The folders, as of `resolve_folders`.
            exclude: Patterns of names and paths to skip; see `photos.scan`.
            skip: A folder of the library itself, which is never entered.
            space_id: The space whose vectors and failures count.
            videos: Whether to look at videos; those of a folder that has frames of videos in the catalogue
                are looked at in any case.
            rescan: Whether all photos are to be read, so that none is settled.
        """
        self._videos = videos
        self._rescan = rescan
        self._space_id = space_id
        self._frames: dict[str, dict[str, list[str]]] = {}
        self._catalog = catalog
        self._paths = paths
        self._exclude = exclude
        self._skip = skip
        self._seen = {path: _Seen() for path in paths}
        self._settled = IdSet()
        self._others: Counter[str] = Counter()
        self._left_out: set[str] = set()
        self._only_other_names: set[str] = set()

    def stamps(self) -> Iterator[Stamp]:
        """Walk the folders and yield each photo, once for each folder that holds it."""
        for path in self._paths:
            seen = self._seen[path]
            failures = self._catalog.failures(self._space_id, under=path)
            seen.failures = {failure.path: failure for failure in failures}
            some: list[Stamp] = []
            for stamp in self._stamps_in(path):
                yield stamp
                some.append(stamp)
                if len(some) == _COMPARED_TOGETHER:
                    self._compare(seen, some)
                    some = []
            self._compare(seen, some)

    def _stamps_in(self, path: str) -> Iterator[Stamp]:
        if not _is_there(path):
            return
        skip = _path_within(path, self._skip)
        walked_before = self._paths[: self._paths.index(path)]

        def add_other(other: str) -> None:
            inside = self._skip is not None and is_under(other, self._skip)
            if not inside and not any(_walk_reaches(before, other) for before in walked_before):
                self._others[suffix_of(other)] += 1

        walk = scan(
            path,
            exclude=self._exclude,
            on_problem=self._seen[path].problems.append,
            on_other=add_other,
            on_left_out=self._left_out.add,
            videos=True,
        )
        for stamp in walk:
            if skip is None or not is_under(stamp.path, skip):
                if not is_video_name(stamp.path):
                    yield stamp
                elif self._looks_at_videos(path):
                    yield from self._with_frames(path, stamp)
                else:
                    add_other(stamp.path)

    def _looks_at_videos(self, folder: str) -> bool:
        if folder not in self._frames:
            frames = self._frames[folder] = self._catalog.video_frames(folder)
            for path in self._seen[folder].failures.keys() - set(chain.from_iterable(frames.values())):
                if file_of(path) != path:
                    frames.setdefault(file_of(path), []).append(path)
        return self._videos or bool(self._frames[folder])

    def _with_frames(self, folder: str, stamp: Stamp) -> Sequence[Stamp]:
        """The stamps of a video's known frames, those that failed included, else its own."""
        frames = self._frames[folder]
        return frame_stamps(stamp, frames[stamp.path]) if stamp.path in frames else (stamp,)

    def _compare(self, seen: _Seen, stamps: Sequence[Stamp]) -> None:
        """Keep the photos that are not settled, with their rows."""
        rows = self._catalog.files_at([stamp.path for stamp in stamps], self._space_id)
        for stamp in stamps:
            row = rows.get(stamp.path)
            if row is not None:
                seen.row_ids.add(row.photo_id)
                if not self._rescan and stamp.path not in seen.failures and needs_nothing(stamp, row):
                    self._settled.add(row.photo_id)
                    seen.settled_on.add(row.stamp.device)
                    continue
                seen.rows[stamp.path] = row
            seen.stamps[stamp.path] = stamp

    def finish(self) -> WalkResult:
        """Decide which folders are offline, record them as roots, and return what the run is about."""
        roots = {root.path: root for root in self._catalog.roots()}
        result, protected, offline = WalkResult(), set[str](), list[str]()
        result.others = self._others
        result.left_out = self._left_out
        result.settled = len(self._settled)
        for path, seen in self._seen.items():
            seen.rows |= {row.stamp.path: row for row in self._unseen_rows(path)}
        result.other_names = self._drop_other_names()
        for path in sorted(self._paths, key=len):
            seen = self._seen[path]
            recorded_device = roots[path].device if path in roots else None
            folder = WalkedFolder(
                path,
                _is_there(path),
                device_of(path),
                recorded_device,
                seen.stamps,
                [problem.path for problem in seen.problems],
                frozenset(seen.settled_on),
            )
            state = folder_state(folder, list(seen.rows.values()))
            self._record_root(folder, state, roots)
            result.problems += seen.problems
            offline += [path] * state.offline
            result.offline += [path] * state.offline + list(state.offline_folders)
            protected |= state.protected
            result.stamps |= seen.stamps
            result.rows |= seen.rows
            result.failures |= seen.failures
            protected |= {failed for failed in seen.failures if folder.is_undecided(failed)}
        result.rows = {path: row for path, row in result.rows.items() if row.photo_id not in self._settled}
        self._leave_out_undecided(result, protected, offline, roots)
        return result

    def _unseen_rows(self, path: str) -> list[KnownFile]:
        """Return the rows under a folder whose file its walk did not see, by path."""
        seen = self._seen[path].row_ids
        unseen = [photo_id for photo_id in self._catalog.file_ids(path) if photo_id not in seen]
        return self._catalog.files_by_id(unseen, self._space_id)

    def _drop_other_names(self) -> int:
        """Drop the stamps of files that another name stands for, and return how many."""
        stamps = {path: stamp for seen in self._seen.values() for path, stamp in seen.stamps.items()}
        known = {path for seen in self._seen.values() for path in seen.rows}
        others = find_other_names(self._catalog, stamps, known, self._settled)
        for folder, seen in self._seen.items():
            dropped = others & seen.stamps.keys()
            for path in dropped:
                del seen.stamps[path]
            if dropped and not seen.stamps and not seen.settled_on:
                self._only_other_names.add(folder)
        return len(others)

    def _record_root(self, folder: WalkedFolder, state: FolderState, roots: dict[str, Root]) -> None:
        """Record the folder as a root, unless the walk of another root reaches it."""
        path = folder.path
        if path in roots:
            present_on = None if state.offline else folder.device
            self._catalog.set_root(roots[path].root_id, offline=state.offline, device=present_on)
        elif path in self._only_other_names:
            return  # it is a link to, or another mount of, a folder that is known
        elif folder.exists and not state.offline and not any(_walk_reaches(root, path) for root in roots):
            roots[path] = self._catalog.add_root(path, folder.device)

    def _leave_out_undecided(
        self, result: WalkResult, protected: set[str], offline: Sequence[str], roots: Mapping[str, Root]
    ) -> None:
        """Drop the paths of which the walk says nothing."""
        nested = [r for r in roots if r not in self._paths and any(is_under(r, p) for p in self._paths)]
        if not (protected or offline or nested):
            return

        def decided(path: str) -> bool:
            if path in protected or any(is_under(path, folder) for folder in offline):
                return False
            # The walk may not enter a root of its own inside a walked folder, such as one with a hidden name.
            unreached = path not in result.stamps and any(is_under(path, root) for root in nested)
            return not unreached or is_gone(path)

        result.rows = {path: row for path, row in result.rows.items() if decided(path)}
        result.failures = {path: failure for path, failure in result.failures.items() if decided(path)}
        result.stamps = {path: stamp for path, stamp in result.stamps.items() if decided(path)}


@dataclass(frozen=True, slots=True)
class WalkedFolder:
    """One folder after its walk.

    Attributes:
        path: The folder.
        exists: Whether it is there.
        device: Its `st_dev`; where it is not there, that of the nearest folder above it. None: not known.
        recorded_device: The device that the catalogue has for it, None where it is no root.
        stamps: The photos seen under it that are not settled, by path.
        unread: Folders and files that the walk could not look into.
        settled_on: Devices of the photos that are settled.
    """

    path: str
    exists: bool
    device: int | None
    recorded_device: int | None
    stamps: Mapping[str, Stamp]
    unread: Sequence[str] = ()
    settled_on: frozenset[int] = frozenset()

    def is_undecided(self, path: str) -> bool:
        """Whether `path`, which is not settled, was not seen, and lies where the walk could not look."""
        return path not in self.stamps and any(is_under(path, folder) for folder in self.unread)


@dataclass(frozen=True, slots=True)
class FolderState:
    """What a walk says of a folder.

    Attributes:
        offline: Whether the whole folder is offline: nothing under it changes.
        protected: Paths that were not seen but are not missing, and paths that must not count as changed.
        offline_folders: Folders inside that hold the protected photos of another drive.
    """

    offline: bool
    protected: frozenset[str] = frozenset()
    offline_folders: tuple[str, ...] = ()


def folder_state(folder: WalkedFolder, rows: Sequence[KnownFile]) -> FolderState:
    """Decide whether a folder, or a drive mounted inside it, is offline.

    A folder is offline if it is on another device than before, or would be if it were there, and does not
    show its photos. The same holds inside it for all photos of one recorded device other than the folder's:
    those of a drive that was mounted there.

    Args:
        folder: The folder after its walk.
        rows: What the catalogue has under it that is not settled.
    """
    held = [row for row in rows if not row.missing]
    devices = folder.settled_on | {row.stamp.device for row in held}
    found = folder.settled_on | {
        device
        for device in devices - folder.settled_on
        if _is_present([row.stamp for row in held if row.stamp.device == device], folder)
    }
    expected = {folder.recorded_device} if folder.recorded_device is not None else devices
    if (not folder.exists or (devices and not found)) and folder.device not in expected:
        return FolderState(offline=True)
    protected = {row.stamp.path for row in rows if folder.is_undecided(row.stamp.path)}
    offline_folders = []
    for device in sorted(devices - found - {folder.device}):
        paths = [row.stamp.path for row in held if row.stamp.device == device]
        place = os.path.commonpath([os.path.dirname(path) for path in paths])
        if device_of(place) != device:
            protected.update(paths)
            offline_folders.append(place)
    return FolderState(False, frozenset(protected), tuple(offline_folders))


def _is_present(recorded: Sequence[Stamp], folder: WalkedFolder) -> bool:
    """Whether these photos of one device are there: one has its stamp, or half of them their size.

    The latter is a copy on a new drive whose files got new dates.
    """
    pairs = [(stamp, folder.stamps[stamp.path]) for stamp in recorded if stamp.path in folder.stamps]
    if any(before == now for before, now in pairs):
        return True
    same_size = sum(before.size == now.size for before, now in pairs)
    return same_size > 0 and 2 * same_size >= len(recorded)


def is_gone(path: str) -> bool:
    """Say whether there is no such file; false where that is not known, as in a folder without access."""
    return file_system(path).is_gone(path)


def device_of(path: str) -> int | None:
    """Return the device or bucket that a path is on; see `FileSystem.identity`. None: that cannot be told."""
    return file_system(path).identity(path)


def _is_there(path: str) -> bool:
    """Whether a folder can be walked; on a storage, the walk itself says why not."""
    return is_address(path) or os.path.isdir(path)


def _walk_reaches(root: str, path: str) -> bool:
    """Whether a walk of `root` enters `path`: no name between them is hidden."""
    if not is_under(path, root):
        return False
    return not any(part.startswith(".") for part in os.path.relpath(path, root).split(os.sep))


def _path_within(root: str, folder: str | None) -> str | None:
    """`folder` as a walk of `root` would name it, whatever links lead to `root`; None if it is not inside."""
    if folder is None or is_address(root):
        return None
    real, real_root = os.path.realpath(folder), os.path.realpath(root)
    if not is_under(real, real_root):
        return None
    return os.path.normpath(os.path.join(root, os.path.relpath(real, real_root)))
