"""`MapCache`: the layouts of a library's spaces, as files beside the vectors, in step with the catalogue.

A file can be deleted at any time. PCA's is made again when it is next asked for, t-SNE's by its command.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.cache import VectorCache, current_origin
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.file import PAYLOAD, Origin, read_origin, read_payload_file, write_payload_file
from vitmae_search.vectors.layout import Layout, LayoutMethod, OnStep, fit_pca, fit_tsne, place
from vitmae_search.vectors.protocols import IsCancelled, VectorSource, never_cancel

log = logging.getLogger(__name__)

_FORM = {"layout": 1}
"""What the files hold; one of another form is made again."""

_Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class _Held:
    """A layout in memory, the revision that it has, and the stamp of its file."""

    layout: Layout
    origin: Origin
    stamp: _Stamp


class MapCache:
    """The layouts of a library's spaces. Safe to use from many threads.

    The folder need not exist or be writable: layouts are then kept in memory.
    """

    def __init__(self, vectors: VectorCache) -> None:
        """Use the files beside those of `vectors`."""
        self._vectors = vectors
        self._lock = threading.Lock()
        self._held: dict[Path, _Held] = {}

    def path(self, key: str, method: LayoutMethod) -> Path:
        """The path of a layout's file, whether or not it exists.

        Args:
            key: The space's fingerprint.
            method: How it was made.
        """
        return self._vectors.path(key).with_suffix(f".{method}")

    def open(self, source: VectorSource, method: LayoutMethod) -> Layout | None:
        """The layout of all vectors of `source`. Vectors that came since it was made are placed on it.

        Args:
            source: The vectors.
            method: "pca", which is made where there is none; or "tsne", None where it was not made.
        """
        with self._lock:
            origin = current_origin(source)  # before the vectors are read: they are at least as new
            path = self.path(source.key, method)
            held = self._known(path, source)
            if held is not None and held.origin == origin:
                return held.layout
            index = self._vectors.open(source).exact
            if held is not None:
                layout = _caught_up(held.layout, index)
            elif method == "pca":
                layout = fit_pca(index.ids, index.vectors(index.ids))
            else:
                return None
            self._store(path, origin, layout)
            return layout

    def make(
        self,
        source: VectorSource,
        method: LayoutMethod,
        on_step: OnStep = lambda done, total: None,
        cancelled: IsCancelled = never_cancel,
    ) -> Layout:
        """Make a layout of all vectors anew.

        Args:
            source: The vectors.
            method: How.
            on_step: Called as steps are done.
            cancelled: Asked again and again.

        Raises:
            LibraryError: openTSNE is not installed.
            LayoutCancelled: `cancelled` returned True; the old layout is kept.
        """
        origin = current_origin(source)
        index = self._vectors.open(source).exact
        ids = index.ids
        vectors = index.vectors(ids)
        layout = fit_pca(ids, vectors) if method == "pca" else fit_tsne(ids, vectors, on_step, cancelled)
        with self._lock:
            self._store(self.path(source.key, method), origin, layout)
        return layout

    def exists(self, source: VectorSource, method: LayoutMethod) -> bool:
        """Whether there is a layout of this space. Only the first page of its file is read.

        Args:
            source: The vectors.
            method: How it was made.
        """
        try:
            more = read_origin(self.path(source.key, method), source, PAYLOAD)[1]
            return more.items() >= _FORM.items()
        except (OSError, VectorCacheDamaged):
            return False

    def discard(self, key: str) -> None:
        """Delete the files of space `key`, as far as they can be deleted."""
        with self._lock:
            for method in get_args(LayoutMethod):
                self._held.pop(self.path(key, method), None)
                with suppress(OSError):
                    self.path(key, method).unlink()

    def _known(self, path: Path, source: VectorSource) -> _Held | None:
        """The layout in memory, unless its file is another one now; else that of the file."""
        stamp = _stamp_of(path)
        held = self._held.pop(path, None)
        if held is None or held.stamp != stamp:
            held = _read(path, source, stamp)
        if held is None or not held.origin.belongs_to(source):
            return None
        self._held[path] = held
        return held

    def _store(self, path: Path, origin: Origin, layout: Layout) -> None:
        try:
            write_payload_file(path, origin, layout.to_bytes(), _FORM)
        except OSError as error:
            log.warning("The map was not saved (%s); it is made again when needed.", error)
        self._held[path] = _Held(layout, origin, _stamp_of(path))


def _read(path: Path, source: VectorSource, stamp: _Stamp) -> _Held | None:
    try:
        origin, more, payload = read_payload_file(path, source)
    except FileNotFoundError:
        return None
    except (OSError, VectorCacheDamaged) as error:
        log.warning("The map is made again: %s", error)
        return None
    return _Held(Layout.from_bytes(payload), origin, stamp) if more.items() >= _FORM.items() else None


def _stamp_of(path: Path) -> _Stamp:
    """What changes when a file is replaced; None without a file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _caught_up(layout: Layout, index: ExactIndex) -> Layout:
    """A layout without the vectors that are gone, and with those that are new."""
    layout = layout.only(index.ids)
    new = np.setdiff1d(index.ids, layout.ids)
    return place(layout, new, index.vectors(new), index.vectors) if len(new) else layout
