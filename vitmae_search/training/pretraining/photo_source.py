"""Where the photos of a step come from: the packed file, the device's memory, or the photo files."""

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
from vitmae_search.training.data.photo_files import DecodedPhoto, PhotoFilesDataset
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.transfer import to_device

Photos: TypeAlias = PackedPhotos | PhotoFilesDataset
StepRows = Callable[[int], NDArray[np.int64]]
"""The rows of a step."""

_CHUNK = 4096
"""Photos copied to the device at a time."""
_PREFETCH = 4
"""Steps that each worker decodes ahead."""


class PhotoSource(Protocol):
    """Gives the photos of any step, (N, side, side, 3) uint8, not necessarily on the device."""

    def at(self, step: int) -> Tensor:
        """The photos of step `step`."""
        ...

    def close(self) -> None:
        """Stop decoding ahead."""
        ...


def open_photo_source(
    photos: Photos, step_rows: StepRows, options: PretrainOptions, device: torch.device
) -> PhotoSource:
    """The source that the option `cache` names.

    "auto" keeps packed photos on a GPU where they take at most half of its free memory.

    Args:
        photos: The training data.
        step_rows: The rows of a step.
        options: `cache`, and the number of `workers` that decode photo files.
        device: The device that trains.
    """
    if isinstance(photos, PhotoFilesDataset):
        return FilesSource(photos, step_rows, workers=options.workers, pinned=device.type == "cuda")
    fits = device.type == "cuda" and photos.images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2
    if options.cache == "device" or (options.cache == "auto" and fits):
        return DeviceSource(photos.images, step_rows, device)
    return HostSource(photos.images, step_rows)


class HostSource:
    """Reads the memory-mapped file, which the operating system caches as far as there is memory.

    Args:
        images: (N, side, side, 3) uint8.
        step_rows: The rows of a step.
    """

    def __init__(self, images: NDArray[np.uint8], step_rows: StepRows) -> None:
        self._images, self._step_rows = images, step_rows

    def at(self, step: int) -> Tensor:
        """The photos of step `step`, on the CPU."""
        return torch.from_numpy(self._images[self._step_rows(step)])

    def close(self) -> None:
        """Nothing to stop."""


class DeviceSource:
    """Keeps all photos in the device's memory, so that a step transfers only its row numbers.

    Args:
        images: (N, side, side, 3) uint8.
        step_rows: The rows of a step.
        device: Where to keep them.
    """

    def __init__(self, images: NDArray[np.uint8], step_rows: StepRows, device: torch.device) -> None:
        self._step_rows = step_rows
        self._images = torch.empty(images.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(images), _CHUNK):
            chunk = torch.from_numpy(np.array(images[start : start + _CHUNK]))
            self._images[start : start + len(chunk)] = chunk.to(device)

    def at(self, step: int) -> Tensor:
        """The photos of step `step`, on the device."""
        return self._images[to_device(torch.from_numpy(self._step_rows(step)), self._images.device)]

    def close(self) -> None:
        """Nothing to stop."""


class FilesSource:
    """Decodes the photos of the next steps in worker processes while a step is computed.

    Steps come in order whatever the workers' speed. Asking for a step out of order restarts the workers.

    Args:
        photos: The photo files.
        step_rows: The rows of a step.
        workers: Decoding processes; 0 to decode in the calling thread.
        pinned: Give tensors in pinned memory.
    """

    def __init__(self, photos: PhotoFilesDataset, step_rows: StepRows, *, workers: int, pinned: bool) -> None:
        self._photos, self._step_rows = photos, step_rows
        self._workers, self._pinned = workers, pinned
        self._next = 0
        self._steps: Iterator[tuple[Tensor, dict[int, str]]] | None = None

    def at(self, step: int) -> Tensor:
        """The photos of step `step`, on the CPU."""
        if self._steps is None or step != self._next:
            self._steps, self._next = self._start(step), step
        images, failures = next(self._steps)
        self._photos.failed.update(failures)
        self._next += 1
        return images

    def close(self) -> None:
        """Stop the workers."""
        self._steps = None  # the data loader stops its workers when its iterator is freed

    def _start(self, step: int) -> Iterator[tuple[Tensor, dict[int, str]]]:
        loader: DataLoader[Any] = DataLoader(
            self._photos,
            batch_sampler=_StepBatchSampler(step, self._step_rows),
            num_workers=self._workers,
            collate_fn=_collate,
            pin_memory=self._pinned,
            generator=torch.Generator(),  # otherwise it would draw from the training's random numbers
            multiprocessing_context="spawn" if self._workers else None,  # a fork would copy held locks
            prefetch_factor=_PREFETCH if self._workers else None,
        )
        with _ignore_sigint():
            return iter(loader)


class _StepBatchSampler:
    """The rows of each step from `first` on, without end."""

    def __init__(self, first: int, step_rows: StepRows) -> None:
        self._first, self._step_rows = first, step_rows

    def __iter__(self) -> Iterator[list[int]]:
        step = self._first
        while True:
            yield self._step_rows(step).tolist()
            step += 1


def _collate(decoded: list[DecodedPhoto]) -> tuple[Tensor, dict[int, str]]:
    failures = {row: reason for _, failed in decoded for row, reason in failed.items()}
    return torch.from_numpy(np.stack([image for image, _ in decoded])), failures


@contextmanager
def _ignore_sigint() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C, which a terminal sends to all of them; the run stops them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python sets signal handlers in the main thread only
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
