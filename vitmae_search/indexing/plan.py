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


@dataclass(slots=True)
class Plan:
    """What to do with each file and each row; a file is in exactly one of the first three.

    Attributes:
        pending: Files to read, in the order of the walk: new, changed, or without a vector in this space.
        unchanged: Number of files that need nothing.
        failed: Known failures whose file has not changed.
        returned: Ids of rows that were missing and whose file is back as it was. Such a file is counted
            above as well.
        renumbered: Ids of unchanged rows, by the device number that the system has given their drive now.
        unseen: Rows under the walked folders whose file the walk did not see, missing before or not.
        unseen_failures: Paths of failures whose file the walk did not see.
    """

    pending: list[PendingFile] = field(default_factory=list)
    unchanged: int = 0
    failed: list[Failure] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)
    renumbered: dict[int, list[int]] = field(default_factory=dict)
    unseen: list[KnownFile] = field(default_factory=list)
    unseen_failures: list[str] = field(default_factory=list)


def make_plan(
    stamps: Iterable[Stamp],
    known: Mapping[str, KnownFile],
    failures: Mapping[str, Failure],
    *,
    retry_failed: bool = False,
) -> Plan:
    """Compare the files of a walk with the rows and failures under the walked folders.

    Args:
        stamps: The files that the walk saw.
        known: Rows of the catalogue by path.
        failures: Recorded failures by path.
        retry_failed: Whether to read files again that failed and have not changed since.
    """
    plan = Plan()
    seen: set[str] = set()
    for stamp in stamps:
        seen.add(stamp.path)
        _plan_file(plan, stamp, known.get(stamp.path), failures.get(stamp.path), retry_failed)
    plan.unseen = [row for path, row in known.items() if path not in seen]
    plan.unseen_failures = [path for path in failures if path not in seen]
    return plan


def _plan_file(
    plan: Plan, stamp: Stamp, row: KnownFile | None, failure: Failure | None, retry_failed: bool
) -> None:
    if row is not None and row.missing and row.stamp == stamp:
        plan.returned.append(row.photo_id)
    if failure is not None and (failure.size, failure.mtime_ns) == (stamp.size, stamp.mtime_ns):
        if retry_failed:
            plan.pending.append(PendingFile(stamp, row))
        else:
            plan.failed.append(failure)
    elif row is None or row.stamp != stamp or not row.embedded:
        plan.pending.append(PendingFile(stamp, row))
    else:
        plan.unchanged += 1
        if row.stamp.device != stamp.device:
            plan.renumbered.setdefault(stamp.device, []).append(row.photo_id)
