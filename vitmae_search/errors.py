"""Errors that are meant for people to read and act on, in one tree.

::

    VitmaeSearchError
    ├── PhotoError              one file could not be used; work on the others goes on
    │   ├── UnreadablePhoto       the disk or the permissions refuse it
    │   │   └── UnreachablePhoto    its storage cannot be reached now, so none of its photos can
    │   ├── UnsupportedPhoto      not a format that is decoded here
    │   ├── DamagedPhoto          truncated or malformed
    │   └── PhotoTooLarge         more pixels or bytes than the limit
    │       └── MemoryShort         more than this machine's memory had room for at that moment
    ├── LabelsError             a table of labels is wrong, or photos lack labels
    ├── ModelError              a model could not be made, found or loaded
    │   ├── ConfigError           a field, its value and the rule it breaks; a ValueError too
    │   ├── CheckpointError       a weights file that cannot be loaded
    │   ├── ModelNotFound         no such name, folder, file or hub id; an OSError too
    │   ├── NoDecoder             a reconstruction by a model that is an encoder alone
    │   └── NoText                a search by words with a model of pictures alone
    ├── DeviceError             no such device or precision, or a device that is lost or full
    ├── PluginError             a plugin is missing or misbehaves
    │   ├── PluginNotFound        no plugin has this name
    │   ├── PluginBroken          it does not load, or breaks the contract
    │   └── PluginOptionError     no such option, or a bad value
    ├── StorageUnreachable      an object storage cannot be reached, or lets nobody in
    ├── LibraryError            a library could not be opened or written
    │   ├── LibraryBusy           another process is writing
    │   ├── LibraryDamaged        the catalogue cannot be read
    │   ├── LibraryTooNew         written by a newer version
    │   ├── LibraryEmpty          nothing is indexed yet
    │   └── StorageError          a full disk, a read-only folder
    │       ├── LibraryUnreachable  the server that has the catalogue does not answer
    │       └── LibraryDenied       it does not let this user do that
    ├── SpaceError              no such embedding space, or spaces that would mix
    ├── VectorIndexError        a vector index cannot do what it was called for
    │   ├── VectorCacheDamaged    the index file fails its checks, and is rebuilt from the catalogue
    │   └── VectorStoreUnavailable  a vector database cannot be reached, or refuses its work
    │       └── VectorStoreDenied     it does not let this user do that
    ├── TrainingError           training cannot start or go on
    └── EvaluationError         there is nothing that could be measured

A message says in one or two sentences what happened, to which file, and what to do. Errors with more than a
message pickle with all their attributes, since they come from processes that decode photos.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/{1,3}[^\s\"'<>]+", re.IGNORECASE)
# "//user:password@" or "//token@"; with one slash, which is what a path makes of two, only the former.
# Passwords that are not encoded as they should be may hold a slash or an @. "//USER@" is in messages that
# tell what an address looks like.
_USER = re.compile(r"(:/{2,3})(?!(?i:user)@[^@]*$)[^/?#]*@|(:/{1,3})[^/?#]*:[^?#]*@")
_NAMES_OF_SECRETS = (
    "access[_-]?key|access[_-]?token|api[_-]?key|auth|authorization|code|credentials?|jwt|key|pass|passwd"
    "|password|policy|pwd|secret|session|sig|signature|token|x-amz-[a-z-]+|x-goog-[a-z-]+|key-pair-id"
    "|awsaccesskeyid"
)
_QUERY = re.compile(rf"([?&;#](?:{_NAMES_OF_SECRETS})=)[^&;#]*", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")
_HEADER = re.compile(r"\b(Bearer|Basic) +(?=[^\s]*[0-9=])[A-Za-z0-9._~+/=-]{8,}")


def mask_credentials(text: str) -> str:
    """`text` with `***` for what gives access: passwords and tokens in addresses, and tokens of the hub."""
    if ":/" in text:
        text = _ADDRESS.sub(lambda found: _mask_address(found[0]), text)
    if "hf_" in text:
        text = _HUB_TOKEN.sub("hf_***", text)
    return _HEADER.sub(r"\1 ***", text)


def _mask_address(address: str) -> str:
    return _QUERY.sub(r"\1***", _USER.sub(lambda found: (found[1] or found[2]) + "***@", address, count=1))


def clear_frames(error: BaseException) -> None:
    """Release the local variables that the tracebacks of an error and of its causes keep alive.

    They hold a photo's bytes and pixels. It is for errors that are kept for a while; the tracebacks remain.
    """
    current: BaseException | None = error
    while current is not None:
        traceback.clear_frames(current.__traceback__)
        current = current.__cause__ or current.__context__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that is most like a mistyped one, as the end of a message; "" if none is.

    Args:
        name: What was typed.
        known: The names that there are.
    """
    from difflib import get_close_matches  # rarely needed

    alike = get_close_matches(name, list(known), n=1)
    return f" Did you mean {alike[0]!r}?" if alike else ""


