"""Which folders are away, so that nothing under them counts as gone.

An unmounted drive leaves an empty folder, no folder, or what lies beneath its mount point. A photo counts
as gone only where the walk of its folder had no problem and the folder is the one that it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitmae_search.catalog import KnownFile
from vitmae_search.records import Stamp


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
