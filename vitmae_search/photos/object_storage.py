"""Photos on object storage, through fsspec: `s3://` with s3fs, `gs://` with gcsfs.

Credentials and the endpoint are found by those packages, in the environment and in the storage's own files;
they never pass through here. What a storage answers is told in words of our own, as its texts may hold more
than that.

A storage has no folders, only names with slashes, and no inodes. The stamp of an object has the date and size
that the listing says, the identity of its bucket as `device`, and a number made of its ETag as `ctime_ns`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from vitmae_search.address import bucket_of
from vitmae_search.errors import (
    AbsentPhoto,
    LibraryError,
    PhotoError,
    PhotoTooLarge,
    UnreachablePhoto,
    UnreadablePhoto,
)
from vitmae_search.photos.formats import HEAD_BYTES, holds_photo
from vitmae_search.photos.google_storage import google_code, google_pages, open_google_storage
from vitmae_search.photos.prefetch import prefetch
from vitmae_search.photos.scan import (
    exclude_filter,
    is_photo_name,
    is_system_folder,
    may_hold_photo,
    suffix_of,
)
from vitmae_search.photos.video import is_video_name
from vitmae_search.records import ScanProblem, Stamp

_EXTRAS = {"s3": "s3", "gs": "gcs"}
_CONNECTIONS = 64
_PAGE = 1000
"""Objects that are listed in one request."""
_TRIES = 3
"""How often s3fs asks again for what botocore gave up on, and reads a body that was cut again."""
_MOST_IN_A_ROW = 16
"""So many objects, and none that can be read: then it is the bucket."""
_SECONDS_DOWN = 5.0
"""For how long a storage that could not be reached is not asked again: a page asks for many photos."""
_HEADS = 64
_HEAD_READERS = 16
"""Objects whose names say nothing are looked into in groups, several at a time."""
_OF_BUCKET = {
    "ExpiredToken": "the credentials have expired",
    "InvalidAccessKeyId": "the storage does not know the access key",
    "InvalidClientTokenId": "the storage does not know the access key",
    "InvalidCredentials": "the storage does not accept the credentials, or there are none",
    "InvalidToken": "the session token is not accepted",
    "CredentialsUnusable": "the credentials are refused, or Google cannot be asked about them",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "SignatureDoesNotMatch": "the secret key is not the one of the access key",
    "TokenRefreshRequired": "the credentials have expired",
    "NoSuchBucket": "there is no such bucket at this endpoint",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION",
}
"""Answers that concern no single object, by the code of S3, or what Google's mean in `google_code`."""
_FOR_NOW = {
    "SlowDown": "the storage asks for fewer requests; try again later",
    "ServiceUnavailable": "the storage is not available; try again later",
    "InternalError": "the storage has an error of its own; try again later",
}
"""Answers that may concern one object, or all."""


_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
)
_CUT = frozenset({"ClientPayloadError", "IncompleteRead", "IncompleteReadError", "ResponseStreamingError"})
"""Names of errors, since they are of packages that may not be installed."""
_Scope = Literal["object", "bucket", "unclear"]
"""Whether an error concerns one object, all of a bucket, or may do either."""