def display_path(path: str | os.PathLike[str]) -> str:
    """`path` as one line of valid text: undecodable bytes as U+FFFD, control characters escaped.

    What should be a path may be an address; its credentials are masked.
    """
    text = os.fsencode(path).decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return mask_credentials(text)


class VitmaeSearchError(Exception):
    """Base of every error that is meant for a person to read and act on. Its message shows no credentials."""

    def __str__(self) -> str:
        return mask_credentials(super().__str__())


class PhotoError(VitmaeSearchError):
    """One photo could not be used.

    Attributes:
        path: The file, None for a picture that has none.
        reason: A short phrase without the path, for a table of failures; the message has both.
    """

    def __init__(self, path: str | os.PathLike[str] | None, reason: str) -> None:
        self.path = None if path is None else os.fspath(path)
        self.reason = reason
        super().__init__(reason if path is None else f"{display_path(path)}: {reason}")

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str | None, str]]:
        return type(self), (self.path, self.reason)


class UnreadablePhoto(PhotoError):
    """The file could not be read from disk."""


class AbsentPhoto(UnreadablePhoto):
    """The photo's storage answers that it is not there."""


class UnreachablePhoto(UnreadablePhoto):
    """The photo's storage cannot be reached now, or lets nobody in: no photo of it can be read."""


class UnsupportedPhoto(PhotoError):
    """The file is not in a format that is decoded here."""


class DamagedPhoto(PhotoError):
    """The file is truncated or malformed."""


class PhotoTooLarge(PhotoError):
    """The file has more pixels or bytes than the limit."""

    @classmethod
    def of_bytes(cls, path: str | os.PathLike[str], size: int, limit: int) -> PhotoTooLarge:
        """The error of a file with too many bytes.

        Args:
            path: The file.
            size: Its bytes.
            limit: Most bytes that are read.
        """
        return cls(path, f"{size / 1e6:,.1f} MB, more than the limit of {limit / 1e6:,.1f} MB")


class MemoryShort(PhotoTooLarge):
    """The machine's memory did not suffice for the file at that moment; another time it may."""


class LabelsError(VitmaeSearchError):
    """A table of labels is wrong, or photos that need labels have none."""


class ModelError(VitmaeSearchError):
    """A model could not be made, found or loaded."""


class ConfigError(ModelError, ValueError):
    """A configuration field or an argument breaks a rule.

    Attributes:
        field: Its name.
        value: What it was set to.
        rule: What it must be, "must be a positive integer".
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        self.field, self.value, self.rule = field, value, rule
        super().__init__(f"{field}={value!r}: {rule}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.rule)


class CheckpointError(ModelError, RuntimeError):
    """A weights file cannot be loaded: truncated, a pickle, NaN, or of other shapes."""


class ModelNotFound(ModelError, OSError):
    """No model has this name, path or hub id, or the hub cannot be reached.

    An `OSError` too, which is what the reference's `from_pretrained` raises.
    """


class NoDecoder(ModelError):
    """The model has no decoder, so it cannot reconstruct."""


class NoText(ModelError):
    """The model was trained on pictures alone, so it cannot search by words."""


class DeviceError(VitmaeSearchError):
    """The chosen device or precision is not available, the device was lost, or its memory is too small.

    No photo is the cause, so another one would fail too.
    """


class PluginError(VitmaeSearchError):
    """A plugin is missing or misbehaves.

    Attributes:
        plugin: Its name.
        message: What it did, without the name.
    """

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


class StorageUnreachable(VitmaeSearchError):
    """An object storage cannot be reached now, or lets nobody in, so that a job on its photos ends."""


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


class LibraryUnreachable(StorageError):
    """The server that has the catalogue does not answer now."""


class LibraryDenied(StorageError):
    """The server that has the catalogue does not let this user do that, such as write."""


class SpaceError(VitmaeSearchError):
    """No such embedding space, or two spaces that would mix."""


class VectorIndexError(VitmaeSearchError):
    """A vector index cannot do what it was called for."""


class VectorCacheDamaged(VectorIndexError):
    """The index file fails its checks. As a cache, it can be rebuilt from the catalogue."""


class VectorStoreUnavailable(VectorIndexError):
    """A vector database cannot be reached, or refuses its work. It follows the catalogue later."""


class VectorStoreDenied(VectorStoreUnavailable):
    """A vector database does not let this user do that, such as write."""


class TrainingError(VitmaeSearchError):
    """Training cannot start or go on."""


class InspectionError(VitmaeSearchError):
    """What was asked of a model's inside is not there: a layer, a head, a patch, or all of it."""


class EvaluationError(VitmaeSearchError):
    """There are no photos to measure on."""
