"""What a power cut does to files: all that was written since a file was last synced may be lost.

Where the data was is filled with zeros here, in files that were renamed since, too. Names are taken to be on
disk, since journalling file systems write these in their order, and a kill has happened before.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_PID = r"\d+ +"
_WRITE = re.compile(_PID + r"write\(\d+<(.*?)>.* = (\d+)")
_PWRITE = re.compile(_PID + r"pwrite64\(\d+<(.*?)>, .*, (\d+), (\d+)\)? .*= (\d+)")
_SYNC = re.compile(_PID + r"f(?:data)?sync\(\d+<(.*?)>\) += 0")
_RENAME = re.compile(
    _PID + r'rename(?:at2?)?\((?:AT_FDCWD(?:<.*?>)?, )?"(.*?)"\.*, (?:AT_FDCWD(?:<.*?>)?, )?"(.*?)"'
)

WHOLE = (0, None)


def unsynced(log: str) -> dict[str, list[tuple[int, int | None]]]:
    """Which parts of which files were written and not synced, as offsets and sizes.

    Args:
        log: What `strace -f -y` wrote of all writing calls.
    """
    parts: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
    for line in log.splitlines():
        if found := _PWRITE.match(line):
            parts[found[1]].append((int(found[3]), int(found[4])))
        elif found := _WRITE.match(line):
            parts[found[1]].append(WHOLE)
        elif found := _SYNC.match(line):
            parts.pop(found[1], None)
        elif found := _RENAME.match(line):
            parts.pop(found[2], None)
            if found[1] in parts:
                parts[found[2]] = parts.pop(found[1])
    return dict(parts)


def cut_power(log: Path, folder: Path) -> None:
    """Lose what was not synced of the files in a folder.

    Args:
        log: See `unsynced`.
        folder: The library.
    """
    for name, parts in unsynced(log.read_text("utf-8", "replace")).items():
        if not Path(name).is_relative_to(folder):
            continue
        with suppress(FileNotFoundError), open(name, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            for offset, length in parts:
                file.seek(offset)
                file.write(bytes(max(0, min(size - offset, size if length is None else length))))
