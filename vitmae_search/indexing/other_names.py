"""Find files that are seen under two names: by a link, or because their folder is mounted twice."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping

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
    rows_first = [stamp for stamp in stamps.values() if stamp.path in known]
    rows_first += [stamp for stamp in stamps.values() if stamp.path not in known]
    recorded = catalog.photos_by_inode(list({stamp.inode for stamp in rows_first if stamp.inode}))
    seen = {
        (row.stamp.device, row.stamp.inode or 0): row.stamp for row in recorded if row.photo_id in settled
    }
    others: set[str] = set()
    new: defaultdict[int, list[Stamp]] = defaultdict(list)
    for stamp in rows_first:
        if not stamp.inode:
            continue
        first = seen.setdefault((stamp.device, stamp.inode), stamp)
        if first is not stamp and _same_values(first, stamp):
            others.add(stamp.path)
        elif stamp.path not in known:
            new[stamp.inode].append(stamp)
    for row in recorded:
        if row.photo_id not in settled and row.stamp.path not in known:
            others |= {stamp.path for stamp in new[row.stamp.inode or 0] if _is_file_of(row.stamp, stamp)}
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
