"""The OpenAPI document of the HTTP API, `/api/v1/openapi.json`: made of the same table as its routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import vitmae_search
from vitmae_search.web.server.api import OPERATIONS, PNG, PREFIX, Operation, Parameter, json_response

Schema = dict[str, Any]


_LATITUDE = r"-?(90|[1-8]?[0-9](\.[0-9]{1,6})?)"
_LONGITUDE = r"-?(180|(1[0-7][0-9]|[1-9]?[0-9])(\.[0-9]{1,6})?)"
_BELOW_1 = r"0(\.[0-9]{1,6})?"
_ABOVE_0 = r"(0\.[0-9]{0,5}[1-9]|1)"
_KM = r"[1-9][0-9]{0,3}(\.[0-9]{1,6})?"


def openapi_route(base_path: str = "") -> Route:
    """The route of the document, below `base_path`."""

    async def endpoint(request: Request) -> Response:
        return json_response(document(base_path))

    return Route(f"{base_path}{PREFIX}/openapi.json", endpoint, methods=["GET"])


def document(base_path: str = "") -> Schema:
    """The document, of OpenAPI 3.1."""
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vitmae-search",
            "version": vitmae_search.__version__,
            "description": "Search a photo folder by how its photos look. The API changes nothing.",
        },
        "servers": [{"url": base_path + PREFIX}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The app's password or token, where it was started with one.",
                }
            },
        },
    }


def _operation(operation: Operation) -> Schema:
    described: Schema = {
        "operationId": operation.name,
        "summary": operation.text,
        "parameters": [_parameter(one, operation.path) for one in operation.all_parameters],
        "responses": {
            "200": _picture()
            if operation.schema == PNG
            else _response("What was asked for.", operation.schema),
            "400": _response("A parameter is wrong.", "Error"),
            "404": _response(
                "No such photo, space or library, no words in it, or nothing is indexed yet.", "Error"
            ),
            "503": _response("The library, model or device cannot be used now.", "Error"),
        },
    }
    if operation.method == "POST":
        binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
        described["requestBody"] = {
            "required": True,
            "description": "A picture's file, as it is.",
            "content": {"application/octet-stream": binary, "image/*": binary},
        }
        described["responses"]["413"] = _response("The picture is too large.", "Error")
    if operation.reads_picture:
        described["responses"]["422"] = _response("The picture cannot be read.", "Error")
    return described


def _picture() -> Schema:
    content = {"image/png": {"schema": {"type": "string", "contentMediaType": "image/png"}}}
    return {"description": "The picture.", "content": content}


def _response(text: str, schema: str) -> Schema:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": text, "content": content}


def _parameter(one: Parameter, path: str) -> Schema:
    in_path = f"{{{one.name}}}" in path
    schema = _parameter_schema(one)
    if one.default not in (None, ()):
        schema["default"] = one.default
    described = {
        "name": one.name,
        "in": "path" if in_path else "query",
        "description": one.text,
        "required": in_path or one.required,
        "schema": schema,
    }
    return {**described, "style": "form", "explode": False} if one.kind == "ids" else described


def _parameter_schema(one: Parameter) -> Schema:
    schemas: Mapping[str, Schema] = {
        "integer": {"type": "integer", "minimum": one.least, "maximum": one.most},
        "number": {"type": "number", "minimum": one.least, "maximum": one.most},
        "boolean": {"type": "boolean"},
        "choice": {"enum": list(one.choices)},
        "string": {"type": "string", "minLength": 1, "maxLength": one.most, "pattern": r"^[^\x00]+$"},
        "box": {"type": "string", "pattern": f"^{','.join([_LATITUDE, _LONGITUDE] * 2)}$"},
        "circle": {"type": "string", "pattern": f"^{_LATITUDE},{_LONGITUDE},{_KM}$"},
        "part": {"type": "string", "pattern": f"^{_BELOW_1},{_BELOW_1},{_ABOVE_0},{_ABOVE_0}$"},
        "date-time": {"type": "string", "format": "date-time"},
        "ids": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
            "minItems": one.least,
            "maxItems": one.most,
        },
        "score": {"anyOf": [{"type": "number", "minimum": -1, "maximum": 1}, {"enum": ["same", "alike"]}]},
    }
    return dict(schemas[one.kind])


def _object(*, optional: Mapping[str, Schema] | None = None, **properties: Schema) -> Schema:
    """An object that has all of these properties, perhaps the optional ones, and no others."""
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(kind: str) -> Schema:
    return {"type": [kind, "null"]}


_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_TRUE_FALSE: Schema = {"type": "boolean"}
_CALIBRATION: Schema = {
    "anyOf": [
        {"type": "null"},
        _object(same=_or_null("number"), alike=_or_null("number"), photos=_WHOLE),
    ]
}
_FRAME: Mapping[str, Schema] = {
    "video": {**_or_null("string"), "description": "Of a frame of a video: the video's path."},
    "seconds": {**_or_null("number"), "description": "Of a frame of a video: its time."},
}
_HIT: Mapping[str, Schema] = {
    "score": {"type": "number", "minimum": -1.001, "maximum": 1.001},
    "photo_id": _WHOLE,
    "path": _TEXT,
    **_FRAME,
    "copies": _list(_TEXT),
}
_PHOTO: Mapping[str, Schema] = {
    "photo_id": _WHOLE,
    "path": _TEXT,
    **_FRAME,
    "missing": _TRUE_FALSE,
    "digest": _TEXT,
    "bytes": _WHOLE,
    "width": _WHOLE,
    "height": _WHOLE,
    "format": _TEXT,
    "date": _or_null("string"),
    "date_from": _TEXT,
    "camera": _or_null("string"),
    "lens": _or_null("string"),
    "latitude": _or_null("number"),
    "longitude": _or_null("number"),
    "favourite": _TRUE_FALSE,
    "rating": {"type": "integer", "minimum": 0, "maximum": 5},
    "albums": _list(_TEXT),
    "thumbnail": {"type": "string", "description": "The address of a small JPEG, from the app's first page."},
    "file": {"type": "string", "description": "The address of the photo, from the app's first page."},
}
_RESULT: Mapping[str, Schema] = {
    "space": _WHOLE,
    "model": _TEXT,
    "known": _TRUE_FALSE,
    "variant": _object(trimmed=_TRUE_FALSE, turned=_WHOLE),
    "calibration": _CALIBRATION,
    "coverage": {"anyOf": [{"type": "null"}, _object(searched=_WHOLE, photos=_WHOLE, command=_TEXT)]},
    "examples": _WHOLE,
    "words": _WHOLE,
    "seconds": _NUMBER,
}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_BOX = _object(left=_SHARE, top=_SHARE, width=_SHARE, height=_SHARE)

SCHEMAS: dict[str, Schema] = {
    "Error": _object(error={"type": "string", "description": "A sentence for people."}),
    "Libraries": _object(
        libraries=_list(_object(name=_TEXT, folder=_TEXT, identity=_or_null("string"))),
    ),
    "Reconstruction": _object(
        loss=_or_null("number"),
        level_error=_or_null("number"),
        mask_ratio=_NUMBER,
        statistics=_TEXT,
        mask=_list(_list(_TRUE_FALSE)),
        error=_list(_list(_NUMBER)),
    ),
    "Status": _object(
        library=_TEXT,
        photos=_WHOLE,
        contents=_WHOLE,
        missing=_WHOLE,
        failed=_WHOLE,
        folders=_list(_object(path=_TEXT, offline=_TRUE_FALSE, photos=_WHOLE)),
    ),
    "Spaces": _object(
        spaces=_list(
            _object(
                space_id=_WHOLE,
                current=_TRUE_FALSE,
                plugin=_TEXT,
                model=_TEXT,
                kind=_TEXT,
                dimension=_WHOLE,
                vectors=_WHOLE,
                words=_TRUE_FALSE,
                calibration=_CALIBRATION,
                index=_object(
                    photos=_WHOLE,
                    vectors=_WHOLE,
                    indexed=_or_null("integer"),
                    to_add=_or_null("integer"),
                    to_remove=_or_null("integer"),
                    since=_or_null("string"),
                    advice=_or_null("string"),
                ),
            )
        )
    ),
    "Jobs": _object(
        jobs=_list(
            _object(
                key=_TEXT,
                kind=_TEXT,
                state=_TEXT,
                host=_TEXT,
                heartbeat_at=_TEXT,
                cancel_requested_at=_or_null("string"),
                started_at=_TEXT,
                ended_at=_or_null("string"),
                progress={"type": "object"},
                error=_or_null("string"),
            )
        )
    ),
    "Photo": _object(**_PHOTO),
    "PhotoDetails": _object(**_PHOTO, tags=_list(_object(name=_TEXT, confidence=_NUMBER, classifier=_TEXT))),
    "Photos": _object(total=_WHOLE, photos=_list({"$ref": "#/components/schemas/Photo"})),
    "StackedHit": _object(**_HIT, stacked=_list({"$ref": "#/components/schemas/StackedHit"})),
    "Hit": _object(rank=_WHOLE, **_HIT, stacked=_list({"$ref": "#/components/schemas/StackedHit"})),
    "Hits": _object(hits=_list({"$ref": "#/components/schemas/Hit"}), **_RESULT),
    "Box": _BOX,
    "RegionHit": _object(
        rank=_WHOLE,
        **{**_HIT, "score": _NUMBER},
        stacked=_list({"$ref": "#/components/schemas/StackedHit"}),
        optional={"box": {"$ref": "#/components/schemas/Box"}},
    ),
    "RegionHits": _object(
        hits=_list({"$ref": "#/components/schemas/RegionHit"}),
        **_RESULT,
        region=_object(box={"$ref": "#/components/schemas/Box"}, compared=_WHOLE, by_patches=_TRUE_FALSE),
    ),
}
