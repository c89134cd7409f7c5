"""From the videos of a run to their frames, which are then read as photos are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import PhotoError
from vitmae_search.indexing.plan import PendingFile, Plan
from vitmae_search.indexing.stored_files import raise_if_unreachable
from vitmae_search.photos import PhotoProcesses
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.photos.video import find_frames
from vitmae_search.records import Failure, Stamp, VideoFrame, file_of, is_video_name

_UNREAD = "not read before its run ended; index its folder again"
_NOTED_TOGETHER = 1000


def expand_videos(
    plan: Plan, catalog: CatalogWriter, space_id: int, *, rescan: bool, on_video: Callable[[str], None]
) -> dict[str, PhotoError]:
    """Put the frames of new and changed videos into a plan, in place of the videos or their earlier frames.

    Args:
        plan: The plan, which is changed.
        catalog: Has the videos' earlier frames, and gets a note of those that are to be read.
        space_id: The space that frames are embedded for.
        rescan: Whether all videos are to be looked through.
        on_video: Called with each video that is looked through; what it raises ends that.

    Returns:
        Why videos could not be looked through, by path. They stay in the plan.

    Raises:
        StorageUnreachable: Nothing can be read of a video's bucket now.
    """
    videos = _changed_videos(plan.pending, rescan)
    if not videos:
        return {}
    before = {file.stamp.path for file in plan.pending if file_of(file.stamp.path) in videos}
    plan.pending = [file for file in plan.pending if file_of(file.stamp.path) not in videos]
    frames: list[PendingFile] = []
    errors: dict[str, PhotoError] = {}
    processes, workers = PhotoProcesses(), default_workers()

    def look_through(path: str) -> list[float] | PhotoError:
        try:
            return processes.call(find_frames, path, path=path)
        except PhotoError as error:
            return error

    found = prefetch(videos, look_through, workers=workers, ahead=2 * workers, end_work=processes.close)
    with closing(found):
        for (video, stamp), seconds in zip(videos.items(), found, strict=True):
            on_video(video)
            raise_if_unreachable(video, seconds)
            if isinstance(seconds, PhotoError):
                errors[video] = seconds
                plan.pending.append(PendingFile(stamp))
                continue
            paths = [VideoFrame(video, time).path for time in seconds]
            known = {row.stamp.path: row for row in catalog.frames(video, space_id)}
            found_now = [PendingFile(_of_frame(stamp, path), known.get(path)) for path in paths]
            frames += [file for file in found_now if file.stamp.path in before or not _is_settled(file)]
            plan.unseen += [row for path, row in known.items() if path not in paths and not row.missing]
    _note_unread(frames, catalog, space_id)
    plan.pending += frames
    planned = {file.stamp.path for file in plan.pending}
    plan.unseen_failures += before - planned
    return errors


def _is_settled(file: PendingFile) -> bool:
    """Whether the walk has counted a frame as unchanged, beside others of its video that are to be read."""
    row = file.known
    return row is not None and row.embedded and not row.missing and file.stamp.unchanged_since(row.stamp)


def _note_unread(frames: Sequence[PendingFile], catalog: CatalogWriter, space_id: int) -> None:
    """Record that frames are to be read: only the run that looks through a video knows which it has."""
    unread = [file.stamp for file in frames if file.known is None or file.known.missing]
    for start in range(0, len(unread), _NOTED_TOGETHER):
        some = unread[start : start + _NOTED_TOGETHER]
        notes = [Failure(one.path, _UNREAD, one.size, one.mtime_ns, one.ctime_ns) for one in some]
        catalog.record_batch(space_id, [], notes)


def frame_stamps(stamp: Stamp, paths: Sequence[str]) -> list[Stamp]:
    """The stamps of a video's frames.

    Args:
        stamp: The video's.
        paths: The frames'.
    """
    return [_of_frame(stamp, path) for path in paths]


def _of_frame(stamp: Stamp, path: str) -> Stamp:
    """Without the inode, which would make all frames names of one file."""
    return replace(stamp, path=path, inode=None)


def _changed_videos(pending: Sequence[PendingFile], rescan: bool) -> dict[str, Stamp]:
    videos: dict[str, Stamp] = {}
    for file in pending:
        frame = VideoFrame.of(file.stamp.path)
        if frame is None and is_video_name(os.path.basename(file.stamp.path)):
            videos[file.stamp.path] = file.stamp
        elif frame is not None and (
            rescan or file.known is None or not file.stamp.unchanged_since(file.known.stamp)
        ):
            videos[frame.video] = replace(file.stamp, path=frame.video)
    return videos
