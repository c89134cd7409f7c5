"""Where a path lies."""

from __future__ import annotations

import os


def is_under(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it, at a boundary between names."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
