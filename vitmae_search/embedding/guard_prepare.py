"""A plugin's `prepare` behind the guard: checked, and can be pickled for a worker process."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding.plugin import Prepare
from vitmae_search.embedding.plugin_errors import wrap_plugin_errors
from vitmae_search.embedding.plugin_host import registered_drop_ins, restore_drop_ins
from vitmae_search.errors import PluginBroken


class GuardedPrepare:
    """A plugin's `prepare`: RGB image to an array of `shape` and `dtype`, or `PluginBroken`.

    Pickles wherever the plugin came from: a drop-in's module is imported from its path in the process that
    unpickles.
    """

    def __init__(self, plugin: str, prepare: Prepare, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.plugin, self.shape, self.dtype = plugin, shape, dtype
        self._prepare = prepare

    def __call__(self, image: Image.Image, /) -> NDArray[Any]:
        """The prepared image. Raises `PluginBroken`."""
        with wrap_plugin_errors(self.plugin, "prepare"):
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
        # The plugin's part is a pickle inside the pickle, so that drop-ins are importable when it is loaded.
        with wrap_plugin_errors(self.plugin, "pickling prepare"):
            payload = pickle.dumps((self.plugin, self._prepare, self.shape, self.dtype))
        return _restore, (registered_drop_ins(), payload)


def _restore(drop_ins: Mapping[str, str], payload: bytes) -> GuardedPrepare:
    restore_drop_ins(drop_ins)
    return GuardedPrepare(*pickle.loads(payload))  # noqa: S301 - part of a pickle that is loaded already


def guard_prepare(plugin: str, prepare: Prepare) -> GuardedPrepare:
    """Try `prepare` on a grey image; from then on its shape and dtype must stay as they are there.

    Args:
        plugin: The plugin's name.
        prepare: What the plugin gave.

    Raises:
        PluginBroken: Where it cannot be called, fails, or gives no array.
    """
    if not callable(prepare):
        raise PluginBroken(plugin, f"prepare is a {type(prepare).__name__}, which cannot be called")
    with wrap_plugin_errors(plugin, "prepare"):
        array = prepare(Image.new("RGB", (48, 32), (128, 128, 128)))
    check_prepared(plugin, array)
    return GuardedPrepare(plugin, prepare, array.shape, array.dtype)


def check_prepared(plugin: str, array: object) -> None:
    """Raise `PluginBroken` unless `array` is a uint8 or float32 NumPy array that holds something.

    Args:
        plugin: The plugin's name.
        array: What `prepare` returned.
    """
    if not isinstance(array, np.ndarray):
        raise PluginBroken(plugin, f"prepare gave a {type(array).__name__}; it must be a NumPy array")
    if array.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
        raise PluginBroken(plugin, f"prepare gave {array.dtype}; it must be uint8 or float32")
    if array.size == 0:
        raise PluginBroken(plugin, f"prepare gave an empty array of shape {array.shape}")
