"""The HTTP API, `/api/v1/...`: what the library holds, and searches, as JSON. It changes nothing.

`openapi.json` describes it. Both come from the same table of parameters, so that they cannot disagree.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vitmae_search.errors import (
    ConfigError,
    LibraryEmpty,
    LibraryError,
    NoText,
    PhotoError,
    SpaceError,
    VitmaeSearchError,
)
from vitmae_search.filter_values import read_box, read_circle
from vitmae_search.library.json_forms import index_lag_json, photo_json, reconstruction_json, result_json
from vitmae_search.library.previews import sheet_png
from vitmae_search.library.region_search import read_box as read_part
from vitmae_search.records import (
    LONGEST_TEXT,
    Box,
    Marks,
    Orientation,
    Photo,
    Reconstruction,
    SearchFilter,
    Words,
)
from vitmae_search.settings import settings
from vitmae_search.web.server.session import (
    folder_named,
    library,
    library_names,
    open_library,
    requested_folder,
)

PREFIX = "/api/v1"
UPLOAD_BYTES = 64 * 2**20
"""The largest picture that may be sent."""
MOST_SELECTED = 500
"""How many photos an address may select: with the longest ids they still fit into a server's longest line."""
MOST_COMPARED = 200
"""How many photos are looked through for a part, so the most hits there are."""

Kind = Literal[
    "integer", "number", "boolean", "string", "date-time", "ids", "score", "choice", "box", "circle", "part"
]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an address, as it is read and as it is described.

    Attributes:
        name: Its name.
        kind: What its text is; "ids" are numbers of photos with commas between them, "score" is a number or
            "same" or "alike".
        text: What it means.
        default: Its value where it is not given.
        least: Its least value.
        most: Its greatest value; of a text its greatest length.
        choices: The values of a choice.
        required: Whether it must be given.
    """

    name: str
    kind: Kind
    text: str
    default: Any = None
    least: float = 0
    most: float = 2**63 - 1
    choices: tuple[str, ...] = ()
    required: bool = False


_ID = Parameter("photo_id", "integer", "The photo's number.", least=1)
_SPACE = Parameter(
    "space", "integer", "The space that is searched; the current one if it is left out.", least=1
)
_FILTERS = (
    Parameter("under", "string", "A folder that they lie in.", most=4096),
    Parameter("after", "date-time", "Taken then or later."),
    Parameter("before", "date-time", "Taken then or earlier."),
    Parameter("camera", "string", "Part of the camera's name.", most=200),
    Parameter("tag", "string", "A whole tag.", most=200),
    Parameter("min_confidence", "number", "The least confidence of the tag.", 0.0, most=1),
    Parameter("format", "string", "The format of the file, such as JPEG.", most=20),
    Parameter("orientation", "choice", "Which side is the longer one.", choices=get_args(Orientation)),
    Parameter("favourite", "boolean", "Favourites only.", False),
    Parameter("min_rating", "integer", "The least rating.", 0, most=5),
    Parameter("album", "string", "An album that they are in.", most=200),
    Parameter("lens", "string", "Part of the lens's name.", most=200),
    Parameter("box", "box", "Taken between these latitudes and longitudes: `south,west,north,east`."),
    Parameter("near", "circle", "Taken in this circle: `latitude,longitude,km`."),
    Parameter("has_place", "boolean", "Whether it is known where they were taken."),
    Parameter("min_bytes", "integer", "The least size of the file."),
    Parameter("max_bytes", "integer", "The greatest size of the file."),
    Parameter(
        "photo_ids",
        "ids",
        f"Only these photos, {MOST_SELECTED} at most: their numbers, with commas between them.",
        least=1,
        most=MOST_SELECTED,
    ),
)
_OFFSET = Parameter("offset", "integer", "How many are passed over.", 0)
_HITS = (
    Parameter("k", "integer", "How many hits.", 10, least=1, most=1000),
    _OFFSET,
    _SPACE,
    Parameter("min_score", "score", "The least score of a hit: a number, `same` or `alike`."),
    Parameter("stacks", "boolean", "Return near-identical photos as one hit.", True),
    *_FILTERS,
)
_REGION = (
    Parameter(
        "part",
        "part",
        "The part of the picture: `left,top,width,height`, as shares of its sides, 0 to 1.",
        required=True,
    ),
    Parameter("k", "integer", "How many hits.", 10, least=1, most=MOST_COMPARED),
    _OFFSET,
    _SPACE,
    *_FILTERS,
)


_LIBRARY = Parameter(
    "library",
    "string",
    "Which of several libraries: its name or identity, as `/libraries` lists them; else the first one.",
    most=4096,
)
_RECONSTRUCTION = (
    Parameter("mask_ratio", "number", "The share of patches that are hidden.", 0.75, most=0.9),
    Parameter("seed", "integer", "Which ones are hidden; equal seeds hide the same.", 0, most=2**31 - 1),
)
_SOFTEN = Parameter("soften", "boolean", "Smooth the steps between neighbouring guesses.", True)


class _Refused(Exception):
    """A request that cannot be answered, with its status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


