"""The routes of photos: pictures and details by their id in the catalogue, never by path.

- `/thumb/{id}` is a small JPEG.
- `/photo/{id}` is the photo as browsers can show it, and with `?download=1` its file.
- `/details/{id}` is JSON: what is known of it.
- `/photos` is JSON: the next photos of those that a page shows, by the filters and the order of its address.
- `/hits` is JSON: the next hits of a search that a page shows, by the parameters of its address.
- `/upload` takes a picture that was pasted or dropped, as the body of a POST, and answers with its token.
- `/counts/{kind}` is JSON: how many photos that pass these filters are in each folder, of each camera, ….
- `/places` is JSON: how many were taken at each place, and how many pass the filter of places as well.
- `/land` is JSON: the outline of the earth's land, for a map.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import get_args
from urllib.parse import quote

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from vitmae_search.address import is_address
from vitmae_search.errors import LibraryEmpty, LibraryError, PhotoError, UnreachablePhoto, VitmaeSearchError
from vitmae_search.filter_values import read_box
from vitmae_search.library.previews import is_shown_by_browsers, media_type, open_file, preview, read_stored
from vitmae_search.records import Photo, PhotoKind
from vitmae_search.web.components.assets import asset
from vitmae_search.web.components.browse_batch import next_batch
from vitmae_search.web.components.filter_choices import choices, without
from vitmae_search.web.components.filter_parameters import read_filters, read_order
from vitmae_search.web.components.hit_batch import next_hits
from vitmae_search.web.components.listed_digests import listed_digest, names_content
from vitmae_search.web.components.photo_facts import file_size, photo_facts, tag_facts
from vitmae_search.web.components.photo_tile import photo_tiles
from vitmae_search.web.server.file_part import file_part
from vitmae_search.web.server.session import library, requested_library, uploads

Endpoint = Callable[[Request], Awaitable[Response]]

_CACHE_FOR_EVER = "private, max-age=31536000, immutable"
_REVALIDATE = "private, no-cache"
# Whatever type a file has, nothing in it runs or loads.
INERT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}

# A video is a document of the browser's own that loads the video again, which a sandbox would forbid.
_PLAYED = "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'"

_LONGEST_NAME = 255

_NO_PHOTO = "There is no such photo in this library."
_FOREIGN = "This address is of a photo in another library."
_NOT_ON_DISK = "This photo is not on disk any more. Index its folder again to bring the library up to date."
_NO_MOVING_PART = "This photo has no moving part."
_NOT_REACHED = "This photo's storage cannot be reached now, or has it no more."


def photo_routes(base_path: str = "") -> Iterator[Route]:
    """The routes of photos and thumbnails, below `base_path`."""
    yield Route(base_path + "/photo/{photo_id}", _endpoint(_photo), methods=["GET"])
    yield Route(base_path + "/thumb/{photo_id}", _endpoint(_thumb, _listed_thumb), methods=["GET"])
    yield Route(base_path + "/details/{photo_id}", _endpoint(_details), methods=["GET"])
    yield Route(base_path + "/upload", _upload, methods=["POST"])
    yield Route(base_path + "/photos", list_endpoint(_photos), methods=["GET"])
    yield Route(base_path + "/hits", list_endpoint(_hits), methods=["GET"])
    yield Route(base_path + "/counts/{kind}", list_endpoint(_counts), methods=["GET"])
    yield Route(base_path + "/places", list_endpoint(_places), methods=["GET"])
    yield Route(base_path + "/land", _land, methods=["GET"])


def _endpoint(
    answer: Callable[[Request, Photo], Response],
    at_once: Callable[[Request, int], Response | None] = lambda request, photo_id: None,
) -> Endpoint:
    """An endpoint that looks the photo up in a worker thread; an error becomes a status and a sentence.

    Args:
        answer: Answers with the photo.
        at_once: Answers with its id alone; None where it cannot.
    """

    def find_and_answer(request: Request) -> Response:
        try:
            with requested_library(request.query_params.get("library")):
                photo_id = _photo_id(request)
                if not _of_this_library(request):
                    return _sentence(_FOREIGN, 404)
                known = None if photo_id is None else at_once(request, photo_id)
                if known is not None:
                    return known
                photo = None if photo_id is None else library().photo(photo_id)
                return _sentence(_NO_PHOTO, 404) if photo is None else answer(request, photo)
        except LibraryEmpty:
            return _sentence(_NO_PHOTO, 404)
        except UnreachablePhoto as error:
            return _sentence(f"This photo cannot be shown now: {error.reason}.", 502)
        except PhotoError as error:
            return _sentence(f"This photo cannot be shown: {error.reason}.", 404)
        except VitmaeSearchError as error:
            return _sentence(str(error), 503)

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(find_and_answer, request)

    return endpoint


def list_endpoint(answer: Callable[[Request], object]) -> Endpoint:
    """An endpoint that answers in a worker thread, with JSON unless it makes a response of its own."""

    def find_and_answer(request: Request) -> Response:
        try:
            with requested_library(request.query_params.get("library")):
                if not _of_this_library(request):
                    return _sentence(_FOREIGN, 404)
                found = answer(request)
                return found if isinstance(found, Response) else json_response(found)
        except NotThere as error:
            return _sentence(str(error) or "There is no such list.", 404)
        except VitmaeSearchError as error:
            return _sentence(str(error), 503)

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(find_and_answer, request)

    return endpoint


class NotThere(Exception):
    """What the address names is not there. Its message, if it has one, says what, and what to do."""


async def _upload(request: Request) -> Response:
    """Keep the body as an upload, if it is no larger than Streamlit's own uploads may be."""
    limit = int(st.get_option("server.maxUploadSize")) * 2**20
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limit:
            return _sentence(f"The picture is larger than {limit // 2**20} MB.", 413)
    if not data:
        return _sentence("The picture is empty.", 400)
    name = request.query_params.get("name", "")[:_LONGEST_NAME]
    try:
        token = await run_in_threadpool(uploads.add, name or "picture", bytes(data))
    except VitmaeSearchError as error:
        return _sentence(str(error), 503)
    return json_response({"token": token})


