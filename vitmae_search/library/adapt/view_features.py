"""Features of views of photos, in a folder: made once, so that a run that was stopped goes on with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import PhotoError, PhotoTooLarge, PluginError, VitmaeSearchError
from vitmae_search.library.encode_folder import Method
from vitmae_search.photos import decode, digest, read_photo
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.records import Failure, Stamp

MakeViews = Callable[[Image.Image, str], Iterable[Image.Image]]
"""The views of an RGB image whose content has this digest, the picture as it is first."""

USED, COPY = "used", "copy"

_Outcome = tuple[str, str]
"""A file's digest, and USED, COPY or why it failed."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewFeatures:
    """`views` (N, V, F) float16, memory-mapped: V views of each photo that could be used, in their order.

    `digests` are those of the N photos; `copies` counts files whose content came before.
    """

    views: NDArray[np.float16]
    digests: tuple[str, ...]
    failures: tuple[Failure, ...]
    copies: int


class ViewStore:
    """Appends the views' features to one file in `folder`, and what became of each photo to another."""

    def __init__(self, folder: Path, views: int, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._features, self._log = folder / "views.f16", folder / "photos.jsonl"
        self._shape = views, width
        self.outcomes: list[_Outcome] = list(self._whole_lines())
        self._cut()

    def append(self, outcomes: Sequence[_Outcome], rows: NDArray[np.float16]) -> None:
        """The next files' outcomes, and (n, V, F) of those used, which come first on disk."""
        with self._features.open("ab") as stream:
            stream.write(rows.tobytes())
        with self._log.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(outcome) + "\n" for outcome in outcomes)
        self.outcomes += outcomes

    def gathered(self, files: Sequence[Stamp]) -> ViewFeatures:
        """What there is of `files`, of which the first have been appended."""
        used = [name for name, outcome in self.outcomes if outcome == USED]
        shape = len(used), *self._shape
        views = (
            np.memmap(self._features, np.float16, "r", shape=shape) if used else np.empty(shape, np.float16)
        )
        failures = [
            Failure(stamp.path, outcome, stamp.size, stamp.mtime_ns)
            for stamp, (_, outcome) in zip(files, self.outcomes, strict=False)
            if outcome not in (USED, COPY)
        ]
        copies = sum(outcome == COPY for _, outcome in self.outcomes)
        return ViewFeatures(views, tuple(used), tuple(failures), copies)

    def _whole_lines(self) -> Iterator[_Outcome]:
        """Up to a line that a kill cut short, or whose features are not there."""
        room = self._features.stat().st_size // self._row_bytes if self._features.exists() else 0
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        for line in lines:
            try:
                name, outcome = json.loads(line)
            except ValueError:
                return
            room -= outcome == USED
            if room < 0:
                return
            yield name, outcome

    def _cut(self) -> None:
        """Leave what belongs together, so that appending goes on from there."""
        used = sum(outcome == USED for _, outcome in self.outcomes)
        with self._features.open("ab") as stream:
            stream.truncate(used * self._row_bytes)
        text = "".join(json.dumps(outcome) + "\n" for outcome in self.outcomes)
        self._log.write_text(text, encoding="utf-8")

    @property
    def _row_bytes(self) -> int:
        views, width = self._shape
        return views * width * np.dtype(np.float16).itemsize


def encode_views(
    files: Sequence[Stamp],
    embedder: GuardedEmbedder,
    make_views: MakeViews,
    store: ViewStore,
    *,
    shrink_to: int | None = None,
    batch_size: int = 32,
    known: Iterable[str] = (),
    on_done: Callable[[int, int], None] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> ViewFeatures:
    """Encode the views of those of `files` that `store` does not have yet, each read once.

    A file that cannot be used is a failure, and one with a content of `known` digests, or of an earlier file,
    a copy. `on_done` is called with the files done and those that failed; what it raises leaves the store
    good for another call, and `enough` ends early. Raises what the plugin raises for every picture.
    """
    method = Method.of_embedder(embedder.info.name, embedder)
    writer = _Writer(store, method, batch_size, {*known, *(name for name, _ in store.outcomes if name)})
    reader = _Reader(embedder, make_views, shrink_to)
    workers = default_workers()
    first = len(store.outcomes)
    paths = (stamp.path for stamp in files[first:])
    for number, read in enumerate(prefetch(paths, reader, workers=workers, ahead=2 * workers), first + 1):
        writer.add(read)
        if on_done is not None:
            on_done(number, writer.failed)
        if enough():
            break
    writer.flush()
    return store.gathered(files)


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """The prepared views of a file, or why there are none."""

    digest: str
    prepared: list[NDArray[Any]]
    error: str = ""


class _Reader:
    """The work for one file; called by many threads."""

    def __init__(self, embedder: GuardedEmbedder, make_views: MakeViews, shrink_to: int | None) -> None:
        self._prepare, self._make_views, self._shrink_to = embedder.prepare, make_views, shrink_to

    def __call__(self, path: str) -> _Read:
        try:
            data = read_photo(path)
            name = digest(data)
            image = decode(data, path=path, shrink_to=self._shrink_to).image
            # No larger than a view needs: formats other than JPEG come out at full size.
            factor = min(image.size) // (2 * self._shrink_to) if self._shrink_to else 1
            small = image.reduce(factor) if factor > 1 else image
            return _Read(name, [self._prepare(view) for view in self._make_views(small, name)])
        except PhotoError as error:
            return _Read("", [], error.reason)
        except PluginError as error:
            return _Read("", [], str(error))
        except MemoryError:
            return _Read("", [], PhotoTooLarge(path, "too large for this machine's memory").reason)


class _Writer:
    """Embeds what was read, several photos together, and appends it to the store."""

    def __init__(self, store: ViewStore, method: Method, batch_size: int, seen: set[str]) -> None:
        self._store, self._method, self._batch_size = store, method, batch_size
        self._seen = seen
        self._waiting: list[tuple[_Outcome, list[NDArray[Any]]]] = []
        self.failed = sum(outcome not in (USED, COPY) for _, outcome in store.outcomes)

    def add(self, read: _Read) -> None:
        self.failed += bool(read.error)
        copy = read.digest in self._seen
        self._seen |= {read.digest} - {""}
        outcome = read.error or (COPY if copy else USED)
        self._waiting.append(((read.digest, outcome), read.prepared if outcome == USED else []))
        if sum(len(prepared) for _, prepared in self._waiting) >= self._batch_size:
            self.flush()

    def flush(self) -> None:
        pictures = [picture for _, prepared in self._waiting for picture in prepared]
        embedded = [
            one
            for start in range(0, len(pictures), self._batch_size)
            for one in self._method.embed(pictures[start : start + self._batch_size])
        ]
        outcomes: list[_Outcome] = []
        rows: list[NDArray[np.float32]] = []
        for outcome, prepared in self._waiting:
            own, embedded = embedded[: len(prepared)], embedded[len(prepared) :]
            error = next((one for one in own if isinstance(one, VitmaeSearchError)), None)
            if error is None:
                rows += [one for one in own if not isinstance(one, VitmaeSearchError)]
            self.failed += error is not None
            outcomes.append(outcome if error is None else (outcome[0], str(error)))
        self._store.append(outcomes, np.array(rows, np.float16))
        self._waiting = []
