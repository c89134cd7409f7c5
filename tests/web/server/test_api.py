"""The HTTP API: what it answers, that it is what its OpenAPI document says, and hostile values."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from vitmae_search.library import Library
from vitmae_search.records import SearchFilter
from vitmae_search.web.server import api
from vitmae_search.web.server.access_guard import AccessGuard
from vitmae_search.web.server.api import PREFIX, api_routes
from vitmae_search.web.server.openapi import document, openapi_route
from vitmae_search.web.server.routes import photo_routes

DOCUMENT = document()
OPERATIONS = [
    (path, method, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]


@pytest.fixture
def client(opened: Library) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=[*api_routes(), openapi_route()])) as client:
        yield client


def check(answer: Any, operation: dict[str, Any]) -> Any:
    """The answer's JSON, or PNG, which is what the document says for its status."""
    content = operation["responses"][str(answer.status_code)]["content"]
    if "image/png" in content:
        assert answer.headers["content-type"] == "image/png"
        return answer.content
    assert answer.headers["content-type"] == "application/json"
    described = content["application/json"]["schema"]
    value = json.loads(answer.content)
    jsonschema.Draft202012Validator({**described, "components": DOCUMENT["components"]}).validate(value)
    return value


def ask(client: TestClient, name: str, status: int = 200, body: bytes | None = None, **values: Any) -> Any:
    path, method, operation = next(one for one in OPERATIONS if one[2]["operationId"] == name)
    address = PREFIX + path.format(**values)
    rest = {key: value for key, value in values.items() if f"{{{key}}}" not in path}
    answer = client.request(method, address, params=rest, content=body)
    assert answer.status_code == status, answer.text
    return check(answer, operation)


def test_the_document_is_served(client: TestClient) -> None:
    answer = client.get(f"{PREFIX}/openapi.json")
    assert answer.json() == json.loads(json.dumps(DOCUMENT))
    assert answer.json()["openapi"].startswith("3.1")


def test_schemas_are_schemas_and_all_are_used() -> None:
    text = json.dumps(DOCUMENT)
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert f'"#/components/schemas/{name}"' in text
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in DOCUMENT["components"]["schemas"]
    for _, _, operation in OPERATIONS:
        for parameter in operation["parameters"]:
            jsonschema.Draft202012Validator.check_schema(parameter["schema"])


def test_status_spaces_and_jobs(client: TestClient, opened: Library, small: Any) -> None:
    assert ask(client, "status")["photos"] == opened.count_photos()
    assert [space["plugin"] for space in ask(client, "spaces")["spaces"]] == ["color_layout"]
    assert [job["kind"] for job in ask(client, "jobs")["jobs"]] == ["index"]


def test_photos_in_pages_and_filtered(client: TestClient, opened: Library, small: Any) -> None:
    ids = [photo.photo_id for photo in opened.photos()]
    first, second = ask(client, "photos", limit=5), ask(client, "photos", limit=100, offset=5)
    assert [photo["photo_id"] for photo in first["photos"] + second["photos"]] == ids
    assert first["total"] == len(ids)
    assert ask(client, "photos", under=str(small.photos))["total"] == len(ids)
    assert ask(client, "photos", under="/elsewhere")["total"] == 0
    assert ask(client, "photos", favourite="true", min_rating=1, after="2100-01-01")["total"] == 0


def test_every_filter_of_the_library_is_one_of_the_api() -> None:
    names = {field.name for field in fields(SearchFilter)}
    listed = next(operation for _, _, operation in OPERATIONS if operation["operationId"] == "photos")
    assert names <= {parameter["name"] for parameter in listed["parameters"]}


