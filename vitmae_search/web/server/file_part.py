"""A part of a file as a response, of which a browser may ask for a range."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

_BLOCK = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def file_part(
    request: Request,
    opened: BinaryIO,
    offset: int,
    length: int,
    *,
    media_type: str,
    headers: Mapping[str, str],
) -> Response:
    """Stream bytes of a file, all or the one range that the request names; of several ranges it is all.

    Args:
        request: Names the range.
        opened: The file, which is closed at the end of the answer.
        offset: Where the part begins, in bytes.
        length: How many bytes it has.
        media_type: The part's.
        headers: More headers; `ETag` among them.

    Returns:
        Status 200, 206 for a range, or 416 for one outside of the part.
    """
    headers = {**headers, "Accept-Ranges": "bytes"}
    asked = _asked_range(request, length, headers["ETag"])
    if asked is not None and not 0 <= asked.start < asked.stop:
        opened.close()
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{length}"})
    if asked is not None:
        headers["Content-Range"] = f"bytes {asked.start}-{asked.stop - 1}/{length}"
    sent = range(length) if asked is None else asked
    opened.seek(offset + sent.start)
    return StreamingResponse(
        _blocks(opened, len(sent)),
        status_code=200 if asked is None else 206,
        headers={**headers, "Content-Length": str(len(sent))},
        media_type=media_type,
    )


def _asked_range(request: Request, length: int, etag: str) -> range | None:
    """The bytes that a request names, empty where the part has none of them; None for all."""
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, length - int(last)), length) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(length, int(last) + 1) if last else length)


def _blocks(file: BinaryIO, length: int) -> Iterator[bytes]:
    """The next bytes of a file, which is closed at their end."""
    with file:
        while length and (block := file.read(min(_BLOCK, length))):
            length -= len(block)
            yield block
