"""From the videos of a run to their frames, which are then read as photos are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from vitmae_search.catalog import Catalog
from vitmae_search.errors import PhotoError
from vitmae_search.indexing.plan import PendingFile, Plan
from vitmae_search.indexing.stored_files import raise_if_unreachable
from vitmae_search.photos import PhotoProcesses
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.photos.video import find_frames
from vitmae_search.records import Stamp, VideoFrame, file_of, is_video_name


def expand_videos(
    plan: Plan, catalog: Catalog, space_id: int, *, rescan: bool, on_video: Callable[[str], None]
) -> dict[str, PhotoError]:
    """Put the frames of new and changed videos into a plan, in place of the videos or their earlier frames.

    Args:
        plan: The plan, which is changed.
        catalog: Has the videos' earlier frames.
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
    plan.pending = [file for file in plan.pending if file_of(file.stamp.path) not in videos]
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
            plan.pending += [PendingFile(_of_frame(stamp, path), known.get(path)) for path in paths]
            plan.unseen += [row for path, row in known.items() if path not in paths and not row.missing]
    return errors


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
