"""Find files that are seen under two names: by a link, or because their folder is mounted twice."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import chain

from vitmae_search.catalog import Catalog
from vitmae_search.indexing.id_set import IdSet
from vitmae_search.records import Stamp


def find_other_names(
    catalog: Catalog, stamps: Mapping[str, Stamp], known: Collection[str], settled: IdSet
) -> set[str]:
    """Return the paths that lead to a file which another path stands for already.

    A path that the catalogue has as it is now is preferred, then one that it has, and then the first one.
    Files that their file system gives no inode are left alone.

    Args:
        catalog: Has the photos of other folders as well.
        stamps: The files of a walk, by path; those of `settled` may be left out.
        known: Paths of the catalogue's rows under the walked folders, but for those of `settled`.
        settled: Ids of rows that were seen by the walk, and that are as their files are.
    """
    seen: dict[tuple[int, int], Stamp] = {}
    elsewhere: defaultdict[int, list[Stamp]] = defaultdict(list)
    for row in catalog.photos_by_inode(stamp.inode for stamp in stamps.values() if stamp.inode):
        inode = row.stamp.inode or 0
        if row.photo_id in settled:
            seen[row.stamp.device, inode] = row.stamp
        elif row.stamp.path not in known:
            elsewhere[inode].append(row.stamp)
    others: set[str] = set()
    rows_first = chain(
        (stamp for stamp in stamps.values() if stamp.path in known),
        (stamp for stamp in stamps.values() if stamp.path not in known),
    )
    for stamp in rows_first:
        if not stamp.inode:
            continue
        first = seen.setdefault((stamp.device, stamp.inode), stamp)
        again = first is not stamp and _same_values(first, stamp)
        recorded = () if stamp.path in known else elsewhere.get(stamp.inode, ())
        if again or any(_is_file_of(one, stamp) for one in recorded):
            others.add(stamp.path)
    return others


def _same_values(one: Stamp, other: Stamp) -> bool:
    """Guard against file systems that give two files one inode."""
    return (one.size, one.mtime_ns) == (other.size, other.mtime_ns)


def _is_file_of(recorded: Stamp, stamp: Stamp) -> bool:
    """Whether a recorded path leads, now, to the file of `stamp`."""
    if recorded.path == stamp.path or not _same_values(recorded, stamp):
        return False
    try:
        status = os.stat(recorded.path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (stamp.device, stamp.inode)