class ObjectStorage:
    """The buckets of one kind of storage; a `FileSystem`. Safe for threads."""

    def __init__(self, scheme: str, opened: Any) -> None:
        """Wrap an open file system.

        Args:
            scheme: Of its addresses.
            opened: One of fsspec.
        """
        self._scheme = scheme
        self._opened = opened
        self._lock = threading.Lock()
        self._down: dict[str, tuple[float, str]] = {}  # by bucket: until when, and why
        self._unread: Counter[str] = Counter()  # by bucket: objects that failed since one was read

    @classmethod
    def of(cls, scheme: str) -> ObjectStorage:
        """Open the file system of a scheme, with the credentials that its package finds.

        Raises:
            LibraryError: The package is not installed.
        """
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if scheme == "s3":
            options["config_kwargs"] = {
                "max_pool_connections": _CONNECTIONS,
                "connect_timeout": 10,
                "read_timeout": 60,
                "retries": {"mode": "standard"},
            }
        try:
            if scheme == "gs":
                opened = open_google_storage(**options)
            else:
                import fsspec

                opened = fsspec.filesystem(scheme, **options)
        except (ImportError, ValueError) as error:
            extra = _EXTRAS.get(scheme)
            how = f"pip install 'vitmae-search[{extra}]'" if extra else "install fsspec"
            raise LibraryError(f"{scheme}:// needs a package that is not installed: {how}") from error
        if scheme == "s3":
            opened.retries = _TRIES
        return cls(scheme, opened)

    def scan(
        self,
        root: str,
        *,
        exclude: Sequence[str] = (),
        on_problem: Callable[[ScanProblem], None],
        on_other: Callable[[str], None] | None = None,
        on_left_out: Callable[[str], None] | None = None,
        videos: bool = False,
    ) -> Iterator[Stamp]:
        """Yield the stamp of every photo in a folder, as its listing comes, page by page.

        The rules are those of a walk on disk (`photos.scan.scan`). An object whose name has no known suffix
        is read at its beginning.

        Args:
            root: The folder's address.
            exclude: Patterns of what to skip.
            on_problem: Called with the folder where the listing fails, or ends early.
            on_other: Called with the address of each object that is no photo; videos are none.
            on_left_out: Called with the address of each folder that is skipped.
            videos: Videos are not read here.
        """
        rules = _Rules(root, exclude, on_left_out)
        unnamed: list[Stamp] = []
        try:
            identity = self._identity_now(root)
            for entry in self._listing(root):
                address = f"{self._scheme}://{_key(entry)}"
                if not rules.allow(address):
                    continue
                stamp = _stamp(address, entry, identity)
                if is_photo_name(address):
                    yield stamp
                elif is_video_name(address) or not may_hold_photo(address):
                    if on_other is not None:
                        on_other(address)
                else:
                    unnamed.append(stamp)
                if len(unnamed) == _HEADS:
                    yield from self._photos_among(unnamed, on_problem, on_other)
                    unnamed = []
            yield from self._photos_among(unnamed, on_problem, on_other)
        except Exception as error:  # of the storage's package, which may be any
            on_problem(ScanProblem(root, self._reason(root, error)))

    def read(self, path: str | os.PathLike[str], max_bytes: int) -> bytes:
        """Read a whole object, in one request.

        Args:
            path: Its address.
            max_bytes: Largest size that is read.

        Raises:
            UnreadablePhoto: It is absent or not permitted; `UnreachablePhoto` where the bucket is.
            PhotoTooLarge: It has more than `max_bytes`.
        """
        address = os.fspath(path)
        data = self._read_part(address, max_bytes + 1)
        if len(data) > max_bytes:
            raise PhotoTooLarge.of_bytes(address, len(data), max_bytes)
        return data

    def is_gone(self, path: str) -> bool:
        """Whether the bucket's listing has no such object; False where it cannot be listed."""
        try:
            self._opened.info(_plain(path))
        except FileNotFoundError:
            return self.identity(path) is not None
        except Exception:
            return False
        return False

    def is_folder(self, path: str) -> bool:
        """Whether the bucket can be listed and, but for a whole bucket, has an object in this folder."""
        try:
            return next(self._pages(path, 1), None) is not None or path == bucket_of(path)
        except Exception as error:
            self._reason(path, error)
            return False

    def why_no_folder(self, path: str) -> str:
        """What to say where `is_folder` is False."""
        try:
            next(self._pages(path, 1), None)
            if path != bucket_of(path) and self._opened.info(_plain(path))["type"] == "file":
                return "is a file; name the folder that it is in"
        except FileNotFoundError:
            pass
        except Exception as error:
            return f"cannot be looked into: {self._reason(path, error)}"
        return "has no objects; check the name"

    def identity(self, path: str) -> int | None:
        """A number of the endpoint and the bucket; None where the bucket cannot be listed now.

        A bucket of the same name at another endpoint is another one.
        """
        try:
            return self._identity_now(path)
        except Exception as error:
            self._reason(path, error)
            return None

    def _identity_now(self, path: str) -> int:
        next(self._pages(path, 1), None)
        return _number(f"{self._endpoint()} {bucket_of(path)}")

    def _endpoint(self) -> str:
        """The host that answers, without whatever else is in its address."""
        if self._scheme not in ("s3", "gs"):
            return self._scheme
        google = self._scheme == "gs"
        parts = urlsplit(self._opened.base if google else self._opened.s3.meta.endpoint_url)
        host = (parts.hostname or "").lower()
        if host.endswith(".googleapis.com"):
            return "googleapis.com"  # one set of names, with or without a client's certificate
        if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            return (
                "amazonaws.com.cn" if host.endswith(".cn") else "amazonaws.com"
            )  # names are unique in all regions
        return f"{host}:{parts.port or ''}"

    def _listing(self, root: str) -> Iterator[Mapping[str, Any]]:
        for page in self._pages(root):
            yield from page

    def _pages(self, root: str, most: int = 0) -> Iterator[Sequence[Mapping[str, Any]]]:
        """What a folder's listing says of its objects at any depth; empty pages are left out.

        Raises:
            Exception: Of the storage's package. All that was yielded before is so.
        """
        self._raise_if_down(bucket_of(root))
        if self._scheme == "s3":
            yield from self._pages_of_s3(root, most or _PAGE)
            return
        if self._scheme == "gs":
            bucket, _, folder = _plain(root).partition("/")
            yield from google_pages(self._opened, bucket, folder and folder + "/", most or _PAGE)
            return
        if not self._opened.isdir(_plain(root)):
            return

        def fail(error: Exception) -> None:
            raise error

        for _, _, files in self._opened.walk(_plain(root), detail=True, on_error=fail):
            if files:
                yield list(files.values())

    def _pages_of_s3(self, root: str, most: int) -> Iterator[Sequence[Mapping[str, Any]]]:
        """The flat listing: one request for a thousand objects, whatever folders they are in."""
        bucket, _, prefix = _plain(root).partition("/")
        request = {"Bucket": bucket, "Prefix": prefix and prefix + "/", "MaxKeys": most}
        while True:
            page = self._opened.call_s3("list_objects_v2", **request)
            found = [{**one, "name": f"{bucket}/{one['Key']}"} for one in page.get("Contents", ())]
            if found:
                yield found
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _photos_among(
        self,
        stamps: Sequence[Stamp],
        on_problem: Callable[[ScanProblem], None],
        on_other: Callable[[str], None] | None,
    ) -> Iterator[Stamp]:
        """Those of the objects that begin as a photo does."""

        def begins_as_photo(stamp: Stamp) -> bool | PhotoError:
            try:
                return holds_photo(self._read_part(stamp.path, HEAD_BYTES), suffix_of(stamp.path))
            except PhotoError as error:
                return error

        answers = prefetch(stamps, begins_as_photo, workers=_HEAD_READERS, ahead=2 * _HEAD_READERS)
        for stamp, answer in zip(stamps, answers, strict=True):
            if isinstance(answer, PhotoError):
                on_problem(ScanProblem(stamp.path, answer.reason))
            elif answer:
                yield stamp
            elif on_other is not None:
                on_other(stamp.path)

    def _read_part(self, address: str, size: int) -> bytes:
        """The first bytes of an object."""
        try:
            self._raise_if_down(bucket_of(address))
            data: bytes = self._opened.cat_file(_plain(address), start=0, end=size)
        except Exception as error:
            if _code(error) in ("InvalidRange", "416"):  # it is empty
                return b""
            reason = self._reason_of_one(address, error)
            kind: type[UnreadablePhoto] = UnreadablePhoto
            if self._is_down(bucket_of(address)):
                kind = UnreachablePhoto
            elif isinstance(error, FileNotFoundError):
                kind = AbsentPhoto
            raise kind(address, reason) from None
        with self._lock:
            self._unread[bucket_of(address)] = 0
        return data

    def _raise_if_down(self, bucket: str) -> None:
        if self._is_down(bucket):
            raise _StillDown(self._down[bucket][1])

    def _is_down(self, bucket: str) -> bool:
        with self._lock:
            return self._down.get(bucket, (0.0, ""))[0] > time.monotonic()

    def _reason(self, address: str, error: Exception) -> str:
        """Why a bucket cannot be listed, in words of our own. It is remembered if it concerns the bucket."""
        if isinstance(error, _StillDown):
            return str(error)
        reason, scope = _explained(error)
        if scope != "object":
            self._note_down(bucket_of(address), reason)
        return reason

    def _reason_of_one(self, address: str, error: Exception) -> str:
        """Why an object cannot be read; whether it is the whole bucket, its listing and other objects say."""
        if isinstance(error, _StillDown):
            return str(error)
        reason, scope = _explained(error)
        bucket = bucket_of(address)
        if self._scheme == "gs" and isinstance(error, FileNotFoundError):
            if self.identity(bucket) is None:  # Google's answer for an absent bucket is the same
                return self._down.get(bucket, (0.0, reason))[1]
        elif scope == "unclear" and self.identity(bucket) is not None:
            with self._lock:
                self._unread[bucket] += 1
                scope = "bucket" if self._unread[bucket] >= _MOST_IN_A_ROW else "object"
        if scope == "bucket":
            self._note_down(bucket, reason)
        return reason

    def _note_down(self, bucket: str, reason: str) -> None:
        with self._lock:
            self._down[bucket] = (time.monotonic() + _SECONDS_DOWN, reason)
            self._unread[bucket] = 0


