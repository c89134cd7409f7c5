"""Compare what a walk saw with the catalogue: which files are new, changed, unchanged or gone.

Pure: it reads neither files nor the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vitmae_search.catalog import KnownFile
from vitmae_search.records import Failure, Stamp


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A file to read. `known` is its row in the catalogue, None for a path that has none."""

    stamp: Stamp
    known: KnownFile | None = None


def needs_nothing(stamp: Stamp, row: KnownFile) -> bool:
    """Whether a file and its row are alike in all that a run looks at, so that neither is to be touched.

    Args:
        stamp: The file.
        row: Its row.
    """
    before = row.stamp
    return (
        row.embedded
        and not row.missing
        and stamp.size == before.size
        and stamp.mtime_ns == before.mtime_ns
        and stamp.ctime_ns == before.ctime_ns
        and stamp.inode == before.inode
        and stamp.device == before.device
    )


@dataclass(slots=True)
class Plan:
    """What to do with each file and each row; a file is in exactly one of the first three.

    Attributes:
        pending: Files to read, in the order of the walk: new, changed, or without a vector in this space.
        unchanged: Number of files that need nothing.
        failed: Known failures whose file has not changed.
        returned: Ids of rows that were missing and whose file is back as it was. Such a file is counted
            above as well.
        restamped: Stamps of unchanged files whose row has another device, inode or ctime, by photo id: the
            system has numbered their drive anew, or the row was written by an earlier version.
        unseen: Rows under the walked folders whose file the walk did not see, missing before or not.
        unseen_failures: Paths of failures whose file the walk did not see.
    """

    pending: list[PendingFile] = field(default_factory=list)
    unchanged: int = 0
    failed: list[Failure] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)
    restamped: dict[int, Stamp] = field(default_factory=dict)
    unseen: list[KnownFile] = field(default_factory=list)
    unseen_failures: list[str] = field(default_factory=list)


def make_plan(
    stamps: Iterable[Stamp],
    known: Mapping[str, KnownFile],
    failures: Mapping[str, Failure],
    *,
    tried_with: str = "",
    retry_failed: bool = False,
    rescan: bool = False,
) -> Plan:
    """Compare the files of a walk with the rows and failures under the walked folders.

    Args:
        stamps: The files that the walk saw.
        known: Rows of the catalogue by path.
        failures: Recorded failures by path.
        tried_with: The versions of what files are tried with; see `Failure`.
        retry_failed: Whether to read files again that failed and would fail again.
        rescan: Whether to read all files.
    """
    plan = Plan()
    seen: set[str] = set()
    for stamp in stamps:
        seen.add(stamp.path)
        row, failure = known.get(stamp.path), failures.get(stamp.path)
        unchanged = row is not None and stamp.unchanged_since(row.stamp)
        if row is not None and row.missing and unchanged:
            plan.returned.append(row.photo_id)
        if failure is not None and not (retry_failed or rescan) and failure.still_holds(stamp, tried_with):
            plan.failed.append(failure)
        elif failure is not None or rescan or row is None or not unchanged or not row.embedded:
            plan.pending.append(PendingFile(stamp, row))
        else:
            plan.unchanged += 1
            before = row.stamp
            if (before.device, before.ctime_ns, before.inode) != (stamp.device, stamp.ctime_ns, stamp.inode):
                plan.restamped[row.photo_id] = stamp
    plan.unseen = [row for path, row in known.items() if path not in seen]
    plan.unseen_failures = [path for path in failures if path not in seen]
    return plan