Answer = Callable[[Mapping[str, Any], bytes], object]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that may be asked.

    Attributes:
        method: GET or POST.
        path: Below `PREFIX`.
        name: Its `operationId`.
        text: What it answers.
        answer: Called in a thread with the values of the parameters, and with the body.
        schema: The name of the answer's schema.
        parameters: Its parameters; one whose name is in the path comes from there. All but `libraries` have
            `library` besides.
        reads_picture: Whether it reads a picture, which may fail.
    """

    method: str
    path: str
    name: str
    text: str
    answer: Answer
    schema: str
    parameters: tuple[Parameter, ...] = ()
    reads_picture: bool = False

    @property
    def all_parameters(self) -> tuple[Parameter, ...]:
        """Its parameters, and the one that names the library."""
        return self.parameters if self.path == "/libraries" else (*self.parameters, _LIBRARY)


def _libraries(values: Mapping[str, Any], body: bytes) -> object:
    return {
        "libraries": [
            {"name": name, "folder": os.fspath(folder), "identity": open_library(folder).identity}
            for folder, name in library_names().items()
        ]
    }


def _status(values: Mapping[str, Any], body: bytes) -> object:
    found = library().status()
    return {
        "library": found.library,
        "photos": found.photos,
        "contents": found.contents,
        "missing": found.missing,
        "failed": found.failed,
        "folders": [
            {"path": root.path, "offline": root.offline, "photos": root.photos} for root in found.roots
        ],
    }


def _spaces(values: Mapping[str, Any], body: bytes) -> object:
    return {
        "spaces": [
            {
                "space_id": space.space_id,
                "current": space.current,
                "plugin": space.plugin,
                "model": space.model,
                "kind": space.kind,
                "dimension": space.dimension,
                "vectors": space.vectors,
                "words": space.knows_words,
                "calibration": None if space.calibration is None else asdict(space.calibration),
                "index": index_lag_json(library().index_lag(space.space_id)),
            }
            for space in library().spaces()
        ]
    }


def _jobs(values: Mapping[str, Any], body: bytes) -> object:
    return {
        "jobs": [
            {
                "key": job.key,
                "kind": job.kind,
                "state": job.state,
                "host": job.host,
                "heartbeat_at": job.heartbeat_at.isoformat(),
                "cancel_requested_at": job.cancel_requested_at and job.cancel_requested_at.isoformat(),
                "started_at": job.started_at.isoformat(),
                "ended_at": None if job.ended_at is None else job.ended_at.isoformat(),
                "progress": dict(job.progress),
                "error": job.error,
            }
            for job in library().jobs()
        ]
    }


def _photos(values: Mapping[str, Any], body: bytes) -> object:
    where = _where(values)
    photos = library().photos(where, offset=values["offset"], limit=values["limit"])
    marks = library().marks_of(photo.digest for photo in photos)
    return {
        "total": library().count_photos(where),
        "photos": [_photo_json(photo, marks[photo.digest]) for photo in photos],
    }


def _photo(values: Mapping[str, Any], body: bytes) -> object:
    photo = _known_photo(values["photo_id"])
    tags = [asdict(tag) for tag in library().tags(photo.photo_id)]
    return {**_photo_json(photo, library().marks(photo.photo_id)), "tags": tags}


def _similar(values: Mapping[str, Any], body: bytes) -> object:
    _known_photo(values["photo_id"])
    return result_json(library().similar(values["photo_id"], **_asked(values)))


def _similar_region(values: Mapping[str, Any], body: bytes) -> object:
    return _searched_region(_known_photo(values["photo_id"]).photo_id, values)


def _search_examples(values: Mapping[str, Any], body: bytes) -> object:
    for photo_id in (*values["more"], *values["less"]):
        _known_photo(photo_id)
    words = [Words(values["words"])] if "words" in values else []
    return result_json(library().search_examples([*values["more"], *words], values["less"], **_asked(values)))


def _search(values: Mapping[str, Any], body: bytes) -> object:
    return result_json(library().search(_sent(body), **_asked(values)))


def _search_region(values: Mapping[str, Any], body: bytes) -> object:
    return _searched_region(_sent(body), values)


def _searched_region(picture: int | bytes, values: Mapping[str, Any]) -> object:
    asked = {name: values[name] for name in ("k", "offset", "space")}
    found = library().search_region(
        picture, values["part"], **asked, where=_where(values), among=MOST_COMPARED
    )
    return result_json(found)


def _sent(body: bytes) -> bytes:
    if not body:
        raise _Refused(400, "send a picture's file as the body")
    return body


def _reconstruct_photo(values: Mapping[str, Any], body: bytes) -> Reconstruction:
    return _reconstructed(_known_photo(values["photo_id"]).photo_id, values)


def _reconstruct_upload(values: Mapping[str, Any], body: bytes) -> Reconstruction:
    return _reconstructed(_sent(body), values)


def _reconstructed(picture: int | bytes, values: Mapping[str, Any]) -> Reconstruction:
    return library().reconstruct(picture, mask_ratio=values["mask_ratio"], seed=values["seed"])


def _as_json(made: Callable[[Mapping[str, Any], bytes], Reconstruction]) -> Answer:
    return lambda values, body: reconstruction_json(made(values, body))


def _as_png(made: Callable[[Mapping[str, Any], bytes], Reconstruction]) -> Answer:
    return lambda values, body: sheet_png(made(values, body), soften=values["soften"])


PNG = "PNG"
"""The schema of an answer that is a picture."""
_PNG_TEXT = "as one picture: the completed photo, what was hidden, each guess, and its error"

_IDS_TEXT = "Numbers of photos, with commas between them"
_MORE_TEXT = f"{_IDS_TEXT}, that hits should be like."
_REGION_TEXT = (
    "and where: `box` of a hit. Its score says how much better patches agree than in other photos; it is no "
    "cosine. Where the model does not look at patches (`by_patches`), the part is compared with whole photos."
)
_LESS_TEXT = f"{_IDS_TEXT}, that they should be less like."
OPERATIONS = (
    Operation("GET", "/libraries", "libraries", "The libraries of this app.", _libraries, "Libraries"),
    Operation("GET", "/status", "status", "What the library holds.", _status, "Status"),
    Operation("GET", "/spaces", "spaces", "The embedding spaces.", _spaces, "Spaces"),
    Operation("GET", "/jobs", "jobs", "The latest long jobs, newest first.", _jobs, "Jobs"),
    Operation(
        "GET",
        "/photos",
        "photos",
        "Photos on disk, newest first.",
        _photos,
        "Photos",
        (_OFFSET, Parameter("limit", "integer", "How many.", 100, least=1, most=1000), *_FILTERS),
    ),
    Operation("GET", "/photos/{photo_id}", "photo", "One photo.", _photo, "PhotoDetails", (_ID,)),
    Operation(
        "GET",
        "/photos/{photo_id}/similar",
        "similar",
        "Photos that look most like one of the library's, which is left out.",
        _similar,
        "Hits",
        (_ID, *_HITS),
    ),
    Operation(
        "GET",
        "/photos/{photo_id}/similar/region",
        "similar_region",
        f"Photos that have something like a part of one of the library's, {_REGION_TEXT}",
        _similar_region,
        "RegionHits",
        (_ID, *_REGION),
        reads_picture=True,
    ),
    Operation(
        "GET",
        "/search",
        "search_examples",
        "Photos that look most like several of the library's, and less like others.",
        _search_examples,
        "Hits",
        (
            Parameter("more", "ids", _MORE_TEXT, (), least=1, most=100, required=True),
            Parameter("less", "ids", _LESS_TEXT, (), most=100),
            *_HITS,
        ),
    ),
    Operation(
        "GET",
        "/search/words",
        "search_words",
        "Photos that words describe, where the space's model knows words.",
        _search_examples,
        "Hits",
        (
            Parameter("words", "string", "What is on the photos.", most=LONGEST_TEXT, required=True),
            Parameter("more", "ids", _MORE_TEXT, (), most=100),
            Parameter("less", "ids", _LESS_TEXT, (), most=100),
            *_HITS,
        ),
    ),
    Operation(
        "POST",
        "/search",
        "search",
        "Photos that look most like the picture in the body.",
        _search,
        "Hits",
        _HITS,
        reads_picture=True,
    ),
    Operation(
        "POST",
        "/search/region",
        "search_region",
        f"Photos that have something like a part of the picture in the body, {_REGION_TEXT}",
        _search_region,
        "RegionHits",
        _REGION,
        reads_picture=True,
    ),
    Operation(
        "GET",
        "/photos/{photo_id}/reconstruction",
        "reconstruction",
        "What the model makes of a photo with hidden patches: the loss, and the error of each patch.",
        _as_json(_reconstruct_photo),
        "Reconstruction",
        (_ID, *_RECONSTRUCTION),
        reads_picture=True,
    ),
    Operation(
        "GET",
        "/photos/{photo_id}/reconstruction.png",
        "reconstruction_png",
        f"The reconstruction of a photo {_PNG_TEXT}.",
        _as_png(_reconstruct_photo),
        PNG,
        (_ID, *_RECONSTRUCTION, _SOFTEN),
        reads_picture=True,
    ),
    Operation(
        "POST",
        "/reconstruction",
        "reconstruct",
        "What the model makes of the picture in the body with hidden patches.",
        _as_json(_reconstruct_upload),
        "Reconstruction",
        _RECONSTRUCTION,
        reads_picture=True,
    ),
    Operation(
        "POST",
        "/reconstruction.png",
        "reconstruct_png",
        f"The reconstruction of the picture in the body {_PNG_TEXT}.",
        _as_png(_reconstruct_upload),
        PNG,
        (*_RECONSTRUCTION, _SOFTEN),
        reads_picture=True,
    ),
)


def api_routes(base_path: str = "") -> Iterator[Route]:
    """The routes of the API, below `base_path`."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    for path, operations in by_path.items():
        yield Route(base_path + PREFIX + path, _endpoint(operations), methods=list(operations))