class _StillDown(Exception):
    """The storage could not be reached a moment ago; says why."""


class _Rules:
    """Which names of a listing the walk of a folder leaves out; see `photos.scan.scan`."""

    def __init__(self, root: str, exclude: Sequence[str], on_left_out: Callable[[str], None] | None) -> None:
        self._root = root
        self._excluded = exclude_filter(exclude) if exclude else None
        self._on_left_out = on_left_out
        self._last = ("", True)  # a folder's objects mostly come one after the other

    def allow(self, address: str) -> bool:
        """Whether the object is looked at; folder markers, hidden names and what is excluded are not."""
        folder, _, name = address.rpartition("/")
        if not name or name.startswith(".") or not self._allows_folder(folder):
            return False
        return self._excluded is None or not self._excluded(name, address[len(self._root) + 1 :], False)

    def _allows_folder(self, folder: str) -> bool:
        if folder != self._last[0]:
            self._last = folder, self._allows_each_part(folder)
        return self._last[1]

    def _allows_each_part(self, folder: str) -> bool:
        parent = self._root
        for name in folder[len(self._root) + 1 :].split("/") if folder != self._root else ():
            path = f"{parent}/{name}"
            if is_system_folder(parent, name):
                if self._on_left_out is not None:
                    self._on_left_out(path)
                return False
            relative = path[len(self._root) + 1 :]
            if name.startswith(".") or (self._excluded is not None and self._excluded(name, relative, True)):
                return False
            parent = path
        return True