def test_photos_that_are_selected(client: TestClient, opened: Library) -> None:
    first, second, *_ = (photo.photo_id for photo in opened.photos())
    chosen = f"{first},{second}"
    found = ask(client, "photos", photo_ids=chosen)
    assert (found["total"], {photo["photo_id"] for photo in found["photos"]}) == (2, {first, second})
    hits = ask(client, "similar", photo_id=first, photo_ids=chosen, stacks="false")["hits"]
    assert [hit["photo_id"] for hit in hits] == [second]
    many = ",".join(map(str, range(1, api.MOST_SELECTED + 2)))
    for wrong in (many, "", "1,x"):
        assert f"at most {api.MOST_SELECTED}" in ask(client, "photos", 400, photo_ids=wrong)["error"]


def test_searches_find_what_the_library_finds(client: TestClient, opened: Library, small: Any) -> None:
    data = (small.photos / "coffee.jpg").read_bytes()
    found = ask(client, "search", body=data, k=3)
    assert [hit["photo_id"] for hit in found["hits"]] == [
        hit.photo.photo_id for hit in opened.search(data, k=3).hits
    ]
    one, two, three = (hit["photo_id"] for hit in found["hits"])
    similar = ask(client, "similar", photo_id=one, k=5)["hits"]
    assert [hit["photo_id"] for hit in similar] == [
        hit.photo.photo_id for hit in opened.similar(one, k=5).hits
    ]
    several = ask(client, "search_examples", more=f"{one},{two}", less=str(three))["hits"]
    assert [hit["photo_id"] for hit in several] == [
        hit.photo.photo_id for hit in opened.search_examples([one, two], [three]).hits
    ]
    assert ask(client, "photo", photo_id=one)["path"] == found["hits"][0]["path"]


