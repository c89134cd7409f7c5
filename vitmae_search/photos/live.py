"""Live photos: the video beside a still, two files of one name."""

from __future__ import annotations

import os
from collections.abc import Iterable

_VIDEOS = (".mov", ".mp4")
VIDEO_FORMS = tuple(form for suffix in _VIDEOS for form in (suffix, suffix.upper()))
"""Suffixes that the video of a still is looked for with, the likeliest first."""
_STILLS = (".heic", ".heif", ".jpg", ".jpeg")


def may_be_live(name: str) -> bool:
    """Say whether a photo may have a video beside it, or in it, by its name."""
    return os.path.splitext(name)[1].lower() in _STILLS


def live_stems(names: Iterable[str]) -> set[str]:
    """The names without suffix of a folder's photos beside which a video is a part of a Live photo."""
    return {os.path.splitext(name.lower())[0] for name in names if may_be_live(name)}


def is_part_of_live_photo(name: str, stems: set[str]) -> bool:
    """Say whether a video is the moving part of a photo beside it.

    Args:
        name: The video's name.
        stems: The `live_stems` of its folder.
    """
    stem, suffix = os.path.splitext(name.lower())
    return suffix in _VIDEOS and stem in stems
