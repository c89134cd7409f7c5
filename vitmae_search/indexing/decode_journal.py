"""A file in the library that names the photos being decoded, for when this process itself is ended by one.

A photo at which its decoder crashes costs a worker process. One that takes the machine's memory, or brings it
to a standstill, may take this process along. After such an end the file is still there: the next run decodes
the photos that it names last, one at a time and alone, and one at which runs end again is not tried any more.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

FILE_NAME = "decoding.json"
MAX_DEATHS = 2
"""How often a run may end while it decodes a photo alone: once may be a power cut."""
DEATHS_REASON = (
    f"{MAX_DEATHS} runs were ended from outside, as by too little memory, while they decoded it alone; it is "
    "tried again when it changes, or with --retry-failed"
)


class DecodeJournal:
    """What is being decoded, and what was when an earlier run was ended. Safe for threads.

    Attributes:
        suspects: Paths that an earlier run was decoding when it was ended; and how many runs ended while
            they decoded it alone.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Read what the last run has left.

        Args:
            folder: Of the library.
        """
        self._path = Path(folder) / FILE_NAME
        self._lock = threading.Lock()
        self._decoding: Counter[str] = Counter()
        self.suspects = _suspects(self._path)

    @contextmanager
    def decoding(self, paths: Sequence[str]) -> Iterator[None]:
        """Name photos while they are decoded, which clears those among them that were suspects."""
        with self._lock:
            self._decoding.update(paths)
            self._write()
        yield
        # Not in a `finally`: what raises here ends the run, and `close` writes then.
        with self._lock:
            self._decoding.subtract(paths)
            self._decoding = +self._decoding
            for path in paths:
                self.suspects.pop(path, None)
            self._write()

    def close(self) -> None:
        """Nothing is being decoded any more: keep the suspects that were not reached, if there are any."""
        with self._lock:
            self._decoding.clear()
            if self.suspects:
                self._write()
            else:
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        """Write the first line in place, in one call; what is left of a longer one does not count."""
        text = json.dumps({"decoding": sorted(self._decoding), "suspects": self.suspects}) + "\n"
        with suppress(OSError):  # a full disk is reported where it matters
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(file, text.encode("ascii"))
            finally:
                os.close(file)


def _suspects(path: Path) -> dict[str, int]:
    """Read a journal: what was being decoded are suspects, and a death more for one that was alone."""
    try:
        found = json.loads(path.read_bytes().split(b"\n", 1)[0])
        decoding, suspects = list(map(str, found["decoding"])), dict(found["suspects"])
        deaths = {str(suspect): int(count) for suspect, count in suspects.items()}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    alone = len(decoding) == 1 and decoding[0] in deaths
    return {**deaths, **{one: deaths.get(one, 0) + alone for one in decoding}}