def _photos(request: Request) -> object:
    parameters = dict(request.query_params)
    asked, order = read_filters(parameters), read_order(parameters) or "newest"
    after = number_of(parameters.pop("after_photo", ""))
    if after is None or asked.problem:
        raise NotThere
    photos, more = next_batch(asked.where, order, parameters, after)
    return {"photos": photo_tiles(photos), "more": more}


def _hits(request: Request) -> object:
    offset = number_of(request.query_params.get("offset", ""))
    lined = request.query_params.get("lined") == "1"
    found = None if offset is None else next_hits(dict(request.query_params), offset, lined=lined)
    if found is None:
        raise NotThere
    return {"photos": found[0], "more": found[1]}


def _counts(request: Request) -> object:
    kind = request.path_params["kind"]
    if kind not in get_args(PhotoKind):
        raise NotThere
    return choices(kind, dict(request.query_params))


def _places(request: Request) -> object:
    parameters = dict(request.query_params)
    asked = read_filters(parameters)
    try:
        view = read_box(parameters["view"]) if "view" in parameters else None
    except LibraryError:
        raise NotThere from None
    found = library().count_places(without("place", asked.where), view=view)
    return {
        "count": library().count_photos(asked.where),
        "places": [[place.latitude, place.longitude, place.photos] for place in found],
    }


async def _land(request: Request) -> Response:
    headers = {**INERT_HEADERS, "Cache-Control": _CACHE_FOR_EVER}
    return Response(asset("land.json"), media_type="application/json", headers=headers)


def _photo_id(request: Request) -> int | None:
    """The number in the address; None for anything else, and for more than SQLite's 63 bits."""
    return number_of(request.path_params["photo_id"])


