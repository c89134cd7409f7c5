"""Opening a file that a person or another program names, without waiting for what is no file."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

# O_NONBLOCK: opening a FIFO would wait for whoever writes into it. Regular files ignore it.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_regular_file(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading its bytes.

    Raises:
        OSError: It cannot be opened, or is a folder, a FIFO, a socket or a device.
    """
    handle = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a file", os.fspath(path))
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
