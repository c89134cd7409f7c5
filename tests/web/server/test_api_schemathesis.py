"""schemathesis draws requests from the OpenAPI document, right and wrong ones, and finds nothing."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.applications import Starlette

from vitmae_search.library import Library
from vitmae_search.web.server.api import api_routes
from vitmae_search.web.server.openapi import document, openapi_route

APP = Starlette(routes=[*api_routes(), openapi_route()])
schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", APP)


def test_all_operations_are_seen() -> None:
    count = sum(len(methods) for methods in document()["paths"].values())
    assert len(list(schema.get_all_operations())) == count


@schema.parametrize()
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
def test_answers_are_the_described_ones(case: schemathesis.Case, opened: Library) -> None:
    # Drawn bytes are no picture, and are refused.
    excluded = [positive_data_acceptance] if case.method == "POST" else []
    case.call_and_validate(excluded_checks=excluded)