def _plain(address: str) -> str:
    """The bucket and the name, without a scheme."""
    return address.split("://", 1)[1]


def _key(entry: Mapping[str, Any]) -> str:
    return str(entry["name"]).lstrip("/")


def _stamp(address: str, entry: Mapping[str, Any], identity: int) -> Stamp:
    size = entry.get("Size", entry.get("size")) or 0
    tag = next((entry[name] for name in ("ETag", "etag", "md5Hash", "generation") if entry.get(name)), None)
    return Stamp(address, int(size), _changed_at(entry), identity, None if tag is None else _number(str(tag)))


def _changed_at(entry: Mapping[str, Any]) -> int:
    """When an object was written, in nanoseconds since the epoch; 0 where the listing does not say."""
    named = ("LastModified", "last_modified", "mtime", "updated", "created")
    when = next((entry[name] for name in named if entry.get(name)), 0)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    seconds = when.timestamp() if isinstance(when, datetime) else float(when)
    return int(seconds * 1e6) * 1000


def _number(text: str) -> int:
    """A number of 62 bits that stands for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def _code(error: BaseException) -> str:
    """The storage's own code of an error, such as "AccessDenied"; "" where there is none."""
    current: BaseException | None = error
    while current is not None:
        response = getattr(current, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
        if code := google_code(current):
            return code
        current = current.__cause__
    return ""


def _explained(error: Exception) -> tuple[str, _Scope]:
    """What an error means, and what it concerns."""
    code, kind = _code(error), type(error).__name__
    if code in _OF_BUCKET:
        return _OF_BUCKET[code], "bucket"
    if code in _FOR_NOW:
        return _FOR_NOW[code], "unclear"
    if kind in _NO_CREDENTIALS:
        return "there are no credentials for it in the environment or in the storage's own files", "bucket"
    if code == "InvalidObjectState":
        return "the object is in an archive, and has to be restored first", "object"
    if isinstance(error, FileNotFoundError):
        return "there is no such object", "object"
    if isinstance(error, PermissionError) or code == "AccessDenied":
        return "access is denied", "object"
    if code:
        return f"the storage answers {code}", "object"
    return _explained_without_code(error), "unclear"


def _explained_without_code(error: Exception) -> str:
    """What an error means that is not an answer of the storage."""
    kind = type(error).__name__
    if kind in _CUT:
        return "the storage's answer ends too early; try again later"
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return _FOR_NOW["SlowDown"]
    if isinstance(error, (ConnectionError, TimeoutError)) or "connect" in kind.lower() or "Timeout" in kind:
        return "its storage cannot be reached"
    return f"the storage cannot be asked ({kind})"
