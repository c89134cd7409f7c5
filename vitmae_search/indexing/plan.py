"""What a walk means for the catalogue. Pure: it looks at no disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vitmae_search.catalog import KnownFile
from vitmae_search.records import Failure, Stamp


@dataclass(frozen=True, slots=True)
class Job:
    """A file to read. `known` is its row in the catalogue, None for a path that has none."""

    stamp: Stamp
    known: KnownFile | None = None


@dataclass(slots=True)
class Plan:
    """The files of a walk, each in one place, and the rows that it did not see.

    `jobs` are new, changed, or without a vector in this space, in the order of the walk. `returned` are
    ids of rows that were missing and are here again as they were, whatever this space has of them.
    `failed` are known failures whose file has not changed. `renumbered` are ids of unchanged rows by
    the device that they are now on, where the system has numbered it anew. `unseen` are the rows of the
    walked folders that the walk did not come by, missing before or not; `forgotten` the paths of such
    failures.
    """

    jobs: list[Job] = field(default_factory=list)
    unchanged: int = 0
    returned: list[int] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    renumbered: dict[int, list[int]] = field(default_factory=dict)
    unseen: list[KnownFile] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


def make_plan(
    stamps: Iterable[Stamp],
    known: Mapping[str, KnownFile],
    failures: Mapping[str, Failure],
    *,
    retry_failed: bool = False,
) -> Plan:
    """Compare the files of a walk with the rows and failures under the folders walked, both by path."""
    plan = Plan()
    seen: set[str] = set()
    for stamp in stamps:
        seen.add(stamp.path)
        _place(plan, stamp, known.get(stamp.path), failures.get(stamp.path), retry_failed)
    plan.unseen = [row for path, row in known.items() if path not in seen]
    plan.forgotten = [path for path in failures if path not in seen]
    return plan


def _place(
    plan: Plan, stamp: Stamp, row: KnownFile | None, failure: Failure | None, retry_failed: bool
) -> None:
    if row is not None and row.missing and row.stamp == stamp:
        plan.returned.append(row.photo_id)
    if failure is not None and (failure.size, failure.mtime_ns) == (stamp.size, stamp.mtime_ns):
        if retry_failed:
            plan.jobs.append(Job(stamp, row))
        else:
            plan.failed.append(failure)
    elif row is None or row.stamp != stamp or not row.embedded:
        plan.jobs.append(Job(stamp, row))
    else:
        plan.unchanged += 1
        if row.stamp.device != stamp.device:
            plan.renumbered.setdefault(stamp.device, []).append(row.photo_id)
