"""Walk the folders of a run: which photos are there, and which folders are offline.

An unmounted drive leaves an empty folder, no folder, or what lies beneath its mount point: in each case, on
another device. So a photo counts as missing only where its folder, or what is left of the path to it, is on
the device that it was on, and where the walk could look.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vitmae_search.address import absolute_path, is_address
from vitmae_search.catalog import CatalogWriter, KnownFile
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.indexing.other_names import find_other_names
from vitmae_search.indexing.videos import frame_stamps
from vitmae_search.photos import file_system, is_under, scan
from vitmae_search.photos.video import is_video_name
from vitmae_search.records import Failure, Root, ScanProblem, Stamp


@dataclass(slots=True)
class WalkResult:
    """All folders of a run after their walk; each photo is here once.

    What lies under an offline folder, or where the walk had a problem, is left out of the first three.

    Attributes:
        stamps: The photos that were seen, by path.
        rows: The catalogue's rows under the folders, by path.
        failures: The recorded failures under the folders, by path.
        offline: Folders that are offline.
        problems: What the walk could not look into.
        others: The files that are no photos.
        left_out: Folders of systems and other programs that were not entered.
        other_names: How many further names of files were seen: links to them, or their folder mounted twice.
            These are in none of the above.
    """

    stamps: dict[str, Stamp] = field(default_factory=dict)
    rows: dict[str, KnownFile] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    offline: list[str] = field(default_factory=list)
    problems: list[ScanProblem] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)
    other_names: int = 0


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


class FolderWalk:
    """Walks folders: first iterate over `stamps`, then call `finish`."""

    def __init__(
        self,
        catalog: CatalogWriter,
        paths: Sequence[str],
        exclude: Sequence[str],
        skip: str | None,
        videos: bool = False,
    ) -> None:
        """Prepare the walk.

        Args:
            catalog: Has the roots, rows and failures.
            paths: The folders, as of `resolve_folders`.
            exclude: Patterns of names and paths to skip; see `photos.scan`.
            skip: A folder of the library itself, which is never entered.
            videos: Whether to look at videos; those of a folder that has frames of videos in the catalogue
                are looked at in any case.
        """
        self._videos = videos
        self._frames: dict[str, dict[str, list[str]]] = {}
        self._catalog = catalog
        self._paths = paths
        self._exclude = exclude
        self._skip = skip
        self._stamps: dict[str, dict[str, Stamp]] = {path: {} for path in paths}
        self._problems: dict[str, list[ScanProblem]] = {path: [] for path in paths}
        self._others: set[str] = set()
        self._left_out: set[str] = set()
        self._only_other_names: set[str] = set()

    def stamps(self) -> Iterator[Stamp]:
        """Walk the folders and yield each photo, once for each folder that holds it."""
        for path in self._paths:
            if not _is_there(path):
                continue
            skip = _path_within(path, self._skip)
            walk = scan(
                path,
                exclude=self._exclude,
                on_problem=self._problems[path].append,
                on_other=self._others.add,
                on_left_out=self._left_out.add,
                videos=True,
            )
            for stamp in walk:
                if skip is None or not is_under(stamp.path, skip):
                    for one in self._with_frames(path, stamp) if is_video_name(stamp.path) else (stamp,):
                        self._stamps[path][one.path] = one
                        yield one

    def _with_frames(self, folder: str, stamp: Stamp) -> Sequence[Stamp]:
        """The stamps of a video's known frames, else its own; none where videos are left out."""
        if folder not in self._frames:
            self._frames[folder] = self._catalog.video_frames(folder)
        frames = self._frames[folder]
        if stamp.path in frames:
            return frame_stamps(stamp, frames[stamp.path])
        if self._videos or frames:
            return (stamp,)
        self._others.add(stamp.path)
        return ()

    def finish(self, space_id: int) -> WalkResult:
        """Decide which folders are offline, record them as roots, and return what the run is about.

        Args:
            space_id: The space whose vectors and failures count.
        """
        roots = {root.path: root for root in self._catalog.roots()}
        result, protected, offline = WalkResult(), set[str](), list[str]()
        result.others = {
            path for path in self._others if self._skip is None or not is_under(path, self._skip)
        }
        result.left_out = self._left_out
        rows_of = {path: list(self._catalog.known_files(path, space_id)) for path in self._paths}
        known = {row.stamp.path for rows in rows_of.values() for row in rows}
        result.other_names = self._drop_other_names(known)
        for path in sorted(self._paths, key=len):
            rows = rows_of[path]
            recorded_device = roots[path].device if path in roots else None
            unread = [problem.path for problem in self._problems[path]]
            folder = WalkedFolder(
                path, _is_there(path), device_of(path), recorded_device, self._stamps[path], unread
            )
            state = folder_state(folder, rows)
            self._record_root(folder, state, roots)
            result.problems += self._problems[path]
            offline += [path] * state.offline
            result.offline += [path] * state.offline + list(state.offline_folders)
            protected |= state.protected
            result.stamps |= self._stamps[path]
            result.rows |= {row.stamp.path: row for row in rows}
            failures = {failure.path: failure for failure in self._catalog.failures(space_id, under=path)}
            result.failures |= failures
            protected |= {failed for failed in failures if folder.is_undecided(failed)}
        self._leave_out_undecided(result, protected, offline, roots)
        return result

    def _drop_other_names(self, known: Collection[str]) -> int:
        """Drop the stamps of files that another name stands for, and return how many.

        Args:
            known: Paths of the catalogue's rows under the folders.
        """
        stamps = {path: stamp for some in self._stamps.values() for path, stamp in some.items()}
        others = find_other_names(self._catalog, stamps, known)
        for folder, some in self._stamps.items():
            dropped = others & some.keys()
            for path in dropped:
                del some[path]
            if dropped and not some:
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
        stamps: The photos seen under it, by path.
        unread: Folders and files that the walk could not look into.
    """

    path: str
    exists: bool
    device: int | None
    recorded_device: int | None
    stamps: Mapping[str, Stamp]
    unread: Sequence[str] = ()

    def is_undecided(self, path: str) -> bool:
        """Whether `path` was not seen, and lies where the walk could not look."""
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
        rows: What the catalogue has under it.
    """
    held = [row for row in rows if not row.missing]
    devices = {row.stamp.device for row in held}
    found = {d for d in devices if _is_present([r.stamp for r in held if r.stamp.device == d], folder)}
    expected = {folder.recorded_device} if folder.recorded_device is not None else devices
    if (not folder.exists or (held and not found)) and folder.device not in expected:
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
