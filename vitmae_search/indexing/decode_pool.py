"""Processes that decode, one for each thread that reads ahead. They have no lock in common."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import PhotoError, PluginError
from vitmae_search.photos import subprocess_worker
from vitmae_search.photos.decode_worker import Decoded, Failed, FileError, PhotoDecoder
from vitmae_search.records import PhotoMetadata

log = logging.getLogger(__name__)

_PIPE_BYTES = 1 << 20
"""As many as Linux lets anyone have, so that a process goes on decoding while its thread waits its turn."""


class ProcessDied(Exception):
    """A decoding process ended without a word: killed, or crashed in a decoder."""


class DecodingProcess:
    """One process. Called by one thread."""

    def __init__(self, decoder: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """`decoder` is a pickled `PhotoDecoder`, whose `prepare` gives arrays of `shape` and `dtype`.

        Raises OSError, `ProcessDied`, or what unpickling raises there.
        """
        self._shape, self._dtype = shape, dtype
        self._process = subprocess_worker.start("vitmae_search.photos.decode_worker")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        _widen(self._answers.fileno())
        try:
            self._send(decoder)
            self._receive()
        except BaseException:
            self.close()
            raise

    def read(self, paths: Sequence[str]) -> list[str | FileError]:
        """Read files; the digest of each. `decode` is to follow."""
        self._send(pickle.dumps(list(paths), pickle.HIGHEST_PROTOCOL))
        found: list[str | FileError] = self._receive()
        return found

    def decode(self, wanted: Sequence[bool]) -> Iterator[Decoded | FileError]:
        """Decode those of the files just read that are wanted; to be iterated to its end."""
        self._send(pickle.dumps(list(wanted), pickle.HIGHEST_PROTOCOL))  # now, even if none is wanted
        return (self._decoded() for want in wanted if want)

    def _decoded(self) -> Decoded | FileError:
        answer: PhotoMetadata | FileError = self._receive()
        return answer if isinstance(answer, PhotoError | PluginError) else (answer, self._pixels())

    def close(self) -> None:
        """End it, whatever it is at."""
        subprocess_worker.end(self._process)

    def _send(self, request: bytes) -> None:
        try:
            self._requests.write(request)
            self._requests.flush()
        except OSError as error:
            raise ProcessDied from error

    def _receive(self) -> Any:
        try:
            answer = pickle.load(self._answers)  # noqa: S301  our own process's
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise ProcessDied from error
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    def _pixels(self) -> NDArray[Any]:
        pixels = np.empty(self._shape, self._dtype)
        if self._answers.readinto(pixels.data.cast("B")) != pixels.nbytes:  # type: ignore[attr-defined]
            raise ProcessDied
        return pixels


class DecodingProcesses:
    """A process for each thread that asks for one, started when it does."""

    def __init__(self, decoder: PhotoDecoder, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raises `PluginError` where `decoder.prepare` cannot be pickled."""
        self._arguments = pickle.dumps(decoder, pickle.HIGHEST_PROTOCOL), shape, dtype
        self._own = threading.local()
        self._all: set[DecodingProcess] = set()
        self._failed = self._closed = False

    def own(self) -> DecodingProcess | None:
        """The calling thread's; None where none starts, which is told in the log.

        Raises `ProcessDied` after `close`.
        """
        if self._closed:
            raise ProcessDied
        process: DecodingProcess | None = getattr(self._own, "process", None)
        if process is None and not self._failed:
            try:
                process = self._own.process = DecodingProcess(*self._arguments)
            except Exception as error:
                if not self._failed:  # others may have tried meanwhile
                    self._failed = True
                    log.warning("photos are decoded in threads, for no process starts: %r", error)
            else:
                self._all.add(process)
        return process

    def drop(self) -> None:
        """End the calling thread's; another one takes its place."""
        process = self._own.process
        self._own.process = None
        self._all.discard(process)
        process.close()

    def close(self) -> None:
        """End them all. Threads use them still only where Ctrl-C left nobody to wait for those."""
        self._closed = True
        for process in list(self._all):
            process.close()


def _widen(pipe: int) -> None:
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
