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
import itertools
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
from vitmae_search.photos.live import is_part_of_live_photo, live_stems
from vitmae_search.photos.prefetch import prefetch
from vitmae_search.photos.scan import (
    exclude_filter,
    is_photo_name,
    is_system_folder,
    is_under,
    may_hold_photo,
    suffix_of,
)
from vitmae_search.records import ScanProblem, Stamp, file_of, is_video_name

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
            on_other: Called with the address of each object that is no photo.
            on_left_out: Called with the address of each folder that is skipped.
            videos: Yield videos, too, but for the moving parts of Live photos.
        """
        rules = _Rules(root, exclude, on_left_out)
        films = _Videos(on_other)
        unnamed: list[Stamp] = []
        try:
            identity = self._identity_now(root)
            for entry in self._listing(root):
                address = f"{self._scheme}://{_key(entry)}"
                if not rules.allow(address):
                    continue
                stamp = _stamp(address, entry, identity)
                if videos:
                    yield from films.add(stamp)
                if is_photo_name(address):
                    yield stamp
                elif videos and is_video_name(address):
                    continue
                elif not may_hold_photo(address):
                    if on_other is not None:
                        on_other(address)
                else:
                    unnamed.append(stamp)
                if len(unnamed) == _HEADS:
                    yield from self._photos_among(unnamed, on_problem, on_other)
                    unnamed = []
            yield from self._photos_among(unnamed, on_problem, on_other)
            yield from films.rest()
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
        data = self.read_part(address, 0, max_bytes + 1)
        if len(data) > max_bytes:
            raise PhotoTooLarge.of_bytes(address, len(data), max_bytes)
        return data

    def read_part(self, address: str, start: int, size: int) -> bytes:
        """Read some bytes of an object, in one request; fewer where it ends.

        Args:
            address: The object's.
            start: Where they begin.
            size: How many they are.

        Raises:
            UnreadablePhoto: It is absent or not permitted; `UnreachablePhoto` where the bucket is.
        """
        try:
            self._raise_if_down(bucket_of(address))
            data: bytes = self._opened.cat_file(_plain(address), start=start, end=start + size)
        except Exception as error:
            if _code(error) in ("InvalidRange", "416"):  # it ends before
                return b""
            raise self._unreadable(address, error) from None
        with self._lock:
            self._unread[bucket_of(address)] = 0
        return data

    def stamp(self, address: str) -> Stamp:
        """The stamp of an object, in one request.

        Raises:
            UnreadablePhoto: It is absent or not permitted; `UnreachablePhoto` where the bucket is.
        """
        try:
            self._raise_if_down(bucket_of(address))
            return _stamp(address, self._opened.info(_plain(address)), 0)
        except Exception as error:
            raise self._unreadable(address, error) from None

    def sizes(self, stem: str, suffixes: Sequence[str]) -> dict[str, int]:
        """The sizes of objects that differ in their suffix, by one listing.

        Args:
            stem: Their address without it.
            suffixes: Those that are looked for.

        Raises:
            UnreadablePhoto: The storage does not say it; `UnreachablePhoto` where the bucket is.
        """
        bucket, _, prefix = _plain(stem + ".").partition("/")
        try:
            listed = itertools.chain.from_iterable(self._pages_named(bucket, prefix, _PAGE))
            stamps = [
                _stamp(f"{self._scheme}://{_key(one)}", one, 0) for one in itertools.islice(listed, _PAGE)
            ]
        except Exception as error:
            raise self._unreadable(stem, error) from None
        sizes = {stamp.path: stamp.size for stamp in stamps}
        return {stem + suffix: sizes[stem + suffix] for suffix in suffixes if stem + suffix in sizes}

    def is_gone(self, path: str) -> bool:
        """Whether the bucket's listing has no such object; False where it cannot be listed."""
        path = file_of(path)
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
        bucket, _, folder = _plain(root).partition("/")
        yield from self._pages_named(bucket, folder and folder + "/", most or _PAGE)

    def _pages_named(self, bucket: str, prefix: str, most: int) -> Iterator[Sequence[Mapping[str, Any]]]:
        """As `_pages`, of the objects of a bucket whose names begin with `prefix`."""
        self._raise_if_down(f"{self._scheme}://{bucket}")
        if self._scheme == "s3":
            yield from self._pages_of_s3(bucket, prefix, most)
            return
        if self._scheme == "gs":
            yield from google_pages(self._opened, bucket, prefix, most)
            return
        folder = f"{bucket}/{prefix}".rpartition("/")[0]
        if not self._opened.isdir(folder):
            return

        def fail(error: Exception) -> None:
            raise error

        for _, _, files in self._opened.walk(folder, detail=True, on_error=fail):
            found = [one for one in files.values() if _key(one).startswith(f"{bucket}/{prefix}")]
            if found:
                yield found

    def _pages_of_s3(self, bucket: str, prefix: str, most: int) -> Iterator[Sequence[Mapping[str, Any]]]:
        """The flat listing: one request for a thousand objects, whatever folders they are in."""
        request = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": most}
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
                return holds_photo(self.read_part(stamp.path, 0, HEAD_BYTES), suffix_of(stamp.path))
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

    def _unreadable(self, address: str, error: Exception) -> UnreadablePhoto:
        """What to raise where an object cannot be read."""
        reason = self._reason_of_one(address, error)
        kind: type[UnreadablePhoto] = UnreadablePhoto
        if self._is_down(bucket_of(address)):
            kind = UnreachablePhoto
        elif isinstance(error, FileNotFoundError):
            kind = AbsentPhoto
        return kind(address, reason)

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


class _Videos:
    """The videos of a listing, held back until all names of a folder came: Live photos' are left out."""

    def __init__(self, on_other: Callable[[str], None] | None) -> None:
        self._on_other = on_other
        self._open: list[tuple[str, set[str], list[Stamp]]] = []
        """Folders that the listing is in, the outermost first, with the stems of stills, and the videos."""

    def add(self, stamp: Stamp) -> Iterator[Stamp]:
        """Note an object of the listing, and yield the videos of folders that it has left."""
        folder, _, name = stamp.path.rpartition("/")
        while self._open and not is_under(folder, self._open[-1][0]):
            yield from self._videos(*self._open.pop())
        if not self._open or self._open[-1][0] != folder:
            self._open.append((folder, set(), []))
        _, stems, videos = self._open[-1]
        if is_video_name(name):
            videos.append(stamp)
        else:
            stems |= live_stems([name])

    def rest(self) -> Iterator[Stamp]:
        """Yield the videos of the last folders."""
        while self._open:
            yield from self._videos(*self._open.pop())

    def _videos(self, folder: str, stems: set[str], videos: Sequence[Stamp]) -> Iterator[Stamp]:
        for stamp in videos:
            if not is_part_of_live_photo(stamp.path[len(folder) + 1 :], stems):
                yield stamp
            elif self._on_other is not None:
                self._on_other(stamp.path)


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