def _endpoint(operations: Mapping[str, Operation]) -> Callable[[Request], Any]:
    """The endpoint of all methods of one path."""

    async def endpoint(request: Request) -> Response:
        operation = operations.get(request.method) or operations["GET"]  # HEAD asks as GET does
        try:
            values = _values(operation, request)
            body = await _body(request) if operation.method == "POST" else b""
            answer = await run_in_threadpool(_answer, operation, values, body)
            return png_response(answer) if isinstance(answer, bytes) else json_response(answer)
        except _Refused as refused:
            return json_response({"error": str(refused)}, refused.status)
        except VitmaeSearchError as error:
            return json_response({"error": str(error)}, _status_of(error))

    return endpoint


def _answer(operation: Operation, values: dict[str, Any], body: bytes) -> object:
    """The answer, of the library that is asked for."""
    name = values.pop("library", None)
    folder = None if name is None else folder_named(name)
    if name is not None and folder is None:
        raise _Refused(404, f"there is no library {name!r}; `/libraries` lists them")
    with requested_folder(folder):
        return operation.answer(values, body)


def _status_of(error: VitmaeSearchError) -> int:
    if isinstance(error, PhotoError):
        return 422
    if isinstance(error, ConfigError):
        return 400
    if isinstance(error, SpaceError | LibraryEmpty | NoText):
        return 404
    return 400 if type(error) is LibraryError else 503


