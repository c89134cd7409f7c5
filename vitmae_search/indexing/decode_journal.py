"""Files in the library that name the photos being decoded, for when this process itself is ended by one.

A photo at which its decoder crashes costs a worker process. One that takes the machine's memory, or brings it
to a standstill, may take this process along. After such an end the file is still there: the next run decodes
the photos that it names last, one at a time and alone, and one at which runs end again is not tried any more.

Each run has a file of its own, which it locks: what is not locked is an ended run's. The lock ends with its
process, on another machine that shares the folder, too.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vitmae_search.atomic import lock

FILE_NAME = "decoding.json"
"""The name, where no other run has it; else that run's number follows, "decoding-2.json"."""
_PATTERN = "decoding*.json"
_MOST_RUNS = 1000
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
        """Take a file for this run, and read what ended runs have left.

        Args:
            folder: Of the library.
        """
        self._folder = Path(folder)
        self._lock = threading.Lock()
        self._decoding: Counter[str] = Counter()
        self.suspects: dict[str, int] = {}
        self._path, self._file = self._open_own()
        self.take_over()

    def take_over(self) -> None:
        """Add to the suspects what runs have left that ended since."""
        with self._lock:
            for path in sorted(self._folder.glob(_PATTERN)):
                file = None if path == self._path else _open_locked(path)
                if file is not None:
                    with file:
                        self._add(_suspects(file))
                        self._write()
                        with suppress(OSError):
                            path.unlink()

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
            if self._file is None:
                return
            with self._file:
                if self.suspects:
                    self._write()
                else:
                    with suppress(OSError):
                        self._path.unlink(missing_ok=True)

    def _open_own(self) -> tuple[Path, IO[bytes] | None]:
        """Open and lock this run's file: the first that no other run has."""
        for number in range(1, _MOST_RUNS):
            path = self._folder / (FILE_NAME if number == 1 else f"decoding-{number}.json")
            with suppress(OSError):  # a full disk is reported where it matters
                path.touch(0o600)
            file = _open_locked(path)
            if file is not None:
                self._add(_suspects(file))
                return path, file
            if not path.exists():
                break
        return self._folder / FILE_NAME, None

    def _add(self, suspects: Mapping[str, int]) -> None:
        for path, deaths in suspects.items():
            self.suspects[path] = max(deaths, self.suspects.get(path, 0))

    def _write(self) -> None:
        """Write the first line in place, in one call; what is left of a longer one does not count."""
        text = json.dumps({"decoding": sorted(self._decoding), "suspects": self.suspects}) + "\n"
        if self._file is not None:
            with suppress(OSError):
                os.pwrite(self._file.fileno(), text.encode("ascii"), 0)


def _open_locked(path: Path) -> IO[bytes] | None:
    """Open a journal that no run has any more; None where there is none such."""
    try:
        file = open(path, "r+b", buffering=0)  # noqa: SIM115
    except OSError:
        return None
    with suppress(OSError):
        if lock(file) is not False and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    file.close()  # it is another run's, or that run has just deleted it
    return None


def _suspects(file: IO[bytes]) -> dict[str, int]:
    """Read a journal: what was being decoded are suspects, and a death more for one that was alone."""
    try:
        found = json.loads(file.read().split(b"\n", 1)[0])
        decoding, suspects = list(map(str, found["decoding"])), dict(found["suspects"])
        deaths = {str(suspect): int(count) for suspect, count in suspects.items()}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    alone = len(decoding) == 1 and decoding[0] in deaths
    return {**deaths, **{one: deaths.get(one, 0) + alone for one in decoding}}
