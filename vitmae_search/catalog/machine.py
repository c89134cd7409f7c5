"""Which machine this process runs on: where ids of processes mean the same."""

from __future__ import annotations

import socket
import uuid
from functools import cache
from pathlib import Path


@cache
def this_machine() -> str:
    """Return a text that processes have in common if they can see each other by their ids.

    Host names are no such text: machines that were copied have the same one, and so may containers of one
    machine, each with its own processes. On Linux it is the id that the kernel drew when it started, and the
    namespace of process ids.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"
    return f"{boot} {namespace}"