def _values(operation: Operation, request: Request) -> dict[str, Any]:
    known = {one.name for one in operation.all_parameters}
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        raise _Refused(400, f"there is no parameter {unknown[0]!r}")
    values = {}
    for one in operation.all_parameters:
        texts = request.query_params.getlist(one.name)
        if one.name in request.path_params:
            texts = [request.path_params[one.name]]
        if len(texts) > 1:
            raise _Refused(400, f"{one.name!r} is given more than once")
        values[one.name] = _read(one, texts[0]) if texts else one.default
        if one.required and not texts:
            raise _Refused(400, f"{one.name!r} is missing")
    return values


def _read(one: Parameter, text: str) -> Any:
    readers: dict[Kind, Callable[[Parameter, str], Any]] = {
        "integer": _integer,
        "number": _number,
        "boolean": lambda _, text: {"true": True, "false": False}[text],
        "string": _string,
        "choice": lambda one, text: one.choices[one.choices.index(text)],
        "date-time": lambda _, text: datetime.fromisoformat(text).replace(tzinfo=None),
        "ids": _ids,
        "box": lambda _, text: read_box(text),
        "circle": lambda _, text: read_circle(text),
        "part": _part,
        "score": lambda one, text: text if text in ("same", "alike") else _number(one, text, -1, 1),
    }
    try:
        return readers[one.kind](one, text)
    except LibraryError as error:
        raise _Refused(400, f"{one.name!r}: {error}") from None
    except (ValueError, KeyError, OverflowError):
        status = 404 if one is _ID else 400
        raise _Refused(status, f"{one.name!r} is {_expected(one)}") from None