def test_a_part_of_a_photo_or_an_upload_is_searched_for(
    opened: Library, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("astronaut", "chelsea", "coffee")
    for name in names:
        (tmp_path / f"{name}.jpg").write_bytes((small.photos / f"{name}.jpg").read_bytes())
    with Library.open(tmp_path / "parts") as made:
        made.index(tmp_path)
        ids = {Path(photo.path).stem: photo.photo_id for photo in made.photos()}
        expected = made.search_region(ids["chelsea"], (0.25, 0.25, 0.5, 0.5))
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARIES", f"{small.folder}{os.pathsep}{tmp_path}/parts")
    with TestClient(Starlette(routes=list(api_routes()))) as client:
        asked = {"part": "0.25,0.25,0.5,0.5", "library": "parts"}
        found = ask(client, "similar_region", photo_id=ids["chelsea"], **asked)
        box = {"left": 0.25, "top": 0.25, "width": 0.5, "height": 0.5}
        assert found["region"] == {"box": box, "compared": 2, "by_patches": True}
        assert [hit["photo_id"] for hit in found["hits"]] == [hit.photo.photo_id for hit in expected.hits]
        for hit, other in zip(found["hits"], expected.hits, strict=True):
            assert other.box is not None
            assert hit["box"]["left"] == pytest.approx(other.box.left)
        crop = (small.photos / "chelsea-crop.jpg").read_bytes()
        (first, *_) = ask(client, "search_region", body=crop, k=1, **asked)["hits"]
        assert first["photo_id"] == ids["chelsea"]
        assert "box" in first
        beside = ask(client, "similar_region", photo_id=1, part="0,0,0.5,0.5")  # its plugin has no patches
        assert not beside["region"]["by_patches"]
        for wrong in ("0.1,0.2,0.3", "0,0,2,1", "0,0,0,1", "a,b,c,d"):
            assert "error" in ask(client, "similar_region", 400, photo_id=1, part=wrong)
        assert "'part' is missing" in ask(client, "search_region", 400, body=crop)["error"]
        assert "send a picture" in ask(client, "search_region", 400, part="0,0,1,1")["error"]


def test_reconstructions_of_photos_and_uploads(client: TestClient, small: Any) -> None:
    found = ask(client, "reconstruction", photo_id=1, mask_ratio=0.5, seed=3)
    assert found["loss"] > 0
    hidden = sum(map(sum, found["mask"]))
    assert hidden == sum(map(len, found["mask"])) / 2
    assert [len(row) for row in found["error"]] == [len(row) for row in found["mask"]]
    assert ask(client, "reconstruction", photo_id=1, mask_ratio=0.5, seed=3) == found
    assert ask(client, "reconstruction", photo_id=1, mask_ratio=0)["loss"] is None
    picture = ask(client, "reconstruction_png", photo_id=1, soften="false")
    assert Image.open(BytesIO(picture)).format == "PNG"
    data = (small.photos / "coffee.jpg").read_bytes()
    assert ask(client, "reconstruct", body=data, mask_ratio=0.5)["mask_ratio"] == 0.5
    assert Image.open(BytesIO(ask(client, "reconstruct_png", body=data))).width > 300
    for name in ("reconstruct", "reconstruct_png"):
        assert "send a picture" in ask(client, name, 400)["error"]
        assert "error" in ask(client, name, 422, body=b"no picture")
    assert "no photo with id 99999" in ask(client, "reconstruction_png", 404, photo_id=99999)["error"]
    assert "0 to 0.9" in ask(client, "reconstruction", 400, photo_id=1, mask_ratio=1)["error"]


def test_each_of_several_libraries_answers(
    opened: Library, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Library.open(tmp_path / "second", embedder="color_layout") as second:
        Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
        second.index(tmp_path)
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARIES", f"{small.folder}{os.pathsep}{tmp_path}/second")
    with TestClient(Starlette(routes=[*api_routes(), *photo_routes()])) as client:
        first, other = ask(client, "libraries")["libraries"]
        assert (first["folder"], other["name"]) == (str(small.folder), "second")
        assert ask(client, "status")["photos"] == opened.count_photos()
        for name in (other["name"], other["identity"]):
            assert ask(client, "status", library=name)["photos"] == 1
            (photo,) = ask(client, "photos", library=name)["photos"]
            assert client.get("/" + photo["thumbnail"]).headers["content-type"] == "image/jpeg"
            assert Path(ask(client, "photo", photo_id=1, library=name)["path"]).name == "red.png"
            details = client.get("/" + photo["file"].replace("photo/", "details/")).json()
            assert details["path"] == photo["path"]
            assert ask(client, "search", body=(tmp_path / "red.png").read_bytes(), library=name)["known"]
        assert "no library 'third'" in ask(client, "status", 404, library="third")["error"]


@pytest.mark.parametrize(
    ("name", "status", "values", "says"),
    [
        ("photo", 404, {"photo_id": 99999}, "no photo with id 99999"),
        ("photo", 404, {"photo_id": "x"}, "a whole number"),
        ("similar", 404, {"photo_id": 99999}, "no photo with id 99999"),
        ("similar", 404, {"photo_id": 1, "space": 77}, "77"),
        ("similar", 400, {"photo_id": 1, "k": 0}, "a whole number, 1 to 1000"),
        ("similar", 400, {"photo_id": 1, "kk": 3}, "there is no parameter 'kk'"),
        ("similar", 404, {"photo_id": 1, "min_score": "same"}, "not measured"),
        ("search_examples", 400, {}, "'more' is missing"),
        ("search_examples", 400, {"more": "1,"}, "numbers of photos"),
        ("search_examples", 404, {"more": "1,99999"}, "no photo with id 99999"),
        ("photos", 400, {"after": "yesterday"}, "a date"),
        ("photos", 400, {"favourite": "yes"}, "true or false"),
        ("photos", 400, {"limit": ["1", "2"]}, "more than once"),
        ("search", 400, {}, "send a picture"),
    ],
)
def test_what_is_wrong_is_said(
    client: TestClient, name: str, status: int, values: dict[str, Any], says: str
) -> None:
    assert says in ask(client, name, status, **values)["error"]


def test_bytes_that_are_no_picture_are_refused(client: TestClient) -> None:
    assert "error" in ask(client, "search", 422, body=b"no picture")


def test_a_picture_that_is_too_large_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "UPLOAD_BYTES", 1000)
    assert "MiB at most" in ask(client, "search", 413, body=bytes(1001))["error"]


def test_an_empty_library_answers(empty: Path) -> None:
    with TestClient(Starlette(routes=list(api_routes()))) as client:
        assert ask(client, "status")["photos"] == 0
        assert ask(client, "photos") == {"total": 0, "photos": []}
        ask(client, "search", 404, body=b"x")


ODD = st.one_of(
    st.text(max_size=40),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.sampled_from(["", "0", "-1", "1e308", "NaN", "inf", "١", "%00", "\0", "'--", "../..", "same", "true"]),
    st.lists(st.integers(-2, 40), max_size=120).map(lambda ids: ",".join(map(str, ids))),
    st.datetimes().map(str),
)


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Values that the document allows."""
    if "anyOf" in schema:
        return st.one_of(*map(values_of, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "integer":
        return st.integers(schema.get("minimum", 0), min(schema.get("maximum", 2**63 - 1), 2**63 - 1)).map(
            str
        )
    if schema["type"] == "number":
        return st.floats(schema["minimum"], schema["maximum"]).map(lambda value: f"{value:.6f}")
    if schema["type"] == "boolean":
        return st.sampled_from(["true", "false"])
    if schema["type"] == "array":
        items = st.lists(st.integers(1, 60), min_size=schema["minItems"], max_size=schema["maxItems"])
        return items.map(lambda ids: ",".join(map(str, ids)))
    if schema.get("format") == "date-time":
        return st.datetimes().map(lambda moment: moment.isoformat())
    if "maxLength" not in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    most = min(60, schema["maxLength"])
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=most)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_asked_the_answer_is_a_described_one(client: TestClient, data: st.DataObject) -> None:
    path, method, operation = data.draw(st.sampled_from(OPERATIONS))
    query, address = {}, PREFIX + path
    for parameter in operation["parameters"]:
        value = data.draw(st.one_of(values_of(parameter["schema"]), ODD))
        if parameter["in"] == "path":
            number = data.draw(st.one_of(st.integers(0, 40), st.integers(0, 2**80)))
            address = address.replace(f"{{{parameter['name']}}}", str(number))
        elif data.draw(st.booleans()):
            query[parameter["name"]] = value
    body = data.draw(st.one_of(st.binary(max_size=200), st.none())) if method == "post" else None
    answer = client.request(method, address, params=query, content=body)
    assert answer.status_code < 500, answer.text
    check(answer, operation)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_what_the_document_allows_is_not_refused_as_wrong(client: TestClient, data: st.DataObject) -> None:
    path, method, operation = data.draw(
        st.sampled_from([one for one in OPERATIONS if one[1] == "get" and "{" not in one[0]])
    )
    query = {
        parameter["name"]: data.draw(values_of(parameter["schema"]))
        for parameter in operation["parameters"]
        if parameter["required"] or data.draw(st.booleans())
    }
    if not re.fullmatch(r"[^\0]*", "".join(map(str, query.values()))):
        return
    answer = client.request(method, PREFIX + path, params=query)
    if answer.status_code == 400:
        assert "for several" in answer.text or "cancel" in answer.text, (query, answer.text)


def test_a_program_gives_the_password_in_a_header(opened: Library) -> None:
    guard = Middleware(AccessGuard, password="open sesame")
    with TestClient(Starlette(routes=list(api_routes()), middleware=[guard])) as client:
        assert client.get(f"{PREFIX}/status").status_code == 401
        right = {"Authorization": "Bearer open sesame"}
        assert client.get(f"{PREFIX}/status", headers=right).json()["photos"] == opened.count_photos()
        assert client.get("/elsewhere", headers=right).status_code == 401  # it is for the API alone
        for _ in range(20):
            answer = client.get(f"{PREFIX}/status", headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert client.get(f"{PREFIX}/status", headers=right).status_code == 429
