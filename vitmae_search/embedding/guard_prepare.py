"""`prepare` under guard: checked, blamed on its plugin, and able to travel to a worker process."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import plugin_host
from vitmae_search.embedding.plugin import Prepare
from vitmae_search.embedding.plugin_host import describe
from vitmae_search.errors import DeviceError, PluginBroken, VitmaeSearchError


@contextmanager
def blame(plugin: str, doing: str) -> Iterator[None]:
    """Turn whatever the plugin raises into `PluginBroken` that names it, with the cause chained.

    Errors meant for a person pass. So does MemoryError, which a device out of memory becomes as well
    (torch's `OutOfMemoryError`, known by its name): the caller may try again with a smaller batch.
    """
    try:
        yield
    except (VitmaeSearchError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
            raise MemoryError(f"plugin {plugin!r}: {describe(error)}") from error
        raise PluginBroken(plugin, f"{doing} failed: {describe(error)}") from error


@contextmanager
def enough_memory(doing: str) -> Iterator[None]:
    """Turn MemoryError into `DeviceError`, where there is nothing smaller to try."""
    try:
        yield
    except MemoryError as error:
        raise DeviceError(
            f"the model's device has not enough memory to {doing}; end what else uses it, or choose "
            "another device (--device, VITMAE_SEARCH_DEVICE)"
        ) from error


class GuardedPrepare:
    """A plugin's `prepare`: RGB image to an array of `shape` and `dtype`, or `PluginBroken`.

    Pickles from any door: a drop-in's module is restored from its path in the process that unpickles.
    """

    def __init__(self, plugin: str, prepare: Prepare, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.plugin, self.shape, self.dtype = plugin, shape, dtype
        self._prepare = prepare

    def __call__(self, image: Image.Image, /) -> NDArray[Any]:
        with blame(self.plugin, "prepare"):
            array = self._prepare(image)
        check_prepared(self.plugin, array)
        if array.shape != self.shape or array.dtype != self.dtype:
            raise PluginBroken(
                self.plugin,
                f"prepare gave {array.dtype} {array.shape} for an image of {image.width}×{image.height}, "
                f"and {self.dtype} {self.shape} before; it must be one fixed shape",
            )
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        with blame(self.plugin, "pickling prepare"):
            payload = pickle.dumps((self.plugin, self._prepare, self.shape, self.dtype))
        return _restore, (plugin_host.registered(), payload)


def _restore(drop_ins: Mapping[str, str], payload: bytes) -> GuardedPrepare:
    plugin_host.restore(drop_ins)
    return GuardedPrepare(*pickle.loads(payload))  # noqa: S301 - part of a pickle that is loaded already


def guard_prepare(plugin: str, prepare: Prepare) -> GuardedPrepare:
    """Try `prepare` on a grey image and hold it to the shape and dtype that come back."""
    if not callable(prepare):
        raise PluginBroken(plugin, f"prepare is a {type(prepare).__name__}, which cannot be called")
    with blame(plugin, "prepare"):
        array = prepare(Image.new("RGB", (48, 32), (128, 128, 128)))
    check_prepared(plugin, array)
    return GuardedPrepare(plugin, prepare, array.shape, array.dtype)


def check_prepared(plugin: str, array: object) -> None:
    """Raise `PluginBroken` unless `array` is a uint8 or float32 NumPy array that holds something."""
    if not isinstance(array, np.ndarray):
        raise PluginBroken(plugin, f"prepare gave a {type(array).__name__}; it must be a NumPy array")
    if array.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
        raise PluginBroken(plugin, f"prepare gave {array.dtype}; it must be uint8 or float32")
    if array.size == 0:
        raise PluginBroken(plugin, f"prepare gave an empty array of shape {array.shape}")
