"""What plugins raise, translated for the host: one line of text, `PluginBroken`, or `DeviceError`."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from vitmae_search.errors import DeviceError, PluginBroken, VitmaeSearchError


@contextmanager
def wrap_plugin_errors(plugin: str, action: str) -> Iterator[None]:
    """Turn whatever the plugin raises into `PluginBroken` that names it, with the cause chained.

    Errors meant for a person pass. So does MemoryError, which a device out of memory becomes as well
    (torch's `OutOfMemoryError`, recognized by its name): the caller may try again with a smaller batch.

    Args:
        plugin: The plugin's name.
        action: What the plugin is doing, for the message: "embed", "reading the embedder's attributes".
    """
    try:
        yield
    except (VitmaeSearchError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
            raise MemoryError(f"plugin {plugin!r}: {error_summary(error)}") from error
        raise PluginBroken(plugin, f"{action} failed: {error_summary(error)}") from error


@contextmanager
def translate_memory_errors(action: str) -> Iterator[None]:
    """Turn MemoryError into `DeviceError`, where there is nothing smaller to try.

    Args:
        action: What the memory is needed for, for the message: "open the model".
    """
    try:
        yield
    except MemoryError as error:
        raise DeviceError(
            f"the model's device has not enough memory to {action}; end what else uses it, or choose "
            "another device (--device, VITMAE_SEARCH_DEVICE)"
        ) from error


def error_summary(error: BaseException) -> str:
    """`error` in one line, with the file and line that raised it: for whoever wrote the plugin."""
    text = " ".join(str(error).split())[:300]
    summary = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename[:1] != "<"]
    raised_by_host = frames and os.path.dirname(frames[-1].filename) == os.path.dirname(__file__)
    if isinstance(error, SyntaxError) or not frames or raised_by_host:
        return summary
    return f"{summary} ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
