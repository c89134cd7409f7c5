"""Where a step's photos come from: the packed file, the device's memory, or the photo files themselves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from vitmae_search.training.data.packed_photos import PackedPhotos
from vitmae_search.training.data.photo_files import Decoded, LoosePhotos
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.transfer import send

Photos: TypeAlias = PackedPhotos | LoosePhotos
RowsOf = Callable[[int], NDArray[np.int64]]
"""The rows that a step sees."""

_CHUNK = 4096  # photos copied to the device at a time
_AHEAD = 4  # steps that each worker decodes ahead


class Source(Protocol):
    """The photos of any step, (N, side, side, 3) uint8, not necessarily on the device."""

    def at(self, step: int) -> Tensor: ...
    def close(self) -> None: ...


def open_source(photos: Photos, rows_of: RowsOf, options: PretrainOptions, device: torch.device) -> Source:
    """What `cache` asks for; "auto" keeps packed photos on a GPU where they fill at most half of its rest."""
    if isinstance(photos, LoosePhotos):
        return FilesSource(photos, rows_of, workers=options.workers, pinned=device.type == "cuda")
    fits = device.type == "cuda" and photos.images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2
    if options.cache == "device" or (options.cache == "auto" and fits):
        return DeviceSource(photos.images, rows_of, device)
    return HostSource(photos.images, rows_of)


class HostSource:
    """Reads the memory-mapped file, which the system keeps in memory as far as there is room."""

    def __init__(self, images: NDArray[np.uint8], rows_of: RowsOf) -> None:
        self._images, self._rows_of = images, rows_of

    def at(self, step: int) -> Tensor:
        return torch.from_numpy(self._images[self._rows_of(step)])

    def close(self) -> None:
        pass


class DeviceSource:
    """Keeps all photos in the device's memory: a step sends it a few numbers instead of its photos."""

    def __init__(self, images: NDArray[np.uint8], rows_of: RowsOf, device: torch.device) -> None:
        self._rows_of = rows_of
        self._images = torch.empty(images.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(images), _CHUNK):
            chunk = torch.from_numpy(np.array(images[start : start + _CHUNK]))
            self._images[start : start + len(chunk)] = chunk.to(device)

    def at(self, step: int) -> Tensor:
        return self._images[send(torch.from_numpy(self._rows_of(step)), self._images.device)]

    def close(self) -> None:
        pass


class FilesSource:
    """Decodes the photos of the steps to come in worker processes, 0 for none, while a step is computed.

    Steps come in their order whatever the workers' speed. A step out of turn starts the workers anew.
    """

    def __init__(self, photos: LoosePhotos, rows_of: RowsOf, *, workers: int, pinned: bool) -> None:
        self._photos, self._rows_of = photos, rows_of
        self._workers, self._pinned = workers, pinned
        self._next = 0
        self._steps: Iterator[tuple[Tensor, dict[int, str]]] | None = None

    def at(self, step: int) -> Tensor:
        if self._steps is None or step != self._next:
            self._steps, self._next = self._start(step), step
        images, failures = next(self._steps)
        self._photos.failed.update(failures)
        self._next += 1
        return images

    def close(self) -> None:
        self._steps = None  # which ends the workers

    def _start(self, step: int) -> Iterator[tuple[Tensor, dict[int, str]]]:
        loader: DataLoader[Any] = DataLoader(
            self._photos,
            batch_sampler=_StepsFrom(step, self._rows_of),
            num_workers=self._workers,
            collate_fn=_stack,
            pin_memory=self._pinned,
            generator=torch.Generator(),  # or it would draw from the training's
            multiprocessing_context="spawn" if self._workers else None,  # a fork would copy locks held
            prefetch_factor=_AHEAD if self._workers else None,
        )
        with _deaf_to_interrupts():
            return iter(loader)


class _StepsFrom:
    """The rows of each step from `first` on, without end."""

    def __init__(self, first: int, rows_of: RowsOf) -> None:
        self._first, self._rows_of = first, rows_of

    def __iter__(self) -> Iterator[list[int]]:
        step = self._first
        while True:
            yield self._rows_of(step).tolist()
            step += 1


def _stack(decoded: list[Decoded]) -> tuple[Tensor, dict[int, str]]:
    failures = {row: reason for _, failed in decoded for row, reason in failed.items()}
    return torch.from_numpy(np.stack([image for image, _ in decoded])), failures


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started inside never hear Ctrl-C, which a terminal sends to all: the run says when to end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say so
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