def _integer(one: Parameter, text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text) or not one.least <= int(text) <= one.most:
        raise ValueError
    return int(text)


def _number(one: Parameter, text: str, least: float | None = None, most: float | None = None) -> float:
    least, most = one.least if least is None else least, one.most if most is None else most
    if not re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", text):
        raise ValueError
    if not (math.isfinite(float(text)) and least <= float(text) <= most):
        raise ValueError
    return float(text)


def _string(one: Parameter, text: str) -> str:
    if not 0 < len(text) <= one.most or "\0" in text:
        raise ValueError
    text.encode("utf-8")
    return text


def _ids(one: Parameter, text: str) -> list[int]:
    found = [_integer(_ID, item) for item in text.split(",")] if text else []
    if not one.least <= len(found) <= one.most:
        raise ValueError
    return found


def _part(one: Parameter, text: str) -> Box:
    numbers = [_number(one, share, 0, 1) for share in text.split(",")]
    return read_part(numbers, (1, 1))


def _expected(one: Parameter) -> str:
    bounds = f"{one.least} or more" if one.most == 2**63 - 1 else f"{one.least} to {one.most}"
    return {
        "integer": f"a whole number, {bounds}",
        "number": f"a number, {bounds}",
        "boolean": "true or false",
        "choice": f"one of {', '.join(one.choices)}",
        "string": f"a text of 1 to {one.most} characters",
        "date-time": "a date, 2023-05-01 or 2023-05-01T12:00:00",
        "ids": f"numbers of photos with commas between them, at most {one.most}",
        "score": "a number from -1 to 1, same or alike",
        "box": "south,west,north,east in degrees",
        "circle": "latitude,longitude,km",
        "part": "left,top,width,height, each from 0 to 1",
    }[one.kind]


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > UPLOAD_BYTES:
            raise _Refused(413, f"a picture may have {UPLOAD_BYTES // 2**20} MiB at most")
    return bytes(body)


def _where(values: Mapping[str, Any]) -> SearchFilter:
    given = {one.name: values[one.name] for one in _FILTERS}
    selected = given.pop("photo_ids")
    return SearchFilter(**given, photo_ids=None if selected is None else frozenset(selected))


def _asked(values: Mapping[str, Any]) -> dict[str, Any]:
    names = ("k", "offset", "space", "min_score", "stacks")
    return {**{name: values[name] for name in names}, "where": _where(values)}


def _known_photo(photo_id: int) -> Photo:
    photo = library().photo(photo_id)
    if photo is None:
        raise _Refused(404, f"the library has no photo with id {photo_id}")
    return photo


def library_in_addresses() -> str:
    """What an address of a picture ends with where there are several libraries."""
    identity = library().identity if len(settings().libraries) > 1 else None
    return "" if identity is None else f"?library={identity}"


def _photo_json(photo: Photo, marks: Marks) -> dict[str, object]:
    named = library_in_addresses()
    return {
        **photo_json(photo, marks),
        "missing": photo.missing,
        "thumbnail": f"thumb/{photo.photo_id}{named}",
        "file": f"photo/{photo.photo_id}{named}",
    }


def json_response(value: object, status: int = 200) -> Response:
    """JSON in ASCII: bytes of a path that are not UTF-8 become escaped surrogates.

    Args:
        value: What is sent.
        status: The status.
    """
    headers = {"Cache-Control": "no-store"}
    return Response(json.dumps(value), status, headers, media_type="application/json")


def png_response(data: bytes) -> Response:
    """A picture."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(data, 200, headers, media_type="image/png")
