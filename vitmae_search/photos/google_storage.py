"""Google Cloud Storage through gcsfs: how it is opened and listed, and what its errors mean.

Its JSON API alone is asked. The class that gcsfs chooses by itself asks for the kind of a bucket before each
read, over gRPC: one more permission, and a minute's wait where that is not reached. It reads zonal buckets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TRIES = 4
_FIRST_WAIT = 0.5
"""Seconds before a request is sent again; twice as many before each further one."""
_FIELDS = "items(name,size,generation,timeCreated),nextPageToken"
_CODES = {
    400: "InvalidRequest",
    401: "InvalidCredentials",
    408: "InternalError",
    416: "InvalidRange",
    429: "SlowDown",
    500: "InternalError",
    502: "ServiceUnavailable",
    503: "ServiceUnavailable",
    504: "InternalError",
}
"""From HTTP's codes to the names that S3 has for the same."""


class NoSuchBucket(Exception):
    """There is no bucket of this name."""


def open_google_storage(**options: Any) -> Any:
    """Open fsspec's file system of all buckets, which reads only.

    Args:
        **options: Of every file system of fsspec.

    Raises:
        ImportError: gcsfs is not installed.
    """
    from aiohttp import ClientTimeout
    from gcsfs.core import GCSFileSystem
    from gcsfs.retry import is_retriable

    once = GCSFileSystem._request
    once = getattr(once, "__wrapped__", once)  # without its six tries, which take half a minute

    class GoogleStorage(GCSFileSystem):  # type: ignore[misc]
        async def _request(self, *args: Any, **request: Any) -> Any:
            for attempt in range(_TRIES - 1):
                try:
                    return await once(self, *args, **request)
                except Exception as error:
                    if not is_retriable(error):
                        raise
                await asyncio.sleep(_FIRST_WAIT * 2**attempt)
            return await once(self, *args, **request)

    timeout = ClientTimeout(total=None, sock_connect=10, sock_read=60)
    return GoogleStorage(access="read_only", session_kwargs={"timeout": timeout}, **options)


def google_pages(files: Any, bucket: str, prefix: str, most: int) -> Iterator[Sequence[Mapping[str, Any]]]:
    """What a listing says of all objects whose names begin alike, whatever folders they are in.

    Args:
        files: An `open_google_storage`.
        bucket: The bucket's name.
        prefix: What names begin with.
        most: Objects in one request.

    Raises:
        NoSuchBucket: The bucket does not exist.
        Exception: Of gcsfs. All that was yielded before is so.
    """
    request = {"prefix": prefix, "maxResults": most, "fields": _FIELDS}
    while True:
        try:
            page = files.call("GET", "b/{}/o", bucket, json_out=True, **request)
        except FileNotFoundError:
            raise NoSuchBucket from None
        # A generation is one content; the date is its own, which new metadata leave as it is.
        found = [
            {
                "name": f"{bucket}/{one['name']}",
                "size": one.get("size"),
                "created": one.get("timeCreated"),
                "generation": one.get("generation"),
            }
            for one in page.get("items", ())
        ]
        if found:
            yield found
        if not page.get("nextPageToken"):
            return
        request["pageToken"] = page["nextPageToken"]


def google_code(error: BaseException) -> str:
    """What an error of gcsfs means, as the name that S3 has for it; "" where that is not known."""
    kind, module = type(error).__name__, type(error).__module__
    if isinstance(error, NoSuchBucket):
        return "NoSuchBucket"
    if kind == "HttpError" and module.startswith("gcsfs."):
        code = int(getattr(error, "code", None) or 0)
        return _CODES.get(code, str(code) if code else "")
    if type(error) is OSError and str(error).startswith("Forbidden: "):
        return "AccessDenied"
    if kind == "ProxyError":  # gcsfs's word for 502
        return "ServiceUnavailable"
    if module.startswith("google.auth.") or kind == "NonRetryableError":
        return "CredentialsUnusable"
    return ""
