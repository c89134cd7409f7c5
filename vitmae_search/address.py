"""Addresses of folders and photos on object storage, `s3://bucket/folder/photo.jpg`, beside paths of files.

An address stands wherever a path does: folders are divided by "/", and what is in one begins with its
address.
"""

from __future__ import annotations

import os
import re
from pathlib import PurePath
from urllib.parse import unquote, urlsplit

from vitmae_search.errors import LibraryError

SCHEMES = ("s3", "gs", "memory")
"""Of the storages whose photos can be indexed. `memory` is this process's own, for tests."""
_ANY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_AS_A_PATH = re.compile(rf"^({'|'.join(SCHEMES)}):/(?=[^/])")
_USER = re.compile(r"[^/@]*:[^@]*@")
_SIGNATURE = re.compile(r"[?&][^/=]*(key|secret|token|signature|credential|password)[^/=]*=", re.IGNORECASE)
_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}


def is_address(path: str) -> bool:
    """Say whether a path is an address of a storage, and no file's."""
    return "://" in path and _ANY.match(path) is not None


def absolute_path(path: str | os.PathLike[str]) -> str:
    """The absolute path of a file or folder, with `~` resolved; or its address, as it is stored.

    `file:///folder` is the path `/folder`.

    Raises:
        LibraryError: It is an address that is not read here, or that has a user or a password in it.
    """
    text = os.fspath(path)
    if isinstance(path, PurePath):  # which makes one slash of two
        text = _AS_A_PATH.sub(r"\1://", text)
    if is_address(text):
        text = _stored_form(text)
    return text if is_address(text) else os.path.abspath(os.path.expanduser(text))


def bucket_of(address: str) -> str:
    """The bucket of an address, such as `s3://bucket`, which is what can be reached or not."""
    return "/".join(address.split("/", 3)[:3])


def _stored_form(address: str) -> str:
    scheme, rest = address.split("://", 1)
    scheme = _OTHER_NAMES.get(scheme.lower(), scheme.lower())
    if scheme == "file":
        return unquote(urlsplit(address).path)
    if scheme not in SCHEMES:
        raise LibraryError(f"addresses that begin with {scheme}:// are not read; s3:// and gs:// are")
    bucket = rest.split("/", 1)[0]
    if "@" in bucket or _holds_a_secret(rest):
        raise LibraryError(
            f"an address must not hold a user, a password or a key; name {scheme}://BUCKET/FOLDER, and leave "
            "credentials to the environment or the storage's own files, such as ~/.aws/credentials"
        )
    if not bucket:
        raise LibraryError(f"{scheme}:// needs the name of a bucket: {scheme}://BUCKET/FOLDER")
    return f"{scheme}://{rest.rstrip('/')}"


def _holds_a_secret(rest: str) -> bool:
    """Whether a user and a password stand before the bucket, or a signature at the end."""
    return _USER.match(rest) is not None or _SIGNATURE.search(rest) is not None