def number_of(text: str) -> int | None:
    """The number that a text is; None for any other, and for one of more than SQLite's 63 bits."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _of_this_library(request: Request) -> bool:
    """Whether an address that names a library names this one."""
    named = request.query_params.get("library")
    return named is None or library().has_identity(named)


def _thumb(request: Request, photo: Photo) -> Response:
    """A small JPEG; status 304 where the browser has this content already."""
    answer = _answer_thumb(request, photo.digest, lambda: library().thumbnail(photo))
    if answer is None:
        return _sentence(*((_NOT_REACHED, 502) if is_address(photo.file) else (_NOT_ON_DISK, 404)))
    return answer


def _listed_thumb(request: Request, photo_id: int) -> Response | None:
    """As `_thumb`, of a photo that a page has listed and whose thumbnail is stored."""
    found = library()
    digest = listed_digest(found.folder, photo_id, request.query_params.get("v", ""))
    return None if digest is None else _answer_thumb(request, digest, lambda: found.thumbnails.get(digest))


def _answer_thumb(request: Request, digest: str, read: Callable[[], bytes | None]) -> Response | None:
    """The answer to a request for a thumbnail; None where there is nothing to read."""
    headers = _cache_headers(request, digest)
    if _unchanged(request, headers):
        return Response(status_code=304, headers=headers)
    data = read()
    return None if data is None else Response(data, media_type="image/jpeg", headers=headers)


def _photo(request: Request, photo: Photo) -> Response:
    """The file itself where browsers show it as it is decoded here, else a conversion of it.

    Of a video's frame that is the frame, but the video where it is to be downloaded or played.
    """
    if is_address(photo.file):
        return _stored_photo(request, photo)
    if not os.path.isfile(photo.file):
        return _sentence(_NOT_ON_DISK, 404)
    headers = _cache_headers(request, photo.digest)
    if "download" in request.query_params:
        name = os.fsencode(os.path.basename(photo.file)).decode("utf-8", "replace")
        return FileResponse(photo.file, media_type=media_type(photo), headers=headers, filename=name)
    if "video" in request.query_params:
        return _video(request, photo, {**headers, "Content-Security-Policy": _PLAYED})
    if _unchanged(request, headers):
        return Response(status_code=304, headers=headers)
    if is_shown_by_browsers(photo):
        return FileResponse(photo.path, media_type=media_type(photo), headers=headers)
    return Response(preview(photo.path), media_type="image/webp", headers=headers)


def _stored_photo(request: Request, photo: Photo) -> Response:
    """As `_photo`, of a photo on a storage: read here, so that browsers never talk to the storage."""
    headers = _cache_headers(request, photo.digest)
    download = "download" in request.query_params
    if "video" in request.query_params and not download:
        return _video(request, photo, {**headers, "Content-Security-Policy": _PLAYED})
    if download:
        name = quote(os.path.basename(photo.file), safe="")
        headers["Content-Disposition"] = f"attachment; filename*=utf-8''{name}"
        if photo.frame is not None:
            return _whole_file(request, photo, headers)
    if _unchanged(request, headers):
        return Response(status_code=304, headers=headers)
    data = read_stored(photo)
    if not download and not is_shown_by_browsers(photo, data):
        return Response(preview(data), media_type="image/webp", headers=headers)
    return Response(data, media_type=media_type(photo), headers=headers)


def _video(request: Request, photo: Photo, headers: dict[str, str]) -> Response:
    """The video of a frame, or the moving part of a photo."""
    if photo.frame is not None:
        return _whole_file(request, photo, headers)
    part = library().moving_part(photo.photo_id)
    if part is None:
        return _sentence(_NO_MOVING_PART, 404)
    # Browsers play QuickTime files whose codec they know, but not under their own media type.
    headers = {**headers, "ETag": f'"{photo.digest[:32]}-moving"', "Cache-Control": _REVALIDATE}
    try:
        opened = open_file(part.file)
    except OSError:
        return _sentence(_NOT_ON_DISK, 404)
    return file_part(request, opened, part.offset, part.length, media_type="video/mp4", headers=headers)


def _whole_file(request: Request, photo: Photo, headers: dict[str, str]) -> Response:
    """The file of a frame: its video, of which browsers ask for ranges."""
    if not is_address(photo.file):
        return FileResponse(photo.file, media_type=media_type(photo), headers=headers)
    opened = open_file(photo.file)
    size = opened.seek(0, os.SEEK_END)
    return file_part(request, opened, 0, size, media_type=media_type(photo), headers=headers)


def _details(_request: Request, photo: Photo) -> Response:
    """The photo's path, and its facts as [name, value]; never cached, since photos move."""
    facts = photo_facts(photo) + tag_facts(library().tags(photo.photo_id))
    meta = photo.metadata
    place = None if meta.latitude is None or meta.longitude is None else [meta.latitude, meta.longitude]
    part = library().moving_part(photo.photo_id)
    if part is not None:
        facts.append(("Live", f"with a video of {file_size(part.length)}"))
    return json_response({"path": photo.path, "facts": facts, "place": place, "live": part is not None})


def json_response(value: object) -> Response:
    """An answer of JSON, never cached."""
    body = json.dumps(value)  # ASCII: names may hold bytes that are no UTF-8
    headers = {**INERT_HEADERS, "Cache-Control": "no-store"}
    return Response(body, media_type="application/json", headers=headers)


def _cache_headers(request: Request, digest: str) -> dict[str, str]:
    """An address that names the content's digest may be cached for ever; another one is revalidated."""
    lasting = names_content(digest, request.query_params.get("v", ""))
    return {
        **INERT_HEADERS,
        "ETag": f'"{digest[:32]}"',
        "Cache-Control": _CACHE_FOR_EVER if lasting else _REVALIDATE,
    }


def _unchanged(request: Request, headers: dict[str, str]) -> bool:
    known = request.headers.get("if-none-match", "")
    return headers["ETag"] in (tag.strip().removeprefix("W/") for tag in known.split(","))


def _sentence(message: str, status: int) -> Response:
    return PlainTextResponse(
        message, status_code=status, headers={**INERT_HEADERS, "Cache-Control": "no-store"}
    )
