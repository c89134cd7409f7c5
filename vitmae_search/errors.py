"""Every error that a person may see, in one tree.

::

    VitmaeSearchError
    ├── PhotoError              one file could not be used; the others go on
    │   ├── UnreadablePhoto       the disk or the permissions refuse it
    │   ├── UnsupportedPhoto      not a format that is decoded here
    │   ├── DamagedPhoto          truncated or malformed
    │   └── PhotoTooLarge         more pixels or bytes than the limit
    ├── LabelsError             a table of labels is wrong, or photos have none
    ├── ModelError
    │   ├── ConfigError           a field, its value and the rule it breaks
    │   ├── CheckpointError       a weights file that cannot be loaded
    │   ├── ModelNotFound         no such name, folder, file or hub id
    │   └── NoDecoder             reconstructions asked of an encoder alone
    ├── DeviceError             a device or precision that is not there, a device that is lost or full
    ├── PluginError
    │   ├── PluginNotFound
    │   ├── PluginBroken          it does not load, or breaks the contract
    │   └── PluginOptionError     an option that it does not have, or a bad value
    ├── LibraryError
    │   ├── LibraryBusy           another process is writing
    │   ├── LibraryDamaged        the catalogue cannot be read
    │   ├── LibraryTooNew         written by a newer version
    │   ├── LibraryEmpty          nothing indexed yet
    │   └── StorageError          disk full, read-only folder
    ├── SpaceError              no such embedding space, or spaces that would mix
    ├── VectorIndexError
    │   └── VectorCacheDamaged    the file is rebuilt from the catalogue
    ├── TrainingError
    └── EvaluationError         nothing can be measured

A message says what happened, to which file, and what to do, in one or two sentences.
"""

from __future__ import annotations

import os
import traceback


def let_go(error: BaseException) -> None:
    """Empty the frames that it came by, and those of its causes: they hold a photo's bytes and pixels.

    For errors that are kept for a while. Their tracebacks stay, without locals.
    """
    one: BaseException | None = error
    while one is not None:
        traceback.clear_frames(one.__traceback__)
        one = one.__cause__ or one.__context__


def display_path(path: str | os.PathLike[str]) -> str:
    """`path` as one line of valid text: undecodable bytes as U+FFFD, control characters escaped."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class VitmaeSearchError(Exception):
    """Base of every error that is meant for a person to read and act on."""


class PhotoError(VitmaeSearchError):
    """One photo could not be used.

    `reason` is a short phrase without the path, for a table of failures; `str()` has both.
    """

    def __init__(self, path: str | os.PathLike[str] | None, reason: str) -> None:
        self.path = None if path is None else os.fspath(path)
        self.reason = reason
        super().__init__(reason if path is None else f"{display_path(path)}: {reason}")

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str | None, str]]:
        return type(self), (self.path, self.reason)


class UnreadablePhoto(PhotoError):
    """The file could not be read from disk."""


class UnsupportedPhoto(PhotoError):
    """The file is not in a format that is decoded here."""


class DamagedPhoto(PhotoError):
    """The file is truncated or malformed."""


class PhotoTooLarge(PhotoError):
    """The file has more pixels or bytes than the limit."""


class LabelsError(VitmaeSearchError):
    """A table of labels is wrong, or photos that need labels have none."""


class ModelError(VitmaeSearchError):
    """A model could not be made, found or loaded."""


class ConfigError(ModelError, ValueError):
    """A configuration field breaks a rule."""

    def __init__(self, field: str, value: object, rule: str) -> None:
        self.field, self.value, self.rule = field, value, rule
        super().__init__(f"{field}={value!r}: {rule}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.rule)


class CheckpointError(ModelError):
    """A weights file cannot be loaded: truncated, a pickle, NaN, or of other shapes."""


class ModelNotFound(ModelError, OSError):
    """No model has this name, path or hub id, or the hub cannot be reached.

    An `OSError` too, which is what the reference's `from_pretrained` raises.
    """


class NoDecoder(ModelError):
    """The checkpoint is an encoder alone, so it cannot reconstruct."""


class DeviceError(VitmaeSearchError):
    """The device or precision that was asked for is not available, was lost, or has too little memory.

    No photo is to blame, and trying another one will not help.
    """


class PluginError(VitmaeSearchError):
    """A plugin is missing or misbehaves. `plugin` is its name."""

    def __init__(self, plugin: str, message: str) -> None:
        self.plugin, self.message = plugin, message
        super().__init__(f"plugin {plugin!r}: {message}")

    def __reduce__(self) -> tuple[type[PluginError], tuple[str, str]]:
        return type(self), (self.plugin, self.message)


class PluginNotFound(PluginError):
    """No plugin has this name."""


class PluginBroken(PluginError):
    """The plugin does not load, or what it returned breaks the contract."""


class PluginOptionError(PluginError):
    """The plugin has no such option, or the value does not fit it."""


class LibraryError(VitmaeSearchError):
    """The library could not be opened or written."""


class LibraryBusy(LibraryError):
    """Another process holds the writer's lock."""


class LibraryDamaged(LibraryError):
    """The catalogue is not a readable SQLite file of ours."""


class LibraryTooNew(LibraryError):
    """The catalogue was written by a newer version of vitmae-search."""


class LibraryEmpty(LibraryError):
    """Nothing is indexed yet."""


class StorageError(LibraryError):
    """The disk is full, or the folder cannot be written."""


class SpaceError(VitmaeSearchError):
    """No such embedding space, or two spaces that would mix."""


class VectorIndexError(VitmaeSearchError):
    """A vector index was asked for something that it cannot do."""


class VectorCacheDamaged(VectorIndexError):
    """The index file fails its checks. It is a cache: rebuild it from the catalogue."""


class TrainingError(VitmaeSearchError):
    """Training cannot start or go on."""


class EvaluationError(VitmaeSearchError):
    """There are no photos that anything could be measured on."""
